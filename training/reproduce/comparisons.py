"""What tables and figures say of results: which belong together, by how much they differ, how long they took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdpot.training.reproduce.results import Result, baseline, paired


def groups(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each network on each data set."""
    keys = dict.fromkeys((r.cell.dataset, r.cell.model) for r in results)
    return [[r for r in results if (r.cell.dataset, r.cell.model) == key] for key in keys]


def relative_change(result: Result, base: Result, key: str) -> float | None:
    """By which share of its mean an error differs from that of another cell, over the seeds that both have."""
    difference, before = paired(result, base, key), base.mean(key, seeds=result.values(key))
    return None if difference is None or before is None else difference.mean / before.mean


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


def seconds_per_epoch(result: Result, stage: str) -> float | None:
    """How long a stage takes for all training frames once; None where that is not known yet.

    Args:
        result: a cell.
        stage: "pretrain" or "finetune".
    """
    spent, length, steps = result.seconds(stage), result.steps(stage), result.steps_per_epoch(stage)
    return steps * spent.mean / length if spent and length and steps else None
