"""The numbers of an experiment as JSON: what its page shows, and what that is computed from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mdpot.threads import n_cores
from mdpot.training.config import Stage
from mdpot.training.folder import versions
from mdpot.training.reproduce.comparisons import n_labeled, seconds_per_epoch
from mdpot.training.reproduce.experiments import Cell, Experiment, Selection
from mdpot.training.reproduce.results import Outcome, Result, facts_of_data
from mdpot.training.reproduce.worker import commit
from mdpot.training.schema import STAGES

DIGITS = 7
WIDTH = 120
KEPT = (
    *("force_rmse", "force_mae", "energy_rmse", "energy_rmse_structure", "energy_mae_structure"),
    *("property_mae", "property_rmse", "baseline_property_mae"),
)
"""The errors that are kept."""
PLACES = ("threads", "device", "commit", "torch")


def numbers(
    experiment: Experiment,
    selection: Selection,
    results: Sequence[Result],
    command: str,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What the page of an experiment shows, and the errors of each seed behind it.

    The recipes are those that `command` makes at `commit`. No absolute path is in it.

    Args:
        experiment: which.
        selection: what of it was asked for.
        results: its cells, finished or not.
        command: the command line that asked for it.
        earlier: the processes of earlier pages that gave some of the runs.
    """
    return {
        "experiment": experiment.name,
        "command": command,
        "commit": commit(),
        "versions": versions(),
        "cores": n_cores(),
        "settings": asdict(selection),
        "units": {
            **{"force": "meV/Å", "energy_rmse": "meV/atom", "energy_*_structure": "meV", "seconds": "s"},
            "property": "that of the data",
        },
        "data": facts_of_data(results),
        "processes": _rounded(processes(results, earlier)),
        "cells": _rounded([_cell(experiment, result) for result in results]),
    }


def processes(results: Sequence[Result], earlier: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """How many runs are behind some cells, those they begin from among them, what they took, and where; {} for none.

    Args:
        results: the cells.
        earlier: what this function found for earlier pages that gave some of the runs; all of it is added.
    """
    states = {o.run.folder: o.state for r in results for o in r.outcomes}
    states |= {o.run.parent.folder: o.before for r in results for o in r.outcomes if o.run.parent and o.before}
    facts = [state.facts for state in states.values() if "threads" in state.facts]
    found = [*(_process(f) for f in facts), *(each for each in earlier if each)]
    if not found:
        return {}
    return {
        **{key: sum(each[key] for each in found) for key in ("runs", "hours")},
        **{key: sorted({text for each in found for text in each[key]}) for key in PLACES},
    }


def settings_of(cell: Cell) -> dict[str, Any]:
    """What the JSON of a page tells of how the runs of a cell were made; with their folder, what a run is known by."""
    return {
        "data": cell.dataset,
        "model": cell.model,
        "labeled_frames": cell.frames,
        "max_frames": cell.recipe.data.max_frames,
        "cutoff": cell.recipe.model.cutoff,
        "hyperparameters": cell.recipe.model.hyperparameters,
        "pretraining": cell.pretraining and stage_text(cell.pretraining),
        "finetuning": stage_text(cell.recipe.finetune),
    }


def stage_text(stage: Stage) -> str:
    """The settings of a stage that its page tells."""
    length = f"{stage.max_steps:,} steps" if stage.max_steps else f"{stage.epochs} epochs"
    batch = f"{stage.batch_frames} frames" if stage.batch_frames else f"about {stage.batch_atoms} atoms"
    return f"{length} of {batch}, {stage.optimizer}, learning rate {stage.lr:g}"


def to_json(content: Any, indent: str = "") -> str:
    """JSON in which what fits on a line is on one."""
    text = json.dumps(content, ensure_ascii=False)
    if len(indent) + len(text) < WIDTH or not isinstance(content, dict | list | tuple):
        return text
    inner, (begin, end) = indent + " ", "{}" if isinstance(content, dict) else "[]"
    if isinstance(content, dict):
        parts = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {to_json(v, inner)}" for key, v in content.items()]
    else:
        parts = [inner + to_json(value, inner) for value in content]
    return "\n".join([begin, ",\n".join(parts), indent + end])


def _cell(experiment: Experiment, result: Result) -> dict[str, Any]:
    cell, known = result.cell, experiment.paper.published(result)
    times = {stage: seconds_per_epoch(result, stage) for stage in STAGES}
    return {
        **settings_of(cell),
        "training": cell.arm.title,
        "kind": cell.arm.kind,
        **({"variant": cell.variant.title} if cell.variant.title else {}),
        "frames_trained_on": n_labeled(result),
        "paper": known and asdict(known),
        "test": {key: asdict(found) for key in KEPT if (found := result.mean(key))},
        "seconds_per_epoch": {stage: seconds for stage, seconds in times.items() if seconds},
        "dynamics": list(result.timings),
        "runs": [_run(outcome) for outcome in result.outcomes],
    }


def _process(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What one run took, and where."""
    texts = {**facts, "device": facts["device"] or "default", "torch": facts["versions"]["torch"]}
    return {"runs": 1, "hours": facts["seconds"] / 3600, **{key: [str(texts[key])] for key in PLACES}}


def _run(outcome: Outcome) -> dict[str, Any]:
    metrics, errors = outcome.metrics, outcome.metrics.get("errors", {})
    return {
        "seed": outcome.run.seed,
        "folder": outcome.run.folder,
        "status": outcome.status,
        "message": outcome.state.message,
        "pretrain_seconds": outcome.pretrain["seconds"][-1] if outcome.pretrain.get("seconds") else None,
        **{key: metrics.get(key) for key in ("finetune_seconds", "finetune_steps", "best_step")},
        "errors": {
            name: {key: table[key] for key in KEPT if key in table} for name, table in errors.items() if name != "train"
        },
    }


def _rounded(value: Any) -> Any:
    """Numbers to seven digits, and None for what JSON has no number for."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value
