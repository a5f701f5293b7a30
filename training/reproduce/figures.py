"""What figures of the results of an experiment are made of: panels, bars, lines, bands, curves, legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdpot.training.metrics import METRICS
from mdpot.training.report import readable_log, save
from mdpot.training.reproduce.comparisons import groups
from mdpot.training.reproduce.experiments import SCRATCH, Experiment
from mdpot.training.reproduce.results import Estimate, Result, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 12.0  # from this ratio of two bars on their axis is logarithmic


def draw(path: Path, experiment: Experiment, results: Sequence[Result]) -> None:
    """Draws the figure of an experiment into a PNG file; what is not finished stays empty."""
    save(experiment.figure(results), path)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure with rows × columns panels, each of a width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bar_panel(
    axis: Axes,
    results: Sequence[Result],
    key: str,
    names: Sequence[str],
    published: Callable[[Result], Value | None],
) -> None:
    """Bars of an error, a group for each network on each data set.

    Args:
        axis: to draw on.
        results: the cells of all groups.
        key: of the error.
        names: of the groups.
        published: the paper's number for a cell, a diamond beside its bar.
    """
    arms = list(dict.fromkeys(r.cell.arm for r in results))
    width = 0.8 / len(arms)
    heights = []
    for center, group in enumerate(groups(results)):
        for result in group:
            x = center + (arms.index(result.cell.arm) - (len(arms) - 1) / 2) * width
            found, known = result.mean(key), published(result)
            if found is not None:
                heights.append(found.mean)
                axis.bar(x, found.mean, 0.92 * width, color=result.cell.arm.color, yerr=found.standard_error,
                         error_kw={"linewidth": 1.2, "capsize": 2.5})  # fmt: skip
            elif result.count("diverged"):
                axis.text(x, 0.03, "diverged", rotation=90, ha="center", va="bottom", fontsize="x-small", color="0.3",
                          transform=axis.get_xaxis_transform())  # fmt: skip
            if known:
                heights.append(known.mean)
                axis.errorbar(x, known.mean, known.standard_error, fmt="D", color="k", markersize=4, linewidth=0.9,
                              markerfacecolor="w", zorder=3)  # fmt: skip
    if heights and max(heights) > WIDE * min(heights):
        axis.set_yscale("log")
        readable_log(axis.yaxis)
    axis.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0,
                    ha="right" if len(names) > 4 else "center")  # fmt: skip
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylabel(f"test {METRICS[key].heading}", fontsize="small")


def curves_panel(axis: Axes, group: Sequence[Result], key: str = "force_rmse", shades: bool = False) -> None:
    """Validation errors over the steps of the finetuning: a thin line a seed, a thick one for their geometric mean.

    With `shades` the pretrained cells differ in color, and the seeds have no lines of their own.
    """
    from matplotlib import colormaps

    pretrained = [r for r in group if r.cell.arm.pretrain]
    for result in group:
        logs = [log for o in result.outcomes if len((log := o.finetune).get(f"val/{key}", ())) > 0]
        if not logs:
            continue
        color: Any = result.cell.arm.color
        if shades and result in pretrained:
            color = colormaps["viridis"](pretrained.index(result) / len(pretrained))
        length = min(len(log["step"]) for log in logs)
        values = np.array([log[f"val/{key}"][:length] for log in logs])
        steps = logs[0]["step"][:length]
        if len(logs) > 1 and not shades:
            axis.plot(steps, values.T, color=color, linewidth=0.6, alpha=0.5)
        axis.plot(steps, np.exp(np.log(values).mean(0)), color=color, linewidth=2, label=result.cell.arm.title)
    if axis.lines:
        low, high = axis.get_ylim()
        if low <= 0 or high > 3 * low:
            axis.set_yscale("log")
            readable_log(axis.yaxis)
        axis.legend(frameon=False, fontsize="small")
    axis.set_xlabel("step of finetuning")
    axis.set_ylabel(f"validation {METRICS[key].heading}", fontsize="small")


def error_line(axis: Axes, points: Sequence[tuple[float, Estimate]], color: str, label: str) -> None:
    """Means over something, from left to right, with their standard errors."""
    if points:
        x, y = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        errors = [found.standard_error or 0.0 for found in y]
        axis.errorbar(x, [found.mean for found in y], errors, fmt="o-", color=color, capsize=2.5, label=label)


def mean_band(line: Callable[..., Any], span: Callable[..., Any], found: Estimate, label: str | None = None) -> None:
    """A mean as a line across the panel, its standard error as a band."""
    line(found.mean, color=SCRATCH.color, linewidth=1.5, label=label, zorder=0)
    if found.standard_error:
        span(found.mean - found.standard_error, found.mean + found.standard_error, color="0.9", zorder=-1)


def arms_legend(made: Figure, results: Sequence[Result], sources: Sequence[str], columns: int | None = None) -> None:
    """One legend of the ways to train above all panels, and where in the paper the diamonds are from; in a row, or in
    that many columns."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    arms = list(dict.fromkeys(r.cell.arm for r in results))
    handles: list[Any] = [Patch(color=arm.color, label=arm.title) for arm in arms]
    if sources:
        handles.append(Line2D([], [], marker="D", color="k", markerfacecolor="w", linestyle="", markersize=5,
                              label=f"paper, {' and '.join(dict.fromkeys(sources))}"))  # fmt: skip
    made.legend(handles=handles, loc="outside upper center", ncols=columns or len(handles), frameon=False,
                fontsize="small")  # fmt: skip


def shared_legend(made: Figure, axes: Iterable[Axes], columns: int) -> None:
    """One legend above all panels, of the labels in some."""
    pairs = (pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    handles = {label: handle for handle, label in pairs}
    made.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=columns, frameon=False,
                fontsize="small")  # fmt: skip


def arm_title(result: Result) -> str:
    """The name of a cell's way to train, and whether nothing came of it."""
    title = result.cell.arm.title
    return f"{title} (diverged)" if result.count("diverged") and not result.finished else title
