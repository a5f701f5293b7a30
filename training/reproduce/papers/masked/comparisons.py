"""What the tables and figures of the experiments show: which cells are compared, by how much they differ, times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdpot.training.reproduce.papers.masked import published as paper
from mdpot.training.reproduce.results import Result, baseline, paired

UNITS = {
    "force_rmse": "force RMSE (meV/Å)",
    "force_mae": "force MAE (meV/Å)",
    "energy_rmse": "energy RMSE (meV/atom)",
    "energy_rmse_structure": "energy RMSE (meV/structure)",
    "energy_mae_structure": "energy MAE (meV/structure)",
}


def groups(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each network on each data set."""
    keys = dict.fromkeys((r.cell.dataset, r.cell.model) for r in results)
    return [[r for r in results if (r.cell.dataset, r.cell.model) == key] for key in keys]


def errors_of_the_paper(results: Sequence[Result]) -> tuple[str, str]:
    """The keys of the force and energy errors that the paper has for the data: mean absolute ones for molecules."""
    if all(r.cell.dataset.startswith("rmd17-") for r in results):
        return "force_mae", "energy_mae_structure"
    return "force_rmse", "energy_rmse_structure"


def relative_change(result: Result, base: Result, key: str) -> float | None:
    """By which share of its mean an error differs from that of another cell, over the seeds that both have."""
    difference, before = paired(result, base, key), base.mean(key, seeds=result.values(key))
    return None if difference is None or before is None else difference.mean / before.mean


def paper_row(result: Result) -> paper.Row | None:
    """What the paper has for a cell, where it used all frames."""
    cell = result.cell
    if cell.frames is not None:
        return None
    stage = cell.runs[0].parent.recipe.pretrain if cell.runs[0].parent else None
    return paper.find_row(cell.dataset, cell.model, cell.arm.kind, stage.ratio if stage else None)


def paper_change(result: Result, what: str) -> float | None:
    """By which share a pretraining lowered the paper's error; None where the paper lacks one of the two numbers.

    Args:
        result: a pretrained cell.
        what: "force" or "energy".
    """
    rows = paper_row(result), paper.find_row(result.cell.dataset, result.cell.model, "scratch")
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


def labels_needed(group: Sequence[Result], result: Result, key: str) -> tuple[str, float] | None:
    """How many labeled frames training from scratch needs for the mean error of a pretrained cell.

    Between the numbers of frames that were run, the logarithm of the error is taken as linear in that of the frames;
    where more frames happened to give a larger error, the smaller one counts.

    Args:
        group: the cells of one network on one data set.
        result: one of them.
        key: of the error.

    Returns:
        The number, with ">" or "<" before it where it is beyond those that were run; None where these are not known.
    """
    found = result.mean(key)
    scratch = [(n_labeled(r), mean.mean) for r in group if r is baseline(group, r) and (mean := r.mean(key))]
    if found is None or not scratch:
        return None
    frames, errors = np.array(sorted(scratch)).T
    errors = np.minimum.accumulate(errors)
    sign = ">" if found.mean < errors[-1] else "<" if found.mean > errors[0] else ""
    return sign, float(np.exp(np.interp(-np.log(found.mean), -np.log(errors), np.log(frames))))


def n_labeled(result: Result) -> float:
    """How many labeled frames a cell was trained on; NaN where "all" are asked and none is finished."""
    if result.cell.frames is not None:
        return result.cell.frames
    return next((o.errors("train")["n_frames"] for o in result.finished.values()), float("nan"))


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


def seconds_per_epoch(result: Result, stage: str) -> float | None:
    """How long a stage takes for all training frames once; None where that is not known yet.

    Args:
        result: a cell.
        stage: "pretrain" or "finetune".
    """
    spent, length, steps = result.seconds(stage), result.steps(stage), result.steps_per_epoch(stage)
    return steps * spent.mean / length if spent and length and steps else None


def paper_seconds_per_epoch(result: Result, stage: str) -> float | None:
    """The same of the paper, from table 1 of its supplement; for "finetune" from scratch."""
    key = result.cell.dataset, result.cell.model
    n = ("pretrain", "finetune").index(stage)
    hours, epochs = paper.HOURS.get(key, (None, None))[n], paper.EPOCHS.get(result.cell.dataset)
    return None if hours is None or epochs is None else 3600 * hours / epochs[n]
