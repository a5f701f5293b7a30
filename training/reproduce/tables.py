"""Tables in Markdown of the results of an experiment: errors, what changed them, and from how many seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdpot.training.metrics import METRICS
from mdpot.training.reproduce.comparisons import groups, relative_change
from mdpot.training.reproduce.results import Estimate, Result, Value, estimate, paired

Column = tuple[str, Callable[[Result], str]]
"""A title, of which what follows a "#" is not shown, and what stands in the row of a result."""
NOTHING = "–"
SPLITS = ("train", "validation", "test")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int = 1) -> str:
    """A Markdown table whose first columns are text and the others numbers."""
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * n_texts + "---:|" * (len(titles) - n_texts)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: Estimate | Value | None, decimals: int | None = None, sign: str = "") -> str:
    """A mean, ± its standard error where there is one; three digits, unless decimals are given."""
    if value is None:
        return NOTHING
    if decimals is None:
        decimals = decimals_for(value.mean)
    text = f"{value.mean:{sign},.{decimals}f}"
    return text if value.standard_error is None else f"{text} ± {value.standard_error:,.{decimals}f}"


def error(result: Result, key: str, frames: str = "test", decimals: int | None = None) -> str:
    """An error of a cell, or why there is none."""
    found = result.mean(key, frames)
    if found is None:
        return next((status for status in ("diverged", "failed") if result.count(status)), NOTHING)
    return number(found, decimals)


def seeds(result: Result) -> str:
    """How many seeds are behind a number."""
    asked, done = len(result.outcomes), len(result.finished)
    others = [f"{n} {status}" for status in ("diverged", "failed") if (n := result.count(status))]
    return str(done) if done == asked else f"{done} of {asked}" + (f" ({', '.join(others)})" if others else "")


def change(result: Result, base: Result | None, key: str) -> str:
    """How an error differs from that of another cell: by how much, paired by seed, and by which share of the mean."""
    if base is None or base is result:
        return ""
    difference, share = paired(result, base, key), relative_change(result, base, key)
    before = base.mean(key, seeds=result.values(key))
    if difference is None or share is None or before is None:
        return NOTHING
    return f"{number(difference, decimals_for(before.mean), '+')} ({percent(share)})"


def percent(share: float) -> str:
    """A relative change, "-58.9 %"."""
    return f"{100 * share:+.1f} %"


def frames_text(frames: int | None) -> str:
    """A number of labeled frames."""
    return "all" if frames is None else f"{frames:,}"


def by_cell(results: Sequence[Result], columns: Sequence[Column]) -> str:
    """One row a cell; columns that stay empty are left out."""
    texts = what_differs(results)
    cells = {title: [make(r) for r in results] for title, make in [*texts, *columns]}
    filled = [title for title, values in cells.items() if any(values)]
    return table(
        [title.split("#")[0] for title in filled],
        [[cells[title][n] for title in filled] for n in range(len(results))],
        len(texts),
    )


def on_other_frames(results: Sequence[Result], keys: Sequence[str]) -> str:
    """Tables of some errors, one for each set of frames beside the splits; "" where there is none."""
    names = dict.fromkeys(name for r in results for o in r.finished.values() for name in o.metrics["errors"])
    text = ""
    for name in names:
        if name not in SPLITS:
            rows = [r for r in results if any(name in o.metrics["errors"] for o in r.finished.values())]
            columns = [(METRICS[key].heading, lambda r, key=key, name=name: error(r, key, name)) for key in keys]
            text += f"\n\nOn the frames of `{name}`, which nothing was chosen by:\n\n{by_cell(rows, columns)}"
    return text


def dynamics(results: Sequence[Result]) -> str:
    """A table of the timed dynamics of each network on each data set; "" where there are none."""
    rows = []
    for group in groups(results):
        timings, cell = [t for r in group for t in r.timings], group[0].cell
        if timings:
            first, mean = timings[0], number(estimate([t["ms_per_step"] for t in timings]))
            rows.append([cell.dataset, cell.model, first["system"], f"{first['n_atoms']}", mean, f"{first['threads']}"])
    head = ["data", "network", "system", "atoms", "ms/step of dynamics", "threads"]
    text = f"\n\nDynamics, velocity Verlet by ASE; mean over the trained potentials:\n\n{table(head, rows, 3)}"
    return text if rows else ""


def what_differs(results: Sequence[Result]) -> list[Column]:
    """What tells the cells of these results apart: always how they are trained, the rest where it differs."""
    columns: list[Column] = []
    if len({r.cell.dataset for r in results}) > 1:
        columns.append(("data", lambda r: r.cell.dataset))
    if len({r.cell.model for r in results}) > 1:
        columns.append(("network", lambda r: r.cell.model))
    if len({r.cell.variant for r in results}) > 1:
        columns.append(("finetuning", lambda r: r.cell.variant.title))
    if len({r.cell.frames for r in results}) > 1:
        columns.append(("labeled frames", lambda r: frames_text(r.cell.frames)))
    return [*columns, ("training", lambda r: r.cell.arm.title)]


def fewest_seeds(results: Sequence[Result]) -> str:
    """How many seeds are behind the numbers of a row."""
    counts = [len(r.finished) for r in results]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"


def decimals_for(value: float) -> int:
    """Decimals that leave about three digits."""
    return 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
