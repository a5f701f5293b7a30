"""The tables of the experiments, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdpot.training.metrics import METRICS
from mdpot.training.reproduce.comparisons import groups, labels_needed, seconds_per_epoch
from mdpot.training.reproduce.papers.masked import published
from mdpot.training.reproduce.papers.masked.comparisons import (
    errors_of_the_paper,
    masked_against,
    paper_change,
    paper_row,
    paper_seconds_per_epoch,
    stages,
)
from mdpot.training.reproduce.results import Log, Result, baseline, estimate
from mdpot.training.reproduce.tables import (
    NOTHING,
    Column,
    by_cell,
    change,
    dynamics,
    error,
    fewest_seeds,
    frames_text,
    number,
    on_other_frames,
    percent,
    seeds,
    table,
)


def as_in_the_paper(results: Sequence[Result]) -> str:
    """One row a cell, by the errors that the paper has."""
    return _errors(results, *errors_of_the_paper(results))


def extended(results: Sequence[Result]) -> str:
    """As figure 2: by how much the pretrained network's error is below that of each training from scratch."""
    rows, keys = [], errors_of_the_paper(results)
    for masked, base in masked_against(results):
        row = [base.cell.dataset, base.cell.model, base.cell.arm.title]
        for key, what in zip(keys, ("force", "energy"), strict=True):
            share = paper_change(masked, what) if base.cell.arm.kind == "scratch" else None
            row += [change(masked, base, key), "figure only" if share is None else percent(share)]
        rows.append(row)
    titles = ["data", "network", "masked against", METRICS[keys[0]].heading, "paper", METRICS[keys[1]].heading, "paper"]
    return f"{as_in_the_paper(results)}\n\n{table(titles, rows, 3)}"


MAE, RMSE = "val/force_mae", "val/force_rmse"
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)


def regime(results: Sequence[Result]) -> str:
    """One row a cell; the mean absolute errors, which a few frames far off decide less; and when which is ahead."""
    columns: list[Column] = []
    for key in ("force_mae", "energy_mae"):
        columns.append((METRICS[key].heading, lambda r, key=key: error(r, key)))
        columns.append((f"change#{key}", lambda r, key=key: change(r, baseline(results, r), key)))
    parts = [as_in_the_paper(results), by_cell(results, [*columns, ("seeds", seeds)])]
    return "\n\n".join([*parts, *_on_the_way(results), convergence(results)])


def _on_the_way(results: Sequence[Result]) -> list[str]:
    """The validation force MAE at shares of the finetuning from scratch, of all seeds that came so far; nothing where
    what was trained from scratch is from an earlier page, which has no curves."""
    base = baseline(results, results[0])
    logs = [] if base is None else [o.finetune for o in base.finished.values() if MAE in o.finetune]
    if not logs:
        return []
    every = logs[0]["step"]
    steps = [every[round(share * len(every)) - 1] for share in SHARES if round(share * len(every)) > 0]
    rows = []
    for result in results:
        found = [dict(zip(o.finetune["step"], o.finetune[MAE], strict=True))
                 for o in result.outcomes if len(o.finetune.get(MAE, ()))]  # fmt: skip
        at = [[log[step] for log in found if step in log] for step in steps]
        counts = "/".join(dict.fromkeys(str(len(values)) for values in at))
        rows.append([result.cell.arm.title, *(number(estimate(values)) for values in at), counts])
    head = ["training", *(f"step {step:,.0f}" for step in steps), "seeds"]
    return ["Validation force MAE (meV/Å) on the way, at steps of the finetuning:", table(head, rows, 1)]


def learning(results: Sequence[Result]) -> str:
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
                [frames_text(n), *(error(at[n, arm], key) for arm in arms), fewest_seeds([at[n, a] for a in arms])]
                for n in sizes
            ]
            parts += [f"Test {METRICS[key].heading}:", table([*titles, "seeds"], rows)]
        del titles[1]
        for key in ("force_rmse", "force_mae"):
            rows = [
                [frames_text(n), *(change(at[n, a], baseline(group, at[n, a]), key) for a in arms[1:])] for n in sizes
            ]
            parts += [f"Change of the {METRICS[key].heading} by the pretraining, paired by seed:", table(titles, rows)]
        for key in ("force_rmse", "force_mae"):
            rows = [[frames_text(n), *(_needed(group, at[n, arm], key) for arm in arms[1:])] for n in sizes]
            what = METRICS[key].title
            parts += [f"Labeled frames that training from scratch needs for the same {what}:", table(titles, rows)]
    return "\n\n".join(parts)


def convergence(results: Sequence[Result]) -> str:
    """When the pretrained network has the lowest validation error that training from scratch ever had."""
    rows = []
    for group in groups(results):
        scratch = next((r for r in group if not r.cell.arm.pretrain), None)
        masked = next((r for r in group if r.cell.arm.kind == "mask"), None)
        if scratch is None or masked is None:
            continue
        both = [(scratch.finished[s].finetune, o.finetune) for s, o in masked.finished.items() if s in scratch.finished]
        pairs = [logs for logs in both if all(RMSE in log for log in logs)]  # runs of earlier pages have no curves
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


def cost(results: Sequence[Result]) -> str:
    """Times of both stages, as in table 1 of the supplement, and of dynamics."""
    rows = []
    for result, stage, title in stages(results):
        cell, spent, length = result.cell, result.seconds(stage), result.steps(stage)
        row = [cell.dataset, cell.model, title]
        row += [f"{length:,}", number(spent), f"{1e3 * spent.mean / length:.3g}"] if spent and length else [NOTHING] * 3
        for value in (
            seconds_per_epoch(result, stage),
            paper_seconds_per_epoch(result, stage),
            published.HOURS.get((cell.dataset, cell.model), (None, None))[stage == "finetune"],
        ):
            row.append(NOTHING if value is None else f"{value:.3g}")
        rows.append(row)
    titles = ["data", "network", "stage", "steps", "seconds", "ms/step", "s/epoch", "paper, s/epoch", "paper, hours"]
    return table(titles, rows, 3) + dynamics(results)


def _errors(results: Sequence[Result], force: str, energy: str) -> str:
    """Errors of forces and energies, the paper's beside them, and what pretraining changed."""
    more = ["energy_rmse"] if energy == "energy_rmse_structure" else []
    columns: list[Column] = [
        (METRICS[force].heading, lambda r: error(r, force)),
        ("paper#1", _paper_error("force")),
        (METRICS[energy].heading, lambda r: error(r, energy)),
        ("paper#2", _paper_error("energy")),
        ("change of force error", lambda r: change(r, baseline(results, r), force)),
        ("paper#3", _paper_change("force")),
        ("change of energy error", lambda r: change(r, baseline(results, r), energy)),
        ("paper#4", _paper_change("energy")),
        *((METRICS[key].heading, lambda r, key=key: error(r, key)) for key in more),
        ("seeds", seeds),
    ]
    return by_cell(results, columns) + on_other_frames(results, [force, *more] if more else [force, energy])


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
        if paper_row(result) is None or not result.cell.arm.pretrain:
            return ""
        share = paper_change(result, what)
        return NOTHING if share is None else percent(share)

    return text


def _needed(group: Sequence[Result], result: Result, key: str) -> str:
    found = labels_needed(group, result, key)
    if found is None:
        return NOTHING
    sign, frames = found
    return f"{sign} {frames:,.0f}".strip()


def _best(log: Log) -> tuple[float, float]:
    """The step with the lowest validation error of the forces, and that error."""
    error, step = min(zip(log[RMSE], log["step"], strict=True))
    return step, error


def _first_below(log: Log, goal: float) -> float | None:
    """The first step whose validation error of the forces is not above a goal."""
    return next((s for s, e in zip(log["step"], log[RMSE], strict=True) if e <= goal), None)
