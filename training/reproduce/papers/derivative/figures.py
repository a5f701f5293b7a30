"""The figures of the experiments: ours with standard errors, the paper's numbers as diamonds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mdpot.training.reproduce.figures import arms_legend, error_line, mean_band, panels, shared_legend
from mdpot.training.reproduce.papers.derivative.comparisons import (
    ERROR,
    change_of,
    columns,
    paper_change,
    parts,
)
from mdpot.training.reproduce.results import Result, baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 0.3
"""A larger change of the paper is written beside its diamond, which stays here."""


def changes(results: Sequence[Result]) -> Figure:
    """A panel for each network: by how much each pretraining changed the error of each property."""
    shown = parts(results)
    n_bars = len({(r.cell.dataset, r.cell.arm) for r in results})
    made, axes = panels(len(shown), 1, width=max(4.6, 1.6 + 0.2 * n_bars), height=2.8)
    for axis, (title, part) in zip(axes[:, 0], shown, strict=True):
        _change_panel(axis, part)
        axis.set_title(title, fontsize="medium")
    ends = [end for axis in axes.flat for end in axis.get_ylim()]
    for axis in axes.flat:
        axis.set_ylim(min(ends), max(ends))
    pretrained = [r for r in results if r.cell.arm.pretrain]
    arms_legend(made, pretrained, ["same network"] if any(paper_change(r) is not None for r in pretrained) else [], 3)
    return made


def lengths(results: Sequence[Result]) -> Figure:
    """A panel for each property: the error over the length of the pretraining, with that from scratch as a band."""
    (_, part), *_ = parts(results)
    shown = columns(part)
    made, axes = panels(1, len(shown), width=3.4, height=3.0)
    for axis, (dataset, column) in zip(axes[0], shown.items(), strict=True):
        chosen = [r for r in part if r.cell.dataset == dataset]
        base = baseline(chosen, chosen[0])
        if base and (found := base.mean(ERROR)):
            mean_band(axis.axhline, axis.axhspan, found, base.cell.arm.title)
        pretrained = [r for r in chosen if r.cell.arm.pretrain]
        for kind in dict.fromkeys(r.cell.arm.pretrain for r in pretrained):
            line = [r for r in pretrained if r.cell.arm.pretrain == kind]
            points = [(r.cell.arm.length, found) for r in line if (found := r.mean(ERROR))]
            error_line(axis, points, line[0].cell.arm.color, line[0].cell.arm.title.split(",")[0])
        axis.set_xscale("log")
        sizes = list(dict.fromkeys(r.cell.arm.length for r in pretrained))
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("length of the pretraining")
        axis.set_ylabel(f"test MAE{f' ({column.unit})' if column.unit else ''}", fontsize="small")
        axis.set_title(column.title, fontsize="medium")
    shared_legend(made, axes.flat, columns=3)
    return made


def _change_panel(axis: Axes, part: Sequence[Result]) -> None:
    """Bars of the change in percent, a group a property; the paper's are diamonds."""
    arms = [arm for arm in dict.fromkeys(r.cell.arm for r in part) if arm.pretrain]
    shown = columns(part)
    width = 0.8 / max(len(arms), 1)
    for center, dataset in enumerate(shown):
        for result in part:
            if result.cell.dataset != dataset or result.cell.arm not in arms:
                continue
            x = center + (arms.index(result.cell.arm) - (len(arms) - 1) / 2) * width
            found, known = change_of(part, result), paper_change(result)
            if found is not None:
                spread = None if found.standard_error is None else 100 * found.standard_error
                axis.bar(x, 100 * found.mean, 0.92 * width, color=result.cell.arm.color, yerr=spread,
                         error_kw={"linewidth": 1.0, "capsize": 2.0})  # fmt: skip
            if known is not None:
                axis.plot(x, 100 * min(known, MOST), "D", color="k", markerfacecolor="w", markersize=4, zorder=3)
            if known is not None and known > MOST:
                axis.annotate(f"{100 * known:+.0f} %", (x, 100 * MOST), (4, 0), textcoords="offset points",
                              fontsize="x-small", va="center")  # fmt: skip
    axis.axhline(0.0, color="k", linewidth=0.8)
    axis.set_xticks(range(len(shown)), [column.title for column in shown.values()])
    axis.set_xlim(-0.6, len(shown) - 0.4)
    axis.set_ylabel("change of the test MAE (%)", fontsize="small")
