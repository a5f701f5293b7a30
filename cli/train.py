"""`mdpot pretrain`, `mdpot finetune`, `mdpot finetune-property`, `mdpot train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mdpot.cli.options import PATH, RecipeCommand, TrainingRequest, recipe_options
from mdpot.cli.tables import print_comparison, print_errors
from mdpot.errors import MdpotError


@click.command(cls=RecipeCommand)
@recipe_options
@click.option(
    "--compare-scratch",
    is_flag=True,
    help="Also finetune from random weights, with the same seeds, and report the difference.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="With --compare-scratch: repeat both with N seeds, from --seed on, for a standard error.  [default: 3]",
)
def train(request: TrainingRequest, compare_scratch: bool, seeds: int | None) -> None:
    """Pretrain, finetune and test: from frames to a potential.

    RECIPE is a TOML file or the name of a shipped recipe, see below. The folder of the run receives the recipe as it
    ran, the splits, the logs, the potential (potential.safetensors), pictures, metrics.json and report.md.
    """
    if compare_scratch:
        _compare(request, seeds or 3)
        return
    if seeds is not None:
        raise MdpotError("--seeds needs --compare-scratch; a single run takes --seed")
    from mdpot.training.run import run_train

    with request.running() as arguments:
        result = run_train(request.recipe, **arguments)
    _print_result(request.out(), result)


def _compare(request: TrainingRequest, seeds: int) -> None:
    if request.tensorboard:
        raise MdpotError("--tensorboard shows one run; leave it away with --compare-scratch")
    from mdpot.training.compare import run_compare

    with request.running("-compare") as arguments:
        result = run_compare(request.recipe, seeds=seeds, **arguments)
    _print_result(request.out("-compare"), result)


@click.command(cls=RecipeCommand)
@recipe_options
def pretrain(request: TrainingRequest) -> None:
    """Pretrain only; the labels of the frames are not used.

    RECIPE is a TOML file or the name of a shipped recipe, see below. The file it leaves is what
    `mdpot finetune --from` takes.
    """
    if request.recipe.pretrain.objective == "none":
        raise MdpotError(f'recipe {request.recipe.name!r} pretrains nothing: pretrain.objective is "none"')
    from mdpot.training.run import run_pretrain

    with request.running("-pretrain") as arguments:
        file = run_pretrain(request.recipe, **arguments)
    click.echo(f"weights: {file}")


@click.command(cls=RecipeCommand)
@recipe_options
@click.option(
    "--from",
    "from_file",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File with the weights to start from, of `mdpot pretrain` or of any run, or a name of the zoo.",
)
def finetune(request: TrainingRequest, from_file: Path) -> None:
    """Finetune a pretrained network on labeled frames, and test it.

    RECIPE is a TOML file or the name of a shipped recipe, see below. The network is that of FILE; if you give --model
    or one of its keys (--set model.cutoff=...), it must be the same. To keep what a finished potential has learned, add
    --preset after.
    """
    from mdpot.training.run import run_finetune

    suffix = "-finetune"
    with request.running(suffix) as arguments:
        result = run_finetune(request.recipe, from_file=from_file, **arguments)
    _print_result(request.out(suffix), result)


@click.command("finetune-property", cls=RecipeCommand)
@recipe_options
@click.option(
    "--from",
    "from_file",
    type=PATH,
    metavar="FILE",
    help="File with the weights to start from, of `mdpot pretrain` or of any run, or a name of the zoo.  "
    "[default: random weights]",
)
def finetune_property(request: TrainingRequest, from_file: Path | None) -> None:
    """Finetune a network on a property: one number a structure, such as a band gap.

    RECIPE is a TOML file or the name of a shipped recipe with a table [property]. The network is that of FILE; if you
    give --model or one of its keys (--set model.cutoff=...), it must be the same. The run leaves the same files as
    `mdpot train`; `mdpot predict` takes its model.
    """
    from mdpot.training.run import run_property

    suffix = "-property"
    with request.running(suffix) as arguments:
        result = run_property(request.recipe, from_file=from_file, **arguments)
    _print_result(request.out(suffix), result)


def _print_result(folder: Path, result: Mapping[str, Any]) -> None:
    """What came out of a run, and where it lies."""
    if "errors" in result:
        print_errors(result["errors"], result.get("baseline"))
        for sentence in result.get("outliers", ()):
            click.echo(sentence)
    elif "test" in result:
        print_comparison(result["test"])
    model = "model" if result.get("property") else "potential"
    for name, file in (("report", "report.md"), (model, "potential.safetensors")):
        if (folder / file).is_file():
            click.echo(f"{name}: {folder / file}")
