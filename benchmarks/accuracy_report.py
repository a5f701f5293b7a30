"""What `accuracy.py` says of its results: a table and a picture."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from speed_report import DT, NS_PER_DAY
from trainers import TRAINERS

WIDTH = 118
COLORS = {"mdpot": "tab:red", "mace-torch": "tab:blue", "torchmd-net": "tab:green", "schnetpack": "tab:orange"}


def to_markdown(result: dict[str, Any], picture: str) -> str:
    """The page.

    Args:
        result: of `accuracy.py`, as in its JSON file; where its steps were timed anew, "timed" says how.
        picture: name of the picture beside the page.
    """
    machine, contenders = result["machine"], result["contenders"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    frames, errors = contenders[0]["frames"], contenders[0]["errors"]
    about = (
        "Frames of liquid water and ice inside the package, **labelled by the RPBE-D3 network potential**, split by "
        f"source frame: {frames['train']} train, {frames['validation']} validate, {frames['test']} test. Each "
        f"contender is trained by its own trainer for about {result['minutes']:g} minutes on "
        f"{machine['threads']} thread(s) of {machine['cpu']}, with a schedule that ends then. One seed "
        f"({result['seed']}), no GPU."
    )
    notes = (
        "Errors are those of the test split, where the forces have a root mean square of "
        f"{errors['force_rms']:.0f} meV/Å. *Shifted*: after the mean energy error per atom is taken off. *Step*: "
        f"energy and forces of {contenders[0]['n_atoms']} atoms through the contender's own ASE calculator, neighbor "
        f"list included, float32, median and quartiles; ns/day at {DT} fs. *Setup*: importing, reading, neighbor "
        "lists; not counted as training. *Epochs*: passes over the training frames, in mdpot those of pretraining and "
        "finetuning together."
    )
    lines = ["# Accuracy at equal training time", "", fill(about, WIDTH), ""]
    lines += [f"![force error against time per step]({picture})", "", *_table(contenders), "", fill(notes, WIDTH), ""]
    lines += [f"- Missing: {TRAINERS[name].label}: {reason}" for name, reason in result["missing"].items()]
    lines += [""] if result["missing"] else []
    lines += [fill(result["timed"], WIDTH), ""] if "timed" in result else []
    lines += [
        f"Versions: {versions}, Python {machine['python']}; commit {machine['commit']}.",
        "",
        "`python benchmarks/accuracy.py` writes this page; how it is done, and what is not fair about it:",
        "`benchmarks/README.md`.",
        "",
    ]
    return "\n".join(lines)


def _table(contenders: list[dict[str, Any]]) -> list[str]:
    columns = [
        "force RMSE (meV/Å)",
        "force MAE (meV/Å)",
        "energy RMSE (meV/atom)",
        "shifted (meV/atom)",
        "step (ms)",
        "ns/day",
        "training (s)",
        "setup (s)",
        "epochs",
        "parameters",
    ]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for c in sorted(contenders, key=lambda c: c["errors"]["force_rmse"]):
        errors, (low, high) = c["errors"], c["quartiles_ms"]
        cells = [
            f"{errors['force_rmse']:.1f}",
            f"{errors['force_mae']:.1f}",
            f"{errors['energy_rmse']:.2f}",
            f"{errors['energy_rmse_shifted']:.2f}",
            f"{c['median_ms']:.3g} ({low:.3g}–{high:.3g})",
            f"{NS_PER_DAY / c['median_ms']:.2g}",
            f"{c['seconds']:.0f}",
            f"{c['setup_seconds']:.0f}",
            f"{c['passes']:.0f}",
            f"{c['parameters']:,}",
        ]
        lines.append(f"| {c['label']} | " + " | ".join(cells) + " |")
    return lines


def draw(path: Path, result: dict[str, Any]) -> None:
    """Force error against time per step, both logarithmic; down and left is better."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for c in result["contenders"]:
        x, y = c["median_ms"], c["errors"]["force_rmse"]
        color = COLORS[TRAINERS[c["name"]].package]
        axes.plot(x, y, "o", ms=8, color=color)
        axes.annotate(c["label"], (x, y), (0, 9), textcoords="offset points", color=color, ha="center", fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel=f"ms per step, {result['contenders'][0]['n_atoms']} atoms")
    axes.set_ylabel("force RMSE on the test split, meV/Å")
    threads = result["machine"]["threads"]
    axes.set_title(f"Liquid water and ice: {result['minutes']:g} min of training on {threads} thread(s)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(LogLocator(subs=range(1, 10)))
        axis.set_minor_formatter("")
    axes.margins(x=0.25, y=0.2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
