"""The page of an experiment, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdpot.training.reproduce.comparisons import groups
from mdpot.training.reproduce.experiments import Experiment, Selection
from mdpot.training.reproduce.numbers import processes, stage_text
from mdpot.training.reproduce.results import Result, facts_of_data


def page(
    experiment: Experiment,
    selection: Selection,
    results: Sequence[Result],
    command: str,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page of an experiment, in Markdown.

    Args:
        experiment: which.
        selection: what of it was asked for.
        results: its cells, finished or not.
        command: the command line that asked for it.
        earlier: the processes of earlier pages that gave some of the runs.
    """
    asked = sum(len(r.outcomes) for r in results)
    done = sum(len(r.finished) + r.count("diverged") for r in results)
    data = facts_of_data(results)
    n_seeds = max(len(r.outcomes) for r in results)
    notes = [
        ("Times" if experiment.dynamics else "Test errors on frames that were not trained on") + f"; {_spread(n_seeds)}"
        + ("" if done == asked else f". **Unfinished: {done} of {asked} runs**; dashes stand for those to come")
        + ".",
        *(f"`{key}`: {facts['n_frames']:,} frames{_drawn(results, key)}, labeled by {facts['labels']}."
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

{chr(10).join(f"- {line}" for line in _setup(experiment, selection, results, earlier))}

```bash
{command}
```
"""


def _drawn(results: Sequence[Result], dataset: str) -> str:
    """How many of the frames of a data set are used, where it is not all."""
    found = {r.cell.recipe.data.max_frames for r in results if r.cell.dataset == dataset} - {None}
    return "".join(f", of which {n:,} are drawn for each seed" for n in found)


def _spread(n_seeds: int) -> str:
    if n_seeds == 1:
        return "one seed, hence no standard error"
    return (
        f"mean ± standard error of {n_seeds} seeds, on which weights, batches and, without an official one, the split "
        "depend"
    )


def _first_stage(result: Result) -> str:
    """How long a cell was pretrained, and on what where that is not what it is finetuned on."""
    parent = result.cell.runs[0].parent
    assert parent is not None
    on = "" if parent.recipe.name == result.cell.dataset else f" on `{parent.recipe.name}`"
    return f"pretraining{on} {stage_text(parent.recipe.pretrain)}"


def _setup(
    experiment: Experiment, selection: Selection, results: Sequence[Result], earlier: Sequence[Mapping[str, Any]]
) -> list[str]:
    """How the runs were made, a line for each data set and way to optimize."""
    changes = f", with `{' '.join(selection.overrides)}`" if selection.overrides else ""
    lines = [f"Budget `{selection.budget}`, preset `{experiment.paper.budget(selection.budget).preset}`{changes}."]
    networks: dict[tuple[str, str], list[str]] = {}
    for group in groups(results):
        model = group[0].cell.recipe.model
        sizes = [f"cutoff {model.cutoff:g} Å", *(f"{k} {v}" for k, v in model.hyperparameters.items())]
        before = dict.fromkeys(_first_stage(r) for r in group if r.cell.pretraining)
        after = dict.fromkeys(stage_text(r.cell.recipe.finetune) for r in group)
        stages = [*before, *(f"finetuning {text}" for text in after)]
        key = group[0].cell.dataset, "; ".join(stages)
        networks.setdefault(key, []).append(f"`{model.name}` ({', '.join(sizes)})")
    lines += [f"`{data}`, {', '.join(names)}: {stages}." for (data, stages), names in networks.items()]
    if done := processes(results, earlier):
        told = {key: ", ".join(done[key]) for key in ("threads", "device", "torch", "commit")}
        lines.append(
            f"{done['runs']} runs, {done['hours']:.1f} h in all; threads of each: {told['threads']}; device: "
            f"{told['device']}; torch {told['torch']}; commit {told['commit']}."
        )
    return lines
