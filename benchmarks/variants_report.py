"""What `variants.py` says of its results: tables and a picture."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any


def draw(path: Path, results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Force error against cost, a panel for each data set."""
    from mdpot.training.report import new_figure, readable_log, save

    figure, axes = new_figure(len(results))
    for axis, (recipe, found) in zip([axes] if len(results) == 1 else axes, results.items(), strict=True):
        points = {name: (result["cpu_ms"], result["errors"]["force_mae"]) for name, result in found.items()}
        for name, (x, y) in points.items():
            chosen = name in ("small", "medium")
            axis.plot(x, y, "o", color="tab:red" if chosen else "tab:blue" if name != "EGNN" else "tab:gray")
            # Below the point where the label would run into the next one.
            near = any(0.92 < a / x < 1.4 and 1.0 < b / y < 1.04 for a, b in points.values())
            axis.annotate(name, (x, y), textcoords="offset points", xytext=(5, -9 if near else 3), fontsize=7)
        axis.set_xscale("log")
        axis.set_yscale("log")
        readable_log(axis.xaxis, axis.yaxis)
        axis.set_title(recipe, fontsize=9)
        axis.set_xlabel("energy and forces of 192 atoms (CPU ms, one thread)")
        axis.set_ylabel("test force MAE (meV/Å)")
        axis.margins(x=0.2, y=0.1)
    save(figure, path)


def to_markdown(results: dict[str, dict[str, dict[str, Any]]], picture: str) -> str:
    """The page: a table for each data set."""
    steps = {result["steps"] for found in results.values() for result in found.values()}
    about = (
        f"Each trained from scratch for {', '.join(map(str, sorted(steps)))} steps of about 200 atoms on the training "
        "split, one seed, by SOAP where it does not say otherwise. The name of a variant is what differs from `small` "
        "at a cutoff of 4 Å. Cost: CPU time on one thread for energy and forces of 192 atoms (21 ethanols), "
        f"neighbor lists ready. `python benchmarks/variants.py --steps {max(steps)}` writes this page; commit "
        f"{', '.join(sorted({result['commit'] for found in results.values() for result in found.values()}))}."
    )
    lines = ["# Variants of the default network", "", fill(about, 118), "", f"![error against cost]({picture})", ""]
    for recipe, found in results.items():
        first = next(iter(found.values()))
        stage = first["recipe"]["finetune"]
        about = (
            f"Labels: {first['labels']}. {stage['loss'].upper()}, energy weight {stage['energy_weight']:g}, then "
            f"{stage['second_energy_weight']:g}. Forces in meV/Å, energies in meV/atom, on the test split."
        )
        lines += [
            f"## {recipe}",
            "",
            fill(about, 118),
            "",
            "| variant | force MAE | force RMSE | energy RMSE | cost (CPU ms) | training (CPU s) | parameters |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, result in sorted(found.items(), key=lambda item: item[1]["errors"]["force_mae"]):
            e = result["errors"]
            lines.append(
                f"| {name} | {e['force_mae']:.1f} | {e['force_rmse']:.1f} | {e['energy_rmse']:.2f} | "
                f"{result['cpu_ms']:.1f} | {result['cpu_seconds']:.0f} | {result['parameters']:,} |"
            )
        lines.append("")
    return "\n".join(lines)
