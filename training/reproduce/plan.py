"""From what is asked of an experiment to its runs: datasets × networks × numbers of labels × ways to train × seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mdpot.errors import MdpotError, unknown
from mdpot.training.config import PretrainConfig, Recipe, load_recipe
from mdpot.training.reproduce.experiments import LONGER, SCRATCH, Arm, Cell, Experiment, Paper, Selection, Variant
from mdpot.training.reproduce.grid import Run
from mdpot.training.reproduce.papers import EXPERIMENTS

FINETUNING = ("finetune.", "property.")
"""Beginnings of the keys that no pretraining depends on."""


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        MdpotError: there is none.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def plan(name: str, selection: Selection) -> list[Cell]:
    """The cells of an experiment.

    Args:
        name: key of `EXPERIMENTS`.
        selection: what of it.

    Raises:
        MdpotError: an unknown experiment, budget, recipe, model or key; what the experiment does not take.
    """
    experiment = find_experiment(name)
    if selection.frames and experiment.frames == (None,):
        takers = " and ".join(each.name for each in EXPERIMENTS.values() if each.frames != (None,))
        raise MdpotError(f"--frames is for {takers}; {name!r} takes all training frames.")
    full = replace(
        selection,
        seeds=selection.seeds or experiment.seeds,
        equal=selection.equal or experiment.equal,
        datasets=selection.datasets or experiment.datasets,
        models=selection.models or experiment.models,
        frames=selection.frames or experiment.frames,
    )
    return [
        _cell(experiment, full, dataset, model, arm, frames, variant)
        for dataset in full.datasets
        for model in full.models
        for variant in experiment.variants
        for frames in full.frames
        for arm in _arms(experiment, full, dataset)
    ]


def _arms(experiment: Experiment, selection: Selection, dataset: str) -> list[Arm]:
    arms = list(experiment.arms(dataset))
    pretrainings = [arm.title for arm in arms if arm.pretrain]
    if strange := [title for title in selection.arms if title not in pretrainings]:
        raise unknown("way to train", strange[0], pretrainings)
    if selection.arms:
        arms = [arm for arm in arms if arm.title in selection.arms or not arm.pretrain]
    if selection.equal == "total":
        arms = [LONGER if arm == SCRATCH else arm for arm in arms]
    return list(dict.fromkeys(arms))


def _cell(
    experiment: Experiment,
    selection: Selection,
    dataset: str,
    model: str,
    arm: Arm,
    frames: int | None,
    variant: Variant,
) -> Cell:
    """The runs of a way to train; those with the same pretraining share it, by its folder."""
    paper, seeds = experiment.paper, range(selection.seeds or experiment.seeds)
    budget, source = paper.budget(selection.budget), paper.pretrained_on(dataset)
    base = [*budget.overrides(dataset, model), *variant.keys, *_asked(selection, arm)]
    # Where their number is the question, "all" is all, whatever the recipe has.
    labeled = [] if experiment.frames == (None,) else [f"data.max_train_frames={frames or 'none'}"]
    usual = load_recipe(dataset, budget.preset, base, model)
    recipe = load_recipe(dataset, budget.preset, [*base, *labeled], model) if labeled else usual
    suffix = f"-{variant.name}" if variant.name else ""
    suffix += "" if recipe.data == usual.data else f"-{frames or 'all'}frames"
    home = f"{dataset}/{model}"
    if not arm.pretrain:
        name = "scratch" + suffix
        if arm == LONGER:
            recipe, added = _lengthened(recipe, same_frames=not labeled and source == dataset)
            name += added
        # What the pretraining of others is does not matter to it.
        recipe = recipe.model_copy(update={"pretrain": PretrainConfig()})
        runs = [Run(f"{home}/{name}/seed{seed}", "train", recipe, seed) for seed in seeds]
    else:
        title, parents = _pretrainings(paper, selection, source, model, arm, seeds)
        name = title + (f"-on-{source}" if source != dataset else "") + suffix
        runs = [Run(f"{home}/{name}/seed{seed}", "finetune", recipe, seed, parents[seed]) for seed in seeds]
    timings = [Run(f"{home}/{name}/dynamics-seed{run.seed}", "dynamics", recipe, run.seed, run) for run in runs]
    return Cell(dataset, model, arm, frames, tuple(runs), tuple(timings) if experiment.dynamics else (), variant)


def _asked(selection: Selection, arm: Arm) -> list[str]:
    """The "key=value" that go over a budget."""
    return [*selection.overrides, *(f"pretrain.{text}" for text in arm.pretrain)]


def _pretrainings(
    paper: Paper, selection: Selection, source: str, model: str, arm: Arm, seeds: Sequence[int]
) -> tuple[str, dict[int, Run]]:
    """The name of a pretraining, and the run that each seed begins from.

    The pretraining sees all training structures, and does not depend on the finetuning.
    """
    budget = paper.budget(selection.budget)
    keys = [*budget.overrides(source, model), *_asked(selection, arm), *(f"data.{text}" for text in arm.data)]
    recipe = load_recipe(source, budget.preset, [text for text in keys if not text.startswith(FINETUNING)], model)
    recipe = _scaled(recipe, arm.length)
    name = paper.pretraining_name(recipe.pretrain)
    folder = f"{source}/{model}/pretrain-{name}"
    own = seeds[:1] if paper.one_pretraining else seeds
    made = {seed: Run(f"{folder}/seed{seed}", "pretrain", recipe, seed) for seed in own}
    return name, {seed: made.get(seed, made[own[0]]) for seed in seeds}


def _scaled(recipe: Recipe, share: float) -> Recipe:
    """A recipe whose pretraining is a share of its length, or longer."""
    stage = recipe.pretrain
    key = "max_steps" if stage.max_steps else "epochs"
    length = max(round(share * getattr(stage, key)), 1)
    return recipe.model_copy(update={"pretrain": stage.model_copy(update={key: length})})


def _lengthened(recipe: Recipe, same_frames: bool) -> tuple[Recipe, str]:
    """A recipe whose finetuning is as long as its two stages were, and what was added, for a name.

    Args:
        recipe: with the lengths of both.
        same_frames: whether both see the same frames, so that epochs can be added.
    """
    first, second = recipe.pretrain, recipe.finetune
    if first.max_steps and second.max_steps:
        longer, added = {"max_steps": first.max_steps + second.max_steps}, f"+{first.max_steps}steps"
    elif first.epochs and second.epochs and same_frames and recipe.data.max_train_frames is None:
        longer, added = {"epochs": first.epochs + second.epochs}, f"+{first.epochs}epochs"
    else:
        raise MdpotError(
            f"recipe {recipe.name!r}, preset {recipe.preset!r}: a training from scratch as long as pretraining and "
            "finetuning together needs both lengths in steps, or both in epochs over the same frames. Give them by "
            "--set pretrain.max_steps=... --set finetune.max_steps=..., or take --equal finetune."
        )
    return recipe.model_copy(update={"finetune": second.model_copy(update=longer)}), added
