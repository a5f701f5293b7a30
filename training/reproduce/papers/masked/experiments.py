"""What each experiment trains: datasets × networks × ways to train × seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mdpot.errors import MdpotError, unknown
from mdpot.training.config import PretrainConfig, Recipe, load_recipe
from mdpot.training.reproduce.grid import Run
from mdpot.training.reproduce.papers.masked.budgets import find_budget

WATERS = ("water-rpbe", "water-tip3p")
# The molecules of the paper's table 2, in its order.
MOLECULES = tuple(
    f"rmd17-{name}"
    for name in ("uracil", "benzene", "naphthalene", "aspirin", "malonaldehyde", "ethanol", "toluene", "salicylic")
)
PAPER_MODELS = ("egnn", "gns", "forcenet")
Equal = Literal["finetune", "total"]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        kind: "scratch", "longer" (scratch, with the steps of a pretraining added), "mask", "denoise", "forcefield".
        title: as tables and figures name it.
        pretrain: keys of the pretraining, without the "pretrain."; () for none.
    """

    kind: str
    title: str
    pretrain: tuple[str, ...] = ()


SCRATCH = Arm("scratch", "from scratch")
LONGER = Arm("longer", "from scratch, longer")
MASK = Arm("mask", "masked", ("objective=mask",))
DENOISE = Arm("denoise", "denoised", ("objective=denoise", "sigma=0.5"))
FORCEFIELD = Arm("forcefield", "force field", ("objective=forcefield",))

RATIOS = {"water-tip3p": (0.25, 0.5, 0.75, 0.9)}


def _ratios(dataset: str) -> list[Arm]:
    ratios = RATIOS.get(dataset, (0.25, 0.5, 0.75))
    return [SCRATCH, *(Arm("mask", f"masked, ratio {r:g}", ("objective=mask", f"ratio={r:g}")) for r in ratios)]


def _objectives(dataset: str) -> list[Arm]:
    vectors = ("derivative", "direct")
    return [
        SCRATCH,
        *(
            Arm("mask", f"masked, ratio {r:g}, {v}", ("objective=mask", f"ratio={r:g}", f"vector={v}"))
            for v in vectors
            for r in (0.25, 0.5, 0.75)
        ),
        *(
            Arm("denoise", f"denoised, σ {s:g} Å, {v}", ("objective=denoise", f"sigma={s:g}", f"vector={v}"))
            for v in vectors
            for s in (0.05, 0.2, 0.5)
        ),
        FORCEFIELD,
    ]


@dataclass(frozen=True)
class Experiment:
    """A question, and the runs that answer it.

    Attributes:
        title: of its page.
        question: what is asked, for its page.
        source: where the paper answers it; "" where it does not.
        arms: the ways to train for a dataset.
        datasets, models: by default.
        seeds: how many, by default.
        frames: numbers of labeled training frames, None for all.
        equal: what scratch shares with the others by default: the finetuning alone, as in the paper, or the length of
            pretraining and finetuning together.
        dynamics: whether dynamics are timed too.
    """

    title: str
    question: str
    source: str
    arms: Callable[[str], Sequence[Arm]]
    datasets: tuple[str, ...] = WATERS
    models: tuple[str, ...] = (*PAPER_MODELS, "tide")
    seeds: int = 4
    frames: tuple[int | None, ...] = (None,)
    equal: Equal = "finetune"
    dynamics: bool = False


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        "Masked pretraining on water",
        "How much does masked pretraining lower the test errors on water, after the same finetuning?",
        "table 1",
        lambda dataset: (SCRATCH, MASK),
    ),
    "table2": Experiment(
        "Masked pretraining on organic molecules",
        "How much does masked pretraining lower the test errors on the revised MD17?",
        "table 2",
        lambda dataset: (SCRATCH, MASK),
        datasets=MOLECULES,
        models=("egnn",),
        seeds=2,
    ),
    "extended-epochs": Experiment(
        "Pretraining against a longer training",
        "Does training from scratch for as long as pretraining and finetuning together close the gap?",
        "figure 2; numbers only for what is in table 1",
        lambda dataset: (SCRATCH, LONGER, MASK),
        models=("egnn", "gns"),
    ),
    "denoising": Experiment(
        "Masking against denoising",
        "Is masking the better pretraining, beside denoising with Gaussian noise of 0.5 Å?",
        "figure 3; numbers only for what is in table 1 and section 3.4",
        lambda dataset: (SCRATCH, MASK, DENOISE),
        models=("egnn", "gns"),
    ),
    "masking-ratio": Experiment(
        "The masking ratio",
        "Which share of the molecules should lose a hydrogen?",
        "figures 1 and 2 of the supplement; numbers only for what is in table 1",
        _ratios,
        models=("egnn",),
    ),
    "convergence": Experiment(
        "Convergence",
        "Does a pretrained network get faster to the error at which training from scratch ends?",
        "section 3.2 and figure 3 of the supplement, without numbers",
        lambda dataset: (SCRATCH, MASK),
        models=PAPER_MODELS,
    ),
    "cost": Experiment(
        "What it costs",
        "How long do pretraining, finetuning and a step of dynamics take?",
        "table 1 of the supplement",
        lambda dataset: (SCRATCH, MASK),
        seeds=1,
        dynamics=True,
    ),
    "learning-curve": Experiment(
        "Test errors over the number of labeled frames",
        "How many labels does a pretraining save? It sees all structures of the training split and none of their "
        "labels; the finetuning sees a few labels.",
        "",
        lambda dataset: (SCRATCH, MASK, Arm("denoise", "denoised", ("objective=denoise",)), FORCEFIELD),
        datasets=("water-rpbe",),
        models=("tide",),
        seeds=3,
        frames=(10, 30, 100, 300, None),
        equal="total",
    ),
    "objectives": Experiment(
        "Pretraining objectives",
        "Which pretraining helps most where labels are few? It sees all structures of the training split and none of "
        "their labels; the finetuning sees a few labels.",
        "",
        _objectives,
        datasets=("water-rpbe",),
        models=("tide",),
        seeds=3,
        frames=(100,),
        equal="total",
    ),
}
WITH_FRAMES = tuple(name for name, experiment in EXPERIMENTS.items() if experiment.frames != (None,))
"""The experiments that take numbers of labeled frames."""


@dataclass(frozen=True)
class Settings:
    """What of an experiment is run.

    Attributes:
        budget: key of `BUDGETS`.
        seeds: how many, from 0 on; None leaves it to the experiment, as with what follows.
        models: keys of `mdpot.MODELS`.
        datasets: names of recipes.
        frames: numbers of labeled training frames, None among them for all.
        equal: see `Experiment.equal`.
        overrides: "key=value" for every run, over the budget.
    """

    budget: str = "small"
    seeds: int | None = None
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    frames: tuple[int | None, ...] = ()
    equal: Equal | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cell:
    """One number of a table, over its seeds.

    Attributes:
        dataset: name of the recipe.
        model: key of `mdpot.MODELS`.
        arm: how it is trained.
        frames: labeled training frames; None for all.
        runs: one a seed; the last of each chain.
        timings: the timed dynamics, where asked for.
    """

    dataset: str
    model: str
    arm: Arm
    frames: int | None
    runs: tuple[Run, ...]
    timings: tuple[Run, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """As all runs of the cell have it."""
        return self.runs[0].recipe


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        MdpotError: there is none.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def plan(name: str, settings: Settings) -> list[Cell]:
    """The cells of an experiment.

    Args:
        name: key of `EXPERIMENTS`.
        settings: what of it.

    Raises:
        MdpotError: an unknown experiment, budget, recipe, model or key, or settings that the experiment does not take.
    """
    experiment = find_experiment(name)
    if settings.frames and name not in WITH_FRAMES:
        raise MdpotError(f"--frames is for {' and '.join(WITH_FRAMES)}; {name!r} takes all training frames.")
    n_seeds = settings.seeds or experiment.seeds
    equal = settings.equal or experiment.equal
    cells = []
    for dataset in settings.datasets or experiment.datasets:
        for model in settings.models or experiment.models:
            for frames in settings.frames or experiment.frames:
                arms = experiment.arms(dataset)
                if equal == "total":
                    arms = dict.fromkeys(LONGER if arm == SCRATCH else arm for arm in arms)
                for arm in arms:
                    cells.append(_cell(experiment, dataset, model, arm, frames, settings, n_seeds))
    return cells


def _cell(
    experiment: Experiment,
    dataset: str,
    model: str,
    arm: Arm,
    frames: int | None,
    settings: Settings,
    n_seeds: int,
) -> Cell:
    """The runs of a way to train; those with the same pretraining share it, by its folder."""
    budget = find_budget(settings.budget)
    base = [*budget.overrides(dataset, model), *settings.overrides]
    base += [f"pretrain.{text}" for text in arm.pretrain]
    # Where their number is the question, "all" is all, whatever the recipe has.
    labeled = [] if experiment.frames == (None,) else [f"data.max_train_frames={frames or 'none'}"]
    usual = load_recipe(dataset, budget.preset, base, model)
    recipe = load_recipe(dataset, budget.preset, [*base, *labeled], model) if labeled else usual
    suffix = "" if recipe.data == usual.data else f"-{frames or 'all'}frames"
    home = f"{dataset}/{model}"
    if not arm.pretrain:
        name = "scratch" + suffix
        if arm.kind == "longer":
            recipe, added = _lengthened(recipe, same_frames=not labeled and _pretraining_data(dataset) == dataset)
            name += added
        # What the pretraining of others is does not matter to it.
        recipe = recipe.model_copy(update={"pretrain": PretrainConfig()})
        runs = [Run(f"{home}/{name}/seed{seed}", "train", recipe, seed) for seed in range(n_seeds)]
    else:
        # The pretraining sees all training structures, and does not depend on the finetuning.
        source = _pretraining_data(dataset)
        first = load_recipe(source, budget.preset, [t for t in base if not t.startswith("finetune.")], model)
        name = _pretraining(first.pretrain) + (f"-on-{source}" if source != dataset else "") + suffix
        runs = []
        for seed in range(n_seeds):
            parent = Run(
                f"{source}/{model}/pretrain-{_pretraining(first.pretrain)}/seed{seed}", "pretrain", first, seed
            )
            runs.append(Run(f"{home}/{name}/seed{seed}", "finetune", recipe, seed, parent))
    timings = [Run(f"{home}/{name}/dynamics-seed{run.seed}", "dynamics", recipe, run.seed, run) for run in runs]
    return Cell(dataset, model, arm, frames, tuple(runs), tuple(timings) if experiment.dynamics else ())


def _pretraining_data(dataset: str) -> str:
    """The recipe of the pretraining: as in the paper, the molecules of the revised MD17 share that of all ten."""
    return "rmd17-all" if dataset.startswith("rmd17-") else dataset


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


def _pretraining(stage: PretrainConfig) -> str:
    """A name for what a pretraining does, of the keys in which the experiments differ."""
    if stage.objective == "denoise":
        return f"denoise-{stage.sigma:g}-{stage.vector}"
    if stage.objective == "forcefield":
        return f"forcefield-{stage.forcefield}"
    return f"{stage.objective}-{stage.ratio:g}-{stage.vector}"
