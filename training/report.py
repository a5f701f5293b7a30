"""What a run leaves for people: report.md and its pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdpot.files import atomic, write_text
from mdpot.training.evaluation import Evaluation, PropertyEvaluation
from mdpot.training.kinds import kinds_table, title_of
from mdpot.training.metrics import BASELINES, CURVES, ERRORS, LOGGED, METRICS, about_offset, baseline_of
from mdpot.training.schema import STAGES
from mdpot.training.state import LOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

CURVES_FILE, PARITY, REPORT = "learning_curves.png", "parity.png", "report.md"
MOST_POINTS = 20_000
#: A logarithmic axis whose ends are less than this factor apart has few round numbers, and gets those of a linear one.
FEW_TICKS = 7.0


def write_report(out: Path, metrics: Mapping[str, Any], results: Mapping[str, Evaluation | PropertyEvaluation]) -> None:
    """Draws the learning curves and the parity plot, and writes report.md beside them.

    Args:
        out: folder of the run, with the logs of its stages.
        metrics: the content of metrics.json.
        results: labels beside predictions for each set of frames.
    """
    draw_curves(out / CURVES_FILE, {stage: read_log(out / stage) for stage in STAGES})
    shown = {name: result for name, result in results.items() if name not in ("train", "validation")} or results
    draw_parity(out / PARITY, shown, metrics["labels"], metrics.get("baseline"), metrics.get("property"))
    write_text(out / REPORT, _report(metrics, out))


def read_log(folder: Path) -> dict[str, list[float]]:
    """The columns of a stage's metrics.jsonl by key; empty where the stage did not run."""
    path = folder / LOG
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    keys = dict.fromkeys(key for line in lines for key in line)
    return {key: [line.get(key, np.nan) for line in lines] for key in keys}


def error_table(tables: Mapping[str, Mapping[str, float]], forcefield: str | None = None) -> str:
    """A Markdown table with one row for each set of frames, and below it what predicting nothing would score; arguments
    as of `baseline_of`."""
    shown = {key: METRICS[key] for key in ("n_frames", *ERRORS) if any(key in t for t in tables.values())}
    rows = ["| | " + " | ".join(metric.heading for metric in shown.values()) + " |", "|---|" + "---:|" * len(shown)]

    def row(name: str, values: Mapping[str, float | None]) -> str:
        cells = ("" if (value := values.get(key)) is None else metric.text(value) for key, metric in shown.items())
        return f"| {name} | " + " | ".join(cells) + " |"

    baseline = baseline_of(tables, forcefield)
    for name, table in tables.items():
        rows.append(row(name, table))
        if nothing := {key: table[of] for key, of in BASELINES.items() if of in table}:
            rows.append(row(f"{name}: {baseline}", nothing))
    return "\n".join(rows)


def draw_curves(path: Path, logs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """One panel for each stage and each of the `CURVES` that it has; the errors on a logarithmic scale."""
    panels = [(stage, key) for stage in logs for key in CURVES if {f"train/{key}", f"val/{key}"} & logs[stage].keys()]
    figure, axes = new_figure(len(panels))
    for axis, (stage, key) in zip(axes, panels, strict=True):
        log = logs[stage]
        for split, style in (("train", "--"), ("val", "-")):
            name = "validation" if split == "val" else split
            if f"{split}/{key}" in log:
                axis.plot(log["step"], log[f"{split}/{key}"], style, marker=".", label=name)
        if key in ERRORS:
            axis.set_yscale("log")
            readable_log(axis.yaxis)
        axis.locator_params(axis="x", integer=True)
        axis.set_xlabel(f"step of {'pretraining' if stage == 'pretrain' else 'finetuning'}")
        axis.set_ylabel(LOGGED[key].heading)
        axis.legend(frameon=False)
    save(figure, path)


def draw_parity(
    path: Path,
    results: Mapping[str, Evaluation | PropertyEvaluation],
    labels: str,
    forcefield: str | None = None,
    prop: Mapping[str, str] | None = None,
) -> None:
    """Predictions over labels, a color a set of frames: energies per atom, force components, and where there are any
    stress components, or a property; of a potential that corrects a force field what the labels have beyond it.

    Args:
        path: file to write.
        results: labels beside predictions for each set of frames.
        labels: what computed them.
        forcefield: that is corrected.
        prop: name and unit of the property.
    """
    of_property = {name: result.values for name, result in results.items() if isinstance(result, PropertyEvaluation)}
    if of_property:
        name, unit = ("property", "") if prop is None else (prop["name"], prop["unit"])
        panels = [("property_mae", name, unit, of_property)]
    else:
        energies, forces, stresses = _pairs(results)
        less = "" if forcefield is None else f" − {forcefield}"
        panels = [
            ("energy_rmse", f"energy − reference{less}", "meV/atom", energies),
            ("force_rmse", f"force component{less}", "eV/Å", forces),
        ]
        if stresses:
            panels.append(("stress_rmse", f"stress component{less}", "eV/Å³", stresses))
    figure, axes = new_figure(len(panels), height=4.2)
    for axis, (key, what, unit, pairs) in zip(axes, panels, strict=True):
        for name, pair in pairs.items():
            step = -(-pair.shape[1] // MOST_POINTS)
            label = f"{name}: {METRICS[key].sentence(results[name].metrics()[key])}"
            axis.plot(*pair[:, ::step], ".", label=label, markersize=3, alpha=0.6, rasterized=True)
        _finish_parity(axis, what, f" ({unit})" if unit else "")
    figure.suptitle(f"Labels: {labels}", fontsize="small")
    save(figure, path)


def _pairs(results: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels beside predictions [2, n] of the sets of frames that have them: meV/atom, eV/Å, and eV/Å^3."""
    errors = {name: result.metrics() for name, result in results.items()}
    energies = {n: r.energy / r.sizes * 1e3 for n, r in results.items() if "energy_rmse" in errors[n]}
    forces = {n: r.forces.reshape(2, -1) for n, r in results.items() if "force_rmse" in errors[n]}
    return energies, forces, {n: r.stress.reshape(2, -1) for n, r in results.items() if "stress_rmse" in errors[n]}


def _finish_parity(axis: Axes, what: str, unit: str) -> None:
    """The diagonal, the names of the axes, and a legend."""
    empty = not axis.has_data()
    if empty:
        axis.text(0.5, 0.5, "no labels", ha="center", transform=axis.transAxes)
    low, high = axis.get_xlim()
    axis.plot([low, high], [low, high], color="0.4", linewidth=0.8, zorder=0)
    axis.locator_params(axis="x", nbins=5)  # energies are long numbers
    axis.set_xlabel(f"label: {what}{unit}")
    axis.set_ylabel(f"prediction{unit}")
    if not empty:
        axis.legend(frameon=False, markerscale=3, fontsize="small")


def new_figure(n_panels: int, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side; no display is needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * n_panels, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels)))


def label_validation(axis: Axes, key: str) -> None:
    """Labels a panel of validation errors over the steps of a finetuning; `key` is one of `METRICS`."""
    axis.set_yscale("log")
    readable_log(axis.yaxis)
    axis.set_xlabel("step of finetuning")
    axis.set_ylabel(f"validation {METRICS[key].heading}")
    axis.legend(frameon=False)


def readable_log(*axes: Axis) -> None:
    """Plain numbers on logarithmic axes, drawn already, that span less than a decade or two."""
    from matplotlib.ticker import AutoLocator, LogLocator

    for axis in axes:
        low, high = axis.get_view_interval()
        axis.set_major_locator(AutoLocator() if high < FEW_TICKS * low else LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter("")


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, atomically."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _about_errors(metrics: Mapping[str, Any]) -> str:
    """What the numbers of the table are."""
    if found := metrics.get("property"):
        unit = f" in {found['unit']}" if found["unit"] else ""
        return f"The property is `{found['name']}`{unit}."
    moved = about_offset(metrics["energy_offset"])
    return "Per-structure errors are those of the total energy of a frame." + f" {moved}" * bool(moved)


def _by_kind(metrics: Mapping[str, Any]) -> str:
    """The errors by kind of frame, and what stands out; empty where there is nothing to tell."""
    rows, outliers = metrics.get("kinds"), metrics.get("outliers")
    parts = [f"**{sentence}**" for sentence in outliers or ()]
    if rows:
        parts += [f"{title_of(rows)}.", kinds_table(rows)]
    return "".join(f"{part}\n\n" for part in ("### By kind of frame", *parts)) if parts else ""


def _use(metrics: Mapping[str, Any], out: Path) -> str:
    """How the file of the run is used."""
    if "property" in metrics:
        return f"```bash\nmdpot predict {shlex.quote(str(out))} structures.extxyz -o table.csv\n```"
    return f"""```python
from mdpot import MaskedGNNCalculator

atoms.calc = MaskedGNNCalculator({json.dumps(str(out), ensure_ascii=False)})
```"""


def _report(metrics: Mapping[str, Any], out: Path) -> str:
    pretrained = (
        f"Pretrained by the objective `{metrics['pretrained']}`." if metrics["pretrained"] else "Not pretrained."
    )
    together = metrics.get("baseline")
    if together:
        pretrained += f" It runs together with the force field `{together}`, which it corrects; errors are of both."
    warning = f"**Warning: {metrics['caution']}**\n\n" if metrics.get("caution") else ""
    notes = "".join(f"- note: {note}\n" for note in metrics.get("notes", ()))
    return f"""# {metrics["recipe"]}, preset {metrics["preset"]}, seed {metrics["seed"]}

- data: {metrics["data"]}
- labels: {metrics["labels"]}
- network: `{metrics["model"]}`. {pretrained} Finetuned for {metrics["finetune_steps"]} steps in \
{metrics["finetune_seconds"]:.0f} s; the best validation was at step {metrics["best_step"]}.
{notes}
## Errors

{warning}{error_table(metrics["errors"], together)}

{_about_errors(metrics)} {metrics["splits"]}

{_by_kind(metrics)}![learning curves]({CURVES_FILE})

![parity]({PARITY})

## Use it

{_use(metrics, out)}

The recipe is in recipe.toml, the splits in splits.json, the errors for programs in metrics.json.
"""
