"""What the paper compares, and its numbers for the cells of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

from mdpot.training.reproduce.comparisons import groups
from mdpot.training.reproduce.papers.masked import published
from mdpot.training.reproduce.results import Result, baseline
from mdpot.training.schema import STAGES


def errors_of_the_paper(results: Sequence[Result]) -> tuple[str, str]:
    """The keys of the force and energy errors that the paper has for the data: mean absolute ones for molecules."""
    if all(r.cell.dataset.startswith("rmd17-") for r in results):
        return "force_mae", "energy_mae_structure"
    return "force_rmse", "energy_rmse_structure"


def paper_row(result: Result) -> published.Row | None:
    """What the paper has for a cell, where it used all frames."""
    cell = result.cell
    if cell.frames is not None:
        return None
    ratio = cell.pretraining.ratio if cell.pretraining else None
    return published.find_row(cell.dataset, cell.model, cell.arm.kind, ratio)


def paper_change(result: Result, what: str) -> float | None:
    """By which share a pretraining lowered the paper's error; None where the paper lacks one of the two numbers.

    Args:
        result: a pretrained cell.
        what: "force" or "energy".
    """
    rows = paper_row(result), published.find_row(result.cell.dataset, result.cell.model, "scratch")
    after, before = (getattr(row, what) if row else None for row in rows)
    return after.mean / before.mean - 1 if after and before else None


def masked_against(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """The pairs of figure 2: the masked cell of each network and data set with each of those from scratch."""
    found = []
    for group in groups(results):
        masked = next((r for r in group if r.cell.arm.kind == "mask"), None)
        others = [r for r in group if r.cell.arm.kind != "mask"]
        found += [(masked, base) for base in others if masked is not None]
    return found


def stages(results: Sequence[Result]) -> list[tuple[Result, str, str]]:
    """The lines of the supplement's table 1: for each network and data set a cell, a stage of it, and its title."""
    found = []
    for group in groups(results):
        masked = next((r for r in group if r.cell.arm.kind == "mask"), None)
        for result, stage, title in (
            (masked, "pretrain", "pretraining"),
            (baseline(group, group[0]), "finetune", "finetuning from scratch"),
        ):
            found += [(result, stage, title)] if result is not None else []
    return found


def paper_seconds_per_epoch(result: Result, stage: str) -> float | None:
    """The same of the paper, from table 1 of its supplement; for "finetune" from scratch."""
    key = result.cell.dataset, result.cell.model
    n = STAGES.index(stage)
    hours, epochs = published.HOURS.get(key, (None, None))[n], published.EPOCHS.get(result.cell.dataset)
    return None if hours is None or epochs is None else 3600 * hours / epochs[n]
