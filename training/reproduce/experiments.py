"""What an experiment is: a question, the ways to train that answer it, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mdpot.errors import unknown
from mdpot.training.config import PretrainConfig, Recipe
from mdpot.training.reproduce.budgets import Budget
from mdpot.training.reproduce.grid import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mdpot.training.reproduce.results import Result

Equal = Literal["finetune", "total"]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        kind: "scratch", "longer" (scratch, with the steps of a pretraining added), or a pretraining.
        title: as tables and figures name it.
        color: in figures.
        pretrain: keys of the pretraining, without the "pretrain."; () for none.
        note: what pages say of it.
        length: of the pretraining, as a share of what the budget has.
        data: keys of the data that are pretrained on, without the "data."; they choose frames.
    """

    kind: str
    title: str
    color: str
    pretrain: tuple[str, ...] = ()
    note: str = ""
    length: float = 1.0
    data: tuple[str, ...] = ()


SCRATCH = Arm("scratch", "from scratch", "0.6")
LONGER = Arm(
    "longer",
    "from scratch, longer",
    "0.35",
    note='"From scratch, longer" has the steps of the pretraining added to its finetuning: it makes as many steps as '
    "the others make in both stages.",
)


@dataclass(frozen=True)
class Variant:
    """What of the finetuning is changed in all ways to train alike.

    Attributes:
        title: as tables and figures name it.
        name: of its folders; "" for the finetuning that other experiments share.
        keys: "key=value" of the recipe.
    """

    title: str = ""
    name: str = ""
    keys: tuple[str, ...] = ()


USUAL = Variant()


@dataclass(frozen=True)
class Paper:
    """What all experiments of a paper share.

    Attributes:
        budgets: how long runs train; by the names that `--budget` takes.
        published: what the paper has for a cell, a dataclass; None where it has nothing.
        pretraining_name: a folder's name for a pretraining, of the keys in which the experiments differ.
        pretrained_on: the recipe whose frames the networks of a recipe are pretrained on.
        one_pretraining: whether all seeds finetune one pretraining, that of the first; else each its own.
    """

    budgets: Mapping[str, Budget]
    published: Callable[[Result], Any]
    pretraining_name: Callable[[PretrainConfig], str]
    pretrained_on: Callable[[str], str] = lambda recipe: recipe
    one_pretraining: bool = False

    def budget(self, name: str) -> Budget:
        """The budget of that name.

        Raises:
            MdpotError: there is none.
        """
        if name not in self.budgets:
            raise unknown("budget", name, self.budgets)
        return self.budgets[name]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A question, the runs that answer it, and what its page shows.

    Attributes:
        name: as the command line has it; also of the page's files.
        paper: the one it belongs to.
        title: of its page.
        question: what is asked, for its page.
        source: where the paper answers it; "" where it does not.
        arms: the ways to train for a dataset.
        datasets, models: by default.
        seeds: how many, by default.
        table: its cells, finished or not, as one or more tables in Markdown.
        figure: the same as a figure.
        notes: what its page says besides.
        frames: numbers of labeled training frames, None for all.
        variants: of the finetuning; each has its own training from scratch to be compared with.
        equal: what scratch shares with the others by default: the finetuning alone, or the length of pretraining and
            finetuning together.
        dynamics: whether dynamics are timed too.
    """

    name: str
    paper: Paper
    title: str
    question: str
    source: str
    arms: Callable[[str], Sequence[Arm]]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int
    table: Callable[[Sequence[Result]], str]
    figure: Callable[[Sequence[Result]], Figure]
    notes: tuple[str, ...] = ()
    frames: tuple[int | None, ...] = (None,)
    variants: tuple[Variant, ...] = (USUAL,)
    equal: Equal = "finetune"
    dynamics: bool = False


@dataclass(frozen=True)
class Selection:
    """What of an experiment is run.

    Attributes:
        budget: key of `Paper.budgets`.
        seeds: how many, from 0 on; None leaves it to the experiment, as with what follows.
        models: keys of `mdpot.MODELS`.
        datasets: names of recipes.
        arms: titles of the pretrainings; training from scratch always comes along.
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
    arms: tuple[str, ...] = ()


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
        variant: of the finetuning.
    """

    dataset: str
    model: str
    arm: Arm
    frames: int | None
    runs: tuple[Run, ...]
    timings: tuple[Run, ...] = ()
    variant: Variant = USUAL

    @property
    def recipe(self) -> Recipe:
        """As all runs of the cell have it."""
        return self.runs[0].recipe

    @property
    def pretraining(self) -> PretrainConfig | None:
        """As all runs of the cell begin with; None for none."""
        first = self.runs[0].parent
        return first.recipe.pretrain if first else None
