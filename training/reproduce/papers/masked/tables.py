"""The tables of the experiments in Markdown, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdpot.training.reproduce.papers.masked import published as paper
from mdpot.training.reproduce.papers.masked.comparisons import (
    UNITS,
    errors_of_the_paper,
    groups,
    labels_needed,
    masked_against,
    paper_change,
    paper_row,
    paper_seconds_per_epoch,
    relative_change,
    seconds_per_epoch,
    stages,
)
from mdpot.training.reproduce.results import Estimate, Log, Result, baseline, estimate, paired

Column = tuple[str, Callable[[Result], str]]
NOTHING = "–"


def tables(name: str, results: Sequence[Result]) -> str:
    """The tables of an experiment.

    Args:
        name: key of `EXPERIMENTS`.
        results: its cells, finished or not.
    """
    return TABLES[name](results)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int = 1) -> str:
    """A Markdown table whose first columns are text and the others numbers."""
    head = ["| " + " | ".join(titles) + " |", "|" + "---|" * n_texts + "---:|" * (len(titles) - n_texts)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: Estimate | paper.Value | None, decimals: int | None = None, sign: str = "") -> str:
    """A mean, ± its standard error where there is one; three digits, unless decimals are given."""
    if value is None:
        return NOTHING
    if decimals is None:
        decimals = _decimals(value.mean)
    text = f"{value.mean:{sign},.{decimals}f}"
    return text if value.standard_error is None else f"{text} ± {value.standard_error:,.{decimals}f}"


def error(result: Result, key: str, frames: str = "test") -> str:
    """An error of a cell, or why there is none."""
    found = result.mean(key, frames)
    if found is None:
        return next((status for status in ("diverged", "failed") if result.count(status)), NOTHING)
    return number(found)


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
    return f"{number(difference, _decimals(before.mean), '+')} ({percent(share)})"


def percent(share: float) -> str:
    """A relative change, "-58.9 %"."""
    return f"{100 * share:+.1f} %"


def _paper_error(what: str) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        row = paper_row(result)
        if row is None:
            return ""
        value = row.force if what == "force" else row.energy
        return "diverges" if row.diverges else number(value, 1)

    return text


def _paper_change(what: str) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        if paper_row(result) is None or result.cell.arm.kind in ("scratch", "longer"):
            return ""
        share = paper_change(result, what)
        return NOTHING if share is None else percent(share)

    return text


def _texts(results: Sequence[Result]) -> list[Column]:
    """What tells the cells of these results apart: always how they are trained, the rest where it differs."""
    columns: list[Column] = []
    if len({r.cell.dataset for r in results}) > 1:
        columns.append(("data", lambda r: r.cell.dataset))
    if len({r.cell.model for r in results}) > 1:
        columns.append(("network", lambda r: r.cell.model))
    if len({r.cell.frames for r in results}) > 1:
        columns.append(("labeled frames", lambda r: frames_text(r.cell.frames)))
    return [*columns, ("training", lambda r: r.cell.arm.title)]


def frames_text(frames: int | None) -> str:
    """A number of labeled frames."""
    return "all" if frames is None else f"{frames:,}"


def _by_cell(results: Sequence[Result], columns: Sequence[Column]) -> str:
    """One row a cell; columns that stay empty are left out."""
    texts = _texts(results)
    cells = {title: [make(r) for r in results] for title, make in [*texts, *columns]}
    filled = [title for title, values in cells.items() if any(values)]
    return table(
        [title.split("#")[0] for title in filled],
        [[cells[title][n] for title in filled] for n in range(len(results))],
        len(texts),
    )


def _errors(results: Sequence[Result], force: str, energy: str) -> str:
    """Errors of forces and energies, the paper's beside them, and what pretraining changed."""
    paper_title, more = "paper", [k for k in ("energy_rmse",) if energy == "energy_rmse_structure"]
    columns: list[Column] = [
        (UNITS[force], lambda r: error(r, force)),
        (f"{paper_title}#1", _paper_error("force")),
        (UNITS[energy], lambda r: error(r, energy)),
        (f"{paper_title}#2", _paper_error("energy")),
        ("change of force error", lambda r: change(r, baseline(results, r), force)),
        (f"{paper_title}#3", _paper_change("force")),
        ("change of energy error", lambda r: change(r, baseline(results, r), energy)),
        (f"{paper_title}#4", _paper_change("energy")),
        *((UNITS[key], lambda r, key=key: error(r, key)) for key in more),
        ("seeds", seeds),
    ]
    text = _by_cell(results, columns)
    extra = dict.fromkeys(
        name
        for r in results
        for o in r.finished.values()
        for name in o.metrics["errors"]
        if name not in ("train", "validation", "test")
    )
    for name in extra:
        rows = [r for r in results if any(name in o.metrics["errors"] for o in r.finished.values())]
        keys = [force, *more] if more else [force, energy]
        columns = [(UNITS[key], lambda r, key=key, name=name: error(r, key, name)) for key in keys]
        text += f"\n\nOn the frames of `{name}`, which nothing was chosen by:\n\n{_by_cell(rows, columns)}"
    return text


def _as_in_the_paper(results: Sequence[Result]) -> str:
    return _errors(results, *errors_of_the_paper(results))


def _extended(results: Sequence[Result]) -> str:
    """As figure 2: by how much the pretrained network's error is below that of each training from scratch."""
    rows, keys = [], errors_of_the_paper(results)
    for masked, base in masked_against(results):
        row = [base.cell.dataset, base.cell.model, base.cell.arm.title]
        for key, what in zip(keys, ("force", "energy"), strict=True):
            share = paper_change(masked, what) if base.cell.arm.kind == "scratch" else None
            row += [change(masked, base, key), "figure only" if share is None else percent(share)]
        rows.append(row)
    titles = ["data", "network", "masked against", UNITS[keys[0]], "paper", UNITS[keys[1]], "paper"]
    return f"{_as_in_the_paper(results)}\n\n{table(titles, rows, 3)}"


def _learning(results: Sequence[Result]) -> str:
    """For each network: rows of numbers of frames, columns of ways to train."""
    parts = []
    for group in groups(results):
        first = group[0].cell
        arms = list(dict.fromkeys(r.cell.arm for r in group))
        sizes = list(dict.fromkeys(r.cell.frames for r in group))
        at = {(r.cell.frames, r.cell.arm): r for r in group}
        parts.append(f"### {first.dataset}, {first.model}")
        titles = ["labeled frames", *(arm.title for arm in arms)]
        for key in ("force_rmse", "force_mae", "energy_rmse"):
            rows = [
                [frames_text(n), *(error(at[n, arm], key) for arm in arms), _fewest([at[n, a] for a in arms])]
                for n in sizes
            ]
            parts += [f"Test {UNITS[key]}:", table([*titles, "seeds"], rows)]
        del titles[1]
        for key in ("force_rmse", "force_mae"):
            rows = [
                [frames_text(n), *(change(at[n, a], baseline(group, at[n, a]), key) for a in arms[1:])] for n in sizes
            ]
            parts += [f"Change of the {UNITS[key]} by the pretraining, paired by seed:", table(titles, rows)]
        for key in ("force_rmse", "force_mae"):
            rows = [[frames_text(n), *(_needed(group, at[n, arm], key) for arm in arms[1:])] for n in sizes]
            what = UNITS[key].split(" (")[0]
            parts += [f"Labeled frames that training from scratch needs for the same {what}:", table(titles, rows)]
    return "\n\n".join(parts)


def _needed(group: Sequence[Result], result: Result, key: str) -> str:
    found = labels_needed(group, result, key)
    if found is None:
        return NOTHING
    sign, frames = found
    return f"{sign} {frames:,.0f}".strip()


def _fewest(results: Sequence[Result]) -> str:
    """How many seeds are behind the numbers of a row."""
    counts = [len(r.finished) for r in results]
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"


def _convergence(results: Sequence[Result]) -> str:
    """When the pretrained network has the lowest validation error that training from scratch ever had."""
    rows = []
    for group in groups(results):
        scratch = next((r for r in group if r.cell.arm.kind in ("scratch", "longer")), None)
        masked = next((r for r in group if r.cell.arm.kind == "mask"), None)
        if scratch is None or masked is None:
            continue
        pairs = [
            (scratch.finished[s].finetune, o.finetune) for s, o in masked.finished.items() if s in scratch.finished
        ]
        bests = [_best(theirs) for theirs, _ in pairs]
        reached = [
            step
            for (_, goal), (_, ours) in zip(bests, pairs, strict=True)
            if (step := _first_below(ours, goal)) is not None
        ]
        first = masked.steps("pretrain")
        rows.append([
            group[0].cell.dataset,
            group[0].cell.model,
            number(estimate([goal for _, goal in bests])),
            number(estimate([step for step, _ in bests]), 0),
            number(estimate(reached), 0),
            NOTHING if first is None else f"{first:,}",
            f"{len(reached)} of {len(pairs)}",
        ])  # fmt: skip
    titles = [
        *("data", "network", "lowest validation force RMSE from scratch (meV/Å)", "at step"),
        *("pretrained has it at step", "after steps of pretraining", "seeds that have it"),
    ]
    return table(titles, rows, 2)


def _best(log: Log) -> tuple[float, float]:
    """The step with the lowest validation error of the forces, and that error."""
    error, step = min(zip(log["val/force_rmse"], log["step"], strict=True))
    return step, error


def _first_below(log: Log, goal: float) -> float | None:
    """The first step whose validation error of the forces is not above a goal."""
    return next((s for s, e in zip(log["step"], log["val/force_rmse"], strict=True) if e <= goal), None)


def _cost(results: Sequence[Result]) -> str:
    """Times of both stages, as in table 1 of the supplement, and of dynamics."""
    rows = []
    for result, stage, title in stages(results):
        cell, spent, length = result.cell, result.seconds(stage), result.steps(stage)
        row = [cell.dataset, cell.model, title]
        row += [f"{length:,}", number(spent), f"{1e3 * spent.mean / length:.3g}"] if spent and length else [NOTHING] * 3
        for value in (
            seconds_per_epoch(result, stage),
            paper_seconds_per_epoch(result, stage),
            paper.HOURS.get((cell.dataset, cell.model), (None, None))[stage == "finetune"],
        ):
            row.append(NOTHING if value is None else f"{value:.3g}")
        rows.append(row)
    titles = ["data", "network", "stage", "steps", "seconds", "ms/step", "s/epoch", "paper, s/epoch", "paper, hours"]
    text = table(titles, rows, 3)
    steps = []
    for group in groups(results):
        timings = [t for r in group for t in r.timings]
        if timings:
            mean = number(estimate([t["ms_per_step"] for t in timings]))
            first, cell = timings[0], group[0].cell
            steps.append(
                [cell.dataset, cell.model, first["system"], f"{first['n_atoms']}", mean, f"{first['threads']}"]
            )
    if steps:
        head = ["data", "network", "system", "atoms", "ms/step of dynamics", "threads"]
        text += f"\n\nDynamics, velocity Verlet by ASE; mean over the trained potentials:\n\n{table(head, steps, 3)}"
    return text


def _decimals(value: float) -> int:
    """Decimals that leave about three digits."""
    return 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "table1": _as_in_the_paper,
    "table2": _as_in_the_paper,
    "extended-epochs": _extended,
    "denoising": _as_in_the_paper,
    "masking-ratio": _as_in_the_paper,
    "convergence": _convergence,
    "cost": _cost,
    "learning-curve": _learning,
    "objectives": _as_in_the_paper,
}
