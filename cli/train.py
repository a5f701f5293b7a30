"""`mdpot pretrain`, `mdpot finetune`, `mdpot train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mdpot.cli.options import PATH, check_device, read_recipe, recipe_options, run_folder
from mdpot.cli.tables import print_comparison, print_errors
from mdpot.errors import MdpotError


@click.command()
@recipe_options
@click.option(
    "--compare-scratch",
    is_flag=True,
    help="Also finetune from random weights, with the same seeds, and report the difference.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --compare-scratch: repeat both with N seeds, from --seed on, for a standard error.",
)
def train(
    recipe: str,
    preset: str | None,
    overrides: tuple[str, ...],
    data: Path | None,
    seed: int,
    device: str | None,
    out: Path | None,
    resume: bool,
    print_recipe: bool,
    compare_scratch: bool,
    seeds: int | None,
) -> None:
    """Pretrain, finetune and test: from frames to a potential.

    RECIPE is the name of a shipped recipe (water-rpbe, custom) or a TOML file. The folder of the run receives
    the recipe as it ran, the splits, the logs, the potential (potential.safetensors), pictures, metrics.json
    and report.md.
    """
    loaded = read_recipe(recipe, preset, overrides, print_recipe)
    check_device(device)
    if seeds is not None and not compare_scratch:
        raise MdpotError("--seeds needs --compare-scratch; a single run takes --seed")
    from mdpot.cli.progress import TerminalListener

    folder = run_folder(loaded, out, seed, "-compare" if compare_scratch else "")
    with TerminalListener() as listener:
        where: dict[str, Any] = {
            "data": data,
            "out": folder,
            "seed": seed,
            "device": device,
            "resume": resume,
        }
        if compare_scratch:
            from mdpot.training.compare import run_compare

            result = run_compare(loaded, **where, seeds=seeds or 1, listener=listener)
        else:
            from mdpot.training.run import run_train

            result = run_train(loaded, **where, listener=listener)
    _print_result(folder, result)


@click.command()
@recipe_options
def pretrain(
    recipe: str,
    preset: str | None,
    overrides: tuple[str, ...],
    data: Path | None,
    seed: int,
    device: str | None,
    out: Path | None,
    resume: bool,
    print_recipe: bool,
) -> None:
    """Pretrain only; the labels of the frames are not used.

    RECIPE is the name of a shipped recipe (water-rpbe, custom) or a TOML file. The file it leaves is what
    `mdpot finetune --from` takes.
    """
    loaded = read_recipe(recipe, preset, overrides, print_recipe)
    check_device(device)
    if loaded.pretrain.objective == "none":
        raise MdpotError(f'recipe {loaded.name!r} pretrains nothing: pretrain.objective is "none"')
    from mdpot.cli.progress import TerminalListener
    from mdpot.training.run import run_pretrain

    with TerminalListener() as listener:
        file = run_pretrain(
            loaded,
            data=data,
            out=run_folder(loaded, out, seed, "-pretrain"),
            seed=seed,
            device=device,
            resume=resume,
            listener=listener,
        )
    click.echo(f"weights: {file}")


@click.command()
@recipe_options
@click.option(
    "--from",
    "from_file",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File with the weights to start from, of `mdpot pretrain` or of any run.",
)
def finetune(
    recipe: str,
    preset: str | None,
    overrides: tuple[str, ...],
    data: Path | None,
    seed: int,
    device: str | None,
    out: Path | None,
    resume: bool,
    print_recipe: bool,
    from_file: Path,
) -> None:
    """Finetune a pretrained network on labeled frames, and test it.

    RECIPE is the name of a shipped recipe (water-rpbe, custom) or a TOML file; its network must be that of
    the file.
    """
    loaded = read_recipe(recipe, preset, overrides, print_recipe)
    check_device(device)
    from mdpot.cli.progress import TerminalListener
    from mdpot.training.run import run_finetune

    folder = run_folder(loaded, out, seed, "-finetune")
    with TerminalListener() as listener:
        result = run_finetune(
            loaded,
            from_file=from_file,
            data=data,
            out=folder,
            seed=seed,
            device=device,
            resume=resume,
            listener=listener,
        )
    _print_result(folder, result)


def _print_result(folder: Path, result: Mapping[str, Any]) -> None:
    """What came out of a run, and where it lies."""
    if "errors" in result:
        print_errors(result["errors"])
    elif "test" in result:
        print_comparison(result["test"])
    for name, file in (("report", "report.md"), ("potential", "potential.safetensors")):
        if (folder / file).is_file():
            click.echo(f"{name}: {folder / file}")
