"""What an experiment leaves: a page in Markdown, and every number as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mdpot.training.config import Stage, recipe_to_dict
from mdpot.training.folder import versions
from mdpot.training.reproduce.comparisons import groups
from mdpot.training.reproduce.experiments import Experiment, Settings
from mdpot.training.reproduce.results import Result, facts_of_data
from mdpot.training.reproduce.worker import commit


def page(experiment: Experiment, settings: Settings, results: Sequence[Result], out: Path, command: str) -> str:
    """The page of an experiment, in Markdown.

    Args:
        experiment: which.
        settings: what of it was asked for.
        results: its cells, finished or not.
        out: folder of the runs.
        command: the command line that asked for it.
    """
    asked = sum(len(r.outcomes) for r in results)
    done = sum(len(r.finished) + r.count("diverged") for r in results)
    data = facts_of_data(results, out)
    n_seeds = max(len(r.outcomes) for r in results)
    notes = [
        ("Times" if experiment.dynamics else "Test errors on frames that were not trained on") + f"; {_spread(n_seeds)}"
        + ("" if done == asked else f". **Unfinished: {done} of {asked} runs**; dashes stand for those to come")
        + ".",
        *(f"`{key}`: {facts['n_frames']:,} frames, labeled by {facts['labels']}."
          + (" **The runs differ in their data.**" if len(facts["fingerprints"]) > 1 else "")
          for key, facts in data.items()),
        *((f"Paper: {experiment.source}. Budget, data and networks differ from the paper's; compare directions rather "
           "than digits.",) if experiment.source else ()),
        *experiment.notes,
        *dict.fromkeys(r.cell.arm.note for r in results if r.cell.arm.note),
    ]  # fmt: skip
    if any(r.count("diverged") for r in results):
        notes.append('"diverged": the loss or the errors were not finite; means are over the other seeds.')
    bullets = "\n".join(f"- {note}" for note in notes)
    return f"""# {experiment.title}

{experiment.question}

{bullets}

{experiment.table(results)}

![{experiment.title}]({experiment.name}.png)

## How it was run

{chr(10).join(f"- {line}" for line in _setup(experiment, settings, results))}

```bash
{command}
```
"""


def numbers(
    experiment: Experiment, settings: Settings, results: Sequence[Result], out: Path, command: str
) -> dict[str, Any]:
    """Every number of an experiment, ready for JSON; arguments as `page`. No absolute path is in it."""
    return {
        "experiment": experiment.name,
        "command": command,
        "commit": commit(),
        "versions": versions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "settings": asdict(settings),
        "units": {"force": "meV/Å", "energy_rmse": "meV/atom", "energy_*_structure": "meV", "seconds": "s"},
        "data": facts_of_data(results, out),
        "cells": [_cell(experiment, result) for result in results],
    }


def _cell(experiment: Experiment, result: Result) -> dict[str, Any]:
    cell = result.cell
    known = experiment.paper.published(result)
    keys = dict.fromkeys(key for o in result.finished.values() for key in o.errors())
    means = {key: found for key in keys if (found := result.mean(key)) is not None}
    parent = cell.runs[0].parent
    return {
        "data": cell.dataset,
        "model": cell.model,
        "training": cell.arm.title,
        "kind": cell.arm.kind,
        "labeled_frames": cell.frames,
        "recipe": recipe_to_dict(cell.recipe),
        "pretrain_recipe": parent and recipe_to_dict(parent.recipe),
        "paper": known and asdict(known),
        "test": {key: asdict(found) for key, found in means.items()},
        "dynamics": list(result.timings),
        "runs": [
            {
                "seed": o.run.seed,
                "folder": o.run.folder,
                **o.state.facts,
                "status": o.status,
                "pretrained_by": o.run.parent and o.run.parent.folder,
                "pretrain_process": o.before and dict(o.before.facts),
                "pretrain_seconds": o.pretrain["seconds"][-1] if o.pretrain.get("seconds") else None,
                "finetune_seconds": o.metrics.get("finetune_seconds"),
                "finetune_steps": o.metrics.get("finetune_steps"),
                "best_step": o.metrics.get("best_step"),
                "errors": _finite(o.metrics.get("errors", {})),
            }
            for o in result.outcomes
        ],
    }


def _finite(tables: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """The tables with None for what JSON has no number for."""
    return {name: {k: v if math.isfinite(v) else None for k, v in t.items()} for name, t in tables.items()}


def _spread(n_seeds: int) -> str:
    if n_seeds == 1:
        return "one seed, hence no standard error"
    return (
        f"mean ± standard error of {n_seeds} seeds, on which weights, batches and, without an official one, the split "
        "depend"
    )


def _setup(experiment: Experiment, settings: Settings, results: Sequence[Result]) -> list[str]:
    """How the runs were made, a line for each data set and way to optimize."""
    changes = f", with `{' '.join(settings.overrides)}`" if settings.overrides else ""
    lines = [f"Budget `{settings.budget}`, preset `{experiment.paper.budget(settings.budget).preset}`{changes}."]
    networks: dict[tuple[str, str], list[str]] = {}
    for group in groups(results):
        model = group[0].cell.recipe.model
        sizes = [f"cutoff {model.cutoff:g} Å", *(f"{k} {v}" for k, v in model.hyperparameters.items())]
        before = dict.fromkeys(_stage(p.recipe.pretrain) for r in group if (p := r.cell.runs[0].parent))
        after = dict.fromkeys(_stage(r.cell.recipe.finetune) for r in group)
        stages = [f"pretraining {text}" for text in before] + [f"finetuning {text}" for text in after]
        key = group[0].cell.dataset, "; ".join(stages)
        networks.setdefault(key, []).append(f"`{model.name}` ({', '.join(sizes)})")
    lines += [f"`{data}`, {', '.join(names)}: {stages}." for (data, stages), names in networks.items()]
    states = {o.run.folder: o.state for r in results for o in r.outcomes}
    states |= {o.run.parent.folder: o.before for r in results for o in r.outcomes if o.run.parent and o.before}
    facts = [state.facts for state in states.values() if "threads" in state.facts]
    if facts:
        hours = sum(f["seconds"] for f in facts) / 3600
        told = {key: _list({str(f[key] or "default") for f in facts}) for key in ("threads", "device", "commit")}
        torch = _list({f["versions"]["torch"] for f in facts})
        lines.append(
            f"{len(facts)} runs, {hours:.1f} h in all; threads of each: {told['threads']}; device: {told['device']}; "
            f"torch {torch}; commit {told['commit']}."
        )
    return lines


def _stage(stage: Stage) -> str:
    length = f"{stage.max_steps:,} steps" if stage.max_steps else f"{stage.epochs} epochs"
    batch = f"{stage.batch_frames} frames" if stage.batch_frames else f"about {stage.batch_atoms} atoms"
    return f"{length} of {batch}, {stage.optimizer}, learning rate {stage.lr:g}"


def _list(items: set[str]) -> str:
    return ", ".join(sorted(items))
