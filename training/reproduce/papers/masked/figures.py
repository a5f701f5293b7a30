"""The figures of the experiments: ours with standard errors, the paper's numbers as diamonds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdpot.training.report import readable_log, save
from mdpot.training.reproduce.papers.masked.comparisons import (
    UNITS,
    errors_of_the_paper,
    groups,
    masked_against,
    n_labeled,
    paper_change,
    paper_row,
    paper_seconds_per_epoch,
    relative_change,
    seconds_per_epoch,
    stages,
)
from mdpot.training.reproduce.results import Estimate, Result, baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"scratch": "0.6", "longer": "0.35", "mask": "C0", "denoise": "C1", "forcefield": "C2"}
WIDE = 12.0  # from this ratio of two bars on their axis is logarithmic


def draw(path: Path, name: str, results: Sequence[Result]) -> None:
    """Draws the figure of an experiment; what is not finished stays empty.

    Args:
        path: PNG file.
        name: key of `EXPERIMENTS`.
        results: its cells.
    """
    save(FIGURES[name](results), path)


def _bars(results: Sequence[Result]) -> Figure:
    """A column of panels for each data set or, for many, all in one: forces above, energies below."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    parts = [[d] for d in datasets] if len(datasets) <= 2 else [datasets]
    n_groups = max(len(groups([r for r in results if r.cell.dataset in part])) for part in parts)
    made, axes = _panels(2, len(parts), width=max(3.6, 1.15 * n_groups + 1.4), height=2.7)
    for column, part in enumerate(parts):
        chosen = [r for r in results if r.cell.dataset in part]
        for row, key in enumerate(errors_of_the_paper(results)):
            _bar_panel(axes[row][column], chosen, key, "force" if row == 0 else "energy")
        if len(part) == 1 and len(datasets) > 1:
            axes[0][column].set_title(part[0], fontsize="medium")
    _legend(made, results)
    return made


def _bar_panel(axis: Axes, results: Sequence[Result], key: str, what: str) -> None:
    arms = list(dict.fromkeys(r.cell.arm for r in results))
    width = 0.8 / len(arms)
    heights = []
    for center, group in enumerate(groups(results)):
        for result in group:
            x = center + (arms.index(result.cell.arm) - (len(arms) - 1) / 2) * width
            found, row = result.mean(key), paper_row(result)
            if found is not None:
                heights.append(found.mean)
                axis.bar(x, found.mean, 0.92 * width, color=COLORS[result.cell.arm.kind], yerr=found.standard_error,
                         error_kw={"linewidth": 1.2, "capsize": 2.5})  # fmt: skip
            elif result.count("diverged"):
                axis.text(x, 0.03, "diverged", rotation=90, ha="center", va="bottom", fontsize="x-small", color="0.3",
                          transform=axis.get_xaxis_transform())  # fmt: skip
            known = row and (row.force if what == "force" else row.energy)
            if known:
                heights.append(known.mean)
                axis.errorbar(x, known.mean, known.standard_error, fmt="D", color="k", markersize=4, linewidth=0.9,
                              markerfacecolor="w", zorder=3)  # fmt: skip
    if heights and max(heights) > WIDE * min(heights):
        axis.set_yscale("log")
        readable_log(axis.yaxis)
    several = len({r.cell.dataset for r in results}) > 1
    names = [_name(group[0], several) for group in groups(results)]
    axis.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0,
                    ha="right" if len(names) > 4 else "center")  # fmt: skip
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylabel(f"test {UNITS[key]}", fontsize="small")


def _name(result: Result, several: bool) -> str:
    if not several:
        return result.cell.model
    return result.cell.dataset.removeprefix("rmd17-")


def _ratios(results: Sequence[Result]) -> Figure:
    """Test errors over the masking ratio with that from scratch as a band, and the validation curves."""
    parts = groups(results)
    made, axes = _panels(len(parts), 3, width=4.4, height=3.2)
    for (left, middle, right), group in zip(axes, parts, strict=True):
        masked = [r for r in group if r.cell.arm.kind == "mask"]
        key, _ = errors_of_the_paper(group)
        points = [(_pretrain(r).ratio, found) for r in masked if (found := r.mean(key))]
        _line(left, points, "C0", "masked")
        base = baseline(group, group[0])
        if base and (found := base.mean(key)):
            _band(left.axhline, left.axhspan, found, base.cell.arm.title)
        for result in group:
            row = paper_row(result)
            if row and row.force and result.cell.arm.kind == "mask":
                left.errorbar(_pretrain(result).ratio, row.force.mean, row.force.standard_error, fmt="D", color="k",
                              markerfacecolor="w", markersize=5, label="paper, masked")  # fmt: skip
        left.set_xlabel("masking ratio")
        left.set_xticks([_pretrain(r).ratio for r in masked])
        left.set_ylabel(f"test {UNITS[key]}", fontsize="small")
        left.legend(frameon=False, fontsize="small")
        _curves(middle, group, shades=True)
        _curves(right, group, "energy_rmse", shades=True)
        left.set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def _extended(results: Sequence[Result]) -> Figure:
    """As figure 2 of the paper: how far the masked network's error is from that of each training from scratch."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    models = list(dict.fromkeys(r.cell.model for r in results))
    made, axes = _panels(2, len(datasets), width=max(3.6, 1.15 * len(models) + 1.4), height=2.7)
    for masked, base in masked_against(results):
        column, center = datasets.index(base.cell.dataset), models.index(base.cell.model)
        longer = base.cell.arm.kind == "longer"
        keys = dict(zip(("force", "energy"), errors_of_the_paper(results), strict=True))
        for axis, (what, key) in zip(axes[:, column], keys.items(), strict=True):
            x, share = center + (0.2 if longer else -0.2), relative_change(masked, base, key)
            if share is not None:
                axis.bar(
                    x,
                    100 * share,
                    0.37,
                    color=COLORS[base.cell.arm.kind],
                    label=f"against {base.cell.arm.title.removeprefix('from ')}",
                )
            theirs = None if longer else paper_change(masked, what)
            if theirs is not None:
                axis.plot(x, 100 * theirs, "D", color="k", markerfacecolor="w", markersize=5, label="paper, table 1")
            axis.axhline(0.0, color="k", linewidth=0.8)
            axis.set_xticks(range(len(models)), models)
            axis.set_xlim(-0.6, len(models) - 0.4)
            axis.set_ylabel(f"change of {UNITS[key].split(' (')[0]} (%)", fontsize="small")
        axes[0][column].set_title(base.cell.dataset, fontsize="medium")
    _labels(made, axes.flat, columns=3 if len(datasets) > 1 else 1)
    return made


def _convergence(results: Sequence[Result]) -> Figure:
    """The validation curves of each network, two rows a data set: forces and energies."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    models = list(dict.fromkeys(r.cell.model for r in results))
    made, axes = _panels(2 * len(datasets), len(models), width=4.0, height=3.0)
    for group in groups(results):
        row, column = 2 * datasets.index(group[0].cell.dataset), models.index(group[0].cell.model)
        _curves(axes[row][column], group)
        _curves(axes[row + 1][column], group, "energy_rmse")
        axes[row][column].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def _curves(axis: Axes, group: Sequence[Result], key: str = "force_rmse", shades: bool = False) -> None:
    """Validation errors over the steps of the finetuning: a thin line a seed, a thick one for their geometric mean."""
    from matplotlib import colormaps

    masked = [r for r in group if r.cell.arm.kind == "mask"]
    for result in group:
        logs = [log for o in result.outcomes if len((log := o.finetune).get(f"val/{key}", ())) > 0]
        if not logs:
            continue
        color: Any = COLORS[result.cell.arm.kind]
        if shades and result in masked:
            color = colormaps["viridis"](masked.index(result) / max(len(masked), 1))
        length = min(len(log["step"]) for log in logs)
        curves = np.array([log[f"val/{key}"][:length] for log in logs])
        steps = logs[0]["step"][:length]
        if len(logs) > 1 and not shades:
            axis.plot(steps, curves.T, color=color, linewidth=0.6, alpha=0.5)
        axis.plot(steps, np.exp(np.log(curves).mean(0)), color=color, linewidth=2, label=result.cell.arm.title)
    if axis.lines:
        low, high = axis.get_ylim()
        if low <= 0 or high > 3 * low:
            axis.set_yscale("log")
            readable_log(axis.yaxis)
        axis.legend(frameon=False, fontsize="small")
    axis.set_xlabel("step of finetuning")
    axis.set_ylabel(f"validation {UNITS[key]}", fontsize="small")


def _learning(results: Sequence[Result]) -> Figure:
    """Test errors over the number of labeled frames, both axes logarithmic."""
    parts = groups(results)
    made, axes = _panels(len(parts), 3, width=3.8, height=3.4)
    for row, group in zip(axes, parts, strict=True):
        arms = list(dict.fromkeys(r.cell.arm for r in group))
        for axis, key in zip(row, ("force_rmse", "force_mae", "energy_rmse"), strict=True):
            for arm in arms:
                line = [r for r in group if r.cell.arm == arm]
                points = [(n_labeled(r), found) for r in line if (found := r.mean(key))]
                _line(axis, points, COLORS[arm.kind], arm.title)
            axis.set_xscale("log")
            if axis.lines:
                axis.set_yscale("log")
                readable_log(axis.yaxis)
                sizes = {n_labeled(r): "all" if r.cell.frames is None else f"{r.cell.frames}" for r in group}
                axis.set_xticks(list(sizes), list(sizes.values()))
                axis.set_xticks([], minor=True)
                if axis is row[0]:
                    axis.legend(frameon=False, fontsize="small")
            axis.set_xlabel("labeled training frames")
            axis.set_ylabel(f"test {UNITS[key]}", fontsize="small")
        row[0].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def _objectives(results: Sequence[Result]) -> Figure:
    """A line for each way to train: forces left, energies right, with that from scratch as a band."""
    parts = groups(results)
    n_lines = max(len(group) for group in parts)
    made, axes = _panels(len(parts), 2, width=4.6, height=0.8 + 0.24 * n_lines)
    for row, group in zip(axes, parts, strict=True):
        for axis, key in zip(row, ("force_rmse", "energy_rmse"), strict=True):
            for line, result in enumerate(group):
                color = COLORS[result.cell.arm.kind]
                values = list(result.values(key).values())
                axis.plot(values, [line] * len(values), "|", color=color, markersize=7, alpha=0.6)
                if found := result.mean(key):
                    axis.errorbar(found.mean, line, xerr=found.standard_error, fmt="o", color=color, capsize=2.5)
            base = baseline(group, group[0])
            if base and (found := base.mean(key)):
                _band(axis.axvline, axis.axvspan, found)
            axis.set_yticks(range(len(group)), [_title(r) for r in group] if axis is row[0] else [])
            axis.set_ylim(len(group) - 0.4, -0.6)
            axis.set_xlabel(f"test {UNITS[key]}")
        row[0].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def _cost(results: Sequence[Result]) -> Figure:
    """Seconds of an epoch of each stage beside the paper's, and milliseconds of a step of dynamics."""
    parts = groups(results)
    made, ((left, right),) = _panels(1, 2, width=4.6, height=0.9 + 0.42 * len(parts))
    lines = {(group[0].cell.dataset, group[0].cell.model): line for line, group in enumerate(parts)}
    looks = {"pretrain": ("C0", -0.19), "finetune": ("0.6", 0.19)}
    values: dict[Axes, list[float]] = {left: [], right: []}
    for result, stage, title in stages(results):
        color, offset = looks[stage]
        line = lines[result.cell.dataset, result.cell.model] + offset
        if ours := seconds_per_epoch(result, stage):
            left.barh(line, ours, 0.36, color=color, label=title)
            values[left].append(ours)
        if theirs := paper_seconds_per_epoch(result, stage):
            left.plot(theirs, line, "D", color="k", markerfacecolor="w", markersize=5, label="paper, RTX 4090")
            values[left].append(theirs)
    for line, group in enumerate(parts):
        if times := [t["ms_per_step"] for r in group for t in r.timings]:
            values[right].append(float(np.mean(times)))
            right.barh(line, values[right][-1], 0.5, color="C2")
    names = [f"{dataset}, {model}" for dataset, model in lines]
    for axis, label in ((left, "seconds per epoch of training"), (right, "ms per step of dynamics")):
        axis.set_yticks(list(lines.values()), names if axis is left else [])
        axis.set_ylim(len(parts) - 0.4, -0.6)
        axis.set_xlabel(label)
        if values[axis] and max(values[axis]) > WIDE * min(values[axis]):
            axis.set_xscale("log")
    _labels(made, [left], columns=3)
    return made


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with rows × columns panels, each of a width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line(axis: Axes, points: Sequence[tuple[float, Estimate]], color: str, label: str) -> None:
    if points:
        x, y = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        errors = [found.standard_error or 0.0 for found in y]
        axis.errorbar(x, [found.mean for found in y], errors, fmt="o-", color=color, capsize=2.5, label=label)


def _band(line: Callable[..., Any], span: Callable[..., Any], found: Estimate, label: str | None = None) -> None:
    """A mean as a line across the panel, its standard error as a band."""
    line(found.mean, color=COLORS["scratch"], linewidth=1.5, label=label, zorder=0)
    if found.standard_error:
        span(found.mean - found.standard_error, found.mean + found.standard_error, color="0.9", zorder=-1)


def _legend(made: Figure, results: Sequence[Result]) -> None:
    """One legend for all panels, above them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    arms = list(dict.fromkeys(r.cell.arm for r in results))
    handles: list[Any] = [Patch(color=COLORS[arm.kind], label=arm.title) for arm in arms]
    known = [row for r in results if (row := paper_row(r)) and (row.force or row.energy)]
    if known:
        sources = " and ".join(dict.fromkeys(row.source for row in known))
        handles.append(Line2D([], [], marker="D", color="k", markerfacecolor="w", linestyle="", markersize=5,
                              label=f"paper, {sources}"))  # fmt: skip
    made.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize="small")


def _labels(made: Figure, axes: Iterable[Axes], columns: int) -> None:
    """One legend above all panels, of the labels in some."""
    pairs = (pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    handles = {label: handle for handle, label in pairs}
    made.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns, frameon=False,
                fontsize="small")  # fmt: skip


def _title(result: Result) -> str:
    title = result.cell.arm.title
    return f"{title} (diverged)" if result.count("diverged") and not result.finished else title


def _pretrain(result: Result) -> Any:
    parent = result.cell.runs[0].parent
    return parent.recipe.pretrain if parent else result.cell.recipe.pretrain


FIGURES: dict[str, Callable[[Sequence[Result]], Figure]] = {
    "table1": _bars,
    "table2": _bars,
    "extended-epochs": _extended,
    "denoising": _bars,
    "masking-ratio": _ratios,
    "convergence": _convergence,
    "cost": _cost,
    "learning-curve": _learning,
    "objectives": _objectives,
}
