"""The figures of the experiments: ours with standard errors, the paper's numbers as diamonds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mdpot.training.metrics import METRICS
from mdpot.training.report import readable_log
from mdpot.training.reproduce.comparisons import groups, n_labeled, relative_change, seconds_per_epoch
from mdpot.training.reproduce.figures import (
    WIDE,
    arm_title,
    arms_legend,
    bar_panel,
    curves_panel,
    error_line,
    mean_band,
    panels,
    shared_legend,
)
from mdpot.training.reproduce.papers.masked.comparisons import (
    errors_of_the_paper,
    masked_against,
    paper_change,
    paper_row,
    paper_seconds_per_epoch,
    stages,
)
from mdpot.training.reproduce.results import Result, Value, baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def bars(results: Sequence[Result]) -> Figure:
    """A column of panels for each data set or, for many, all in one: forces above, energies below."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    parts = [[d] for d in datasets] if len(datasets) <= 2 else [datasets]
    n_groups = max(len(groups([r for r in results if r.cell.dataset in part])) for part in parts)
    made, axes = panels(2, len(parts), width=max(3.6, 1.15 * n_groups + 1.4), height=2.7)
    for column, part in enumerate(parts):
        chosen = [r for r in results if r.cell.dataset in part]
        several = len({r.cell.dataset for r in chosen}) > 1
        firsts = [group[0].cell for group in groups(chosen)]
        names = [cell.dataset.removeprefix("rmd17-") if several else cell.model for cell in firsts]
        for row, (what, key) in enumerate(zip(("force", "energy"), errors_of_the_paper(results), strict=True)):
            bar_panel(axes[row][column], chosen, key, names, partial(_published, what=what))
        if len(part) == 1 and len(datasets) > 1:
            axes[0][column].set_title(part[0], fontsize="medium")
    known = [row for r in results if (row := paper_row(r)) and (row.force or row.energy)]
    arms_legend(made, results, [row.source for row in known])
    return made


def ratios(results: Sequence[Result]) -> Figure:
    """Test errors over the masking ratio with that from scratch as a band, and the validation curves."""
    parts = groups(results)
    made, axes = panels(len(parts), 3, width=4.4, height=3.2)
    for (left, middle, right), group in zip(axes, parts, strict=True):
        masked = [r for r in group if r.cell.arm.kind == "mask"]
        key, _ = errors_of_the_paper(group)
        points = [(_ratio(r), found) for r in masked if (found := r.mean(key))]
        error_line(left, points, "C0", "masked")
        base = baseline(group, group[0])
        if base and (found := base.mean(key)):
            mean_band(left.axhline, left.axhspan, found, base.cell.arm.title)
        for result in masked:
            if known := _published(result, "force"):
                left.errorbar(_ratio(result), known.mean, known.standard_error, fmt="D", color="k",
                              markerfacecolor="w", markersize=5, label="paper, masked")  # fmt: skip
        left.set_xlabel("masking ratio")
        left.set_xticks([_ratio(r) for r in masked])
        left.set_ylabel(f"test {METRICS[key].heading}", fontsize="small")
        left.legend(frameon=False, fontsize="small")
        curves_panel(middle, group, shades=True)
        curves_panel(right, group, "energy_rmse", shades=True)
        left.set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def extended(results: Sequence[Result]) -> Figure:
    """As figure 2 of the paper: how far the masked network's error is from that of each training from scratch."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    models = list(dict.fromkeys(r.cell.model for r in results))
    made, axes = panels(2, len(datasets), width=max(3.6, 1.15 * len(models) + 1.4), height=2.7)
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
                    color=base.cell.arm.color,
                    label=f"against {base.cell.arm.title.removeprefix('from ')}",
                )
            theirs = None if longer else paper_change(masked, what)
            if theirs is not None:
                axis.plot(x, 100 * theirs, "D", color="k", markerfacecolor="w", markersize=5, label="paper, table 1")
            axis.axhline(0.0, color="k", linewidth=0.8)
            axis.set_xticks(range(len(models)), models)
            axis.set_xlim(-0.6, len(models) - 0.4)
            axis.set_ylabel(f"change of {METRICS[key].title} (%)", fontsize="small")
        axes[0][column].set_title(base.cell.dataset, fontsize="medium")
    shared_legend(made, axes.flat, columns=3 if len(datasets) > 1 else 1)
    return made


def convergence(results: Sequence[Result]) -> Figure:
    """The validation curves of each network, two rows a data set: forces and energies."""
    datasets = list(dict.fromkeys(r.cell.dataset for r in results))
    models = list(dict.fromkeys(r.cell.model for r in results))
    made, axes = panels(2 * len(datasets), len(models), width=4.0, height=3.0)
    for group in groups(results):
        row, column = 2 * datasets.index(group[0].cell.dataset), models.index(group[0].cell.model)
        curves_panel(axes[row][column], group)
        curves_panel(axes[row + 1][column], group, "energy_rmse")
        axes[row][column].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def learning(results: Sequence[Result]) -> Figure:
    """Test errors over the number of labeled frames, both axes logarithmic."""
    parts = groups(results)
    made, axes = panels(len(parts), 3, width=3.8, height=3.4)
    for row, group in zip(axes, parts, strict=True):
        arms = list(dict.fromkeys(r.cell.arm for r in group))
        for axis, key in zip(row, ("force_rmse", "force_mae", "energy_rmse"), strict=True):
            for arm in arms:
                line = [r for r in group if r.cell.arm == arm]
                points = [(n_labeled(r), found) for r in line if (found := r.mean(key))]
                error_line(axis, points, arm.color, arm.title)
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
            axis.set_ylabel(f"test {METRICS[key].heading}", fontsize="small")
        row[0].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def objectives(results: Sequence[Result]) -> Figure:
    """A line for each way to train: forces left, energies right, with that from scratch as a band."""
    parts = groups(results)
    n_lines = max(len(group) for group in parts)
    made, axes = panels(len(parts), 2, width=4.6, height=0.8 + 0.24 * n_lines)
    for row, group in zip(axes, parts, strict=True):
        for axis, key in zip(row, ("force_rmse", "energy_rmse"), strict=True):
            for line, result in enumerate(group):
                color = result.cell.arm.color
                values = list(result.values(key).values())
                axis.plot(values, [line] * len(values), "|", color=color, markersize=7, alpha=0.6)
                if found := result.mean(key):
                    axis.errorbar(found.mean, line, xerr=found.standard_error, fmt="o", color=color, capsize=2.5)
            base = baseline(group, group[0])
            if base and (found := base.mean(key)):
                mean_band(axis.axvline, axis.axvspan, found)
            axis.set_yticks(range(len(group)), [arm_title(r) for r in group] if axis is row[0] else [])
            axis.set_ylim(len(group) - 0.4, -0.6)
            axis.set_xlabel(f"test {METRICS[key].heading}")
        row[0].set_title(f"{group[0].cell.dataset}, {group[0].cell.model}", fontsize="medium")
    return made


def cost(results: Sequence[Result]) -> Figure:
    """Seconds of an epoch of each stage beside the paper's, and milliseconds of a step of dynamics."""
    parts = groups(results)
    made, ((left, right),) = panels(1, 2, width=4.6, height=0.9 + 0.42 * len(parts))
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
    shared_legend(made, [left], columns=3)
    return made


def _published(result: Result, what: str) -> Value | None:
    """The paper's error of a cell, "force" or "energy"."""
    row = paper_row(result)
    return getattr(row, what) if row else None


def _ratio(result: Result) -> float:
    return (result.cell.pretraining or result.cell.recipe.pretrain).ratio
