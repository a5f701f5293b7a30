"""Options that several commands share, and what they turn into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mdpot.errors import MdpotError

if TYPE_CHECKING:
    from mdpot.training.config import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

device_option = click.option(
    "--device",
    metavar="NAME",
    help="Where to compute, e.g. cpu or cuda:0. Default: a GPU where there is one.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    callback=lambda ctx, param, value: _set_threads(value),
    expose_value=False,
    help="CPU threads for torch. Default: torch decides.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def recipe_options(command: Command) -> Command:
    """RECIPE and all that says which run of it: preset, keys, seed, data, output folder."""
    options = [
        click.argument("recipe"),
        click.option(
            "--preset", metavar="NAME", help="quick, full or paper; one the recipe holds.  [default: quick]"
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change one key of the recipe, e.g. --set finetune.lr=1e-3. May be given again.",
        ),
        click.option(
            "--data",
            type=PATH,
            metavar="PATH",
            help="File or folder with the frames. Default: what MDPOT_DATA, the cache or mdpot itself holds.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="N",
            help="Seed of the split, the first weights, the batches and the masks.",
        ),
        device_option,
        threads_option,
        click.option(
            "--out",
            type=PATH,
            metavar="FOLDER",
            help="Folder of the run.  [default: runs/RECIPE-PRESET-seedN]",
        ),
        click.option("--resume", is_flag=True, help="Go on with the run that the folder holds."),
        click.option(
            "--print-recipe",
            is_flag=True,
            help="Print the recipe as it would run, each key with what it means, and stop.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_recipe(recipe: str, preset: str | None, overrides: tuple[str, ...], print_recipe: bool) -> Recipe:
    """The checked recipe; with `print_recipe` it is printed and the command ends here."""
    from mdpot.training.config import load_recipe, recipe_to_toml

    loaded = load_recipe(recipe, preset, overrides)
    if print_recipe:
        click.echo(recipe_to_toml(loaded, comments=True), nl=False)
        raise click.exceptions.Exit(0)
    return loaded


def run_folder(recipe: Recipe, out: Path | None, seed: int, suffix: str = "") -> Path:
    """Where a run goes: what was asked for, or a folder under runs/ named after the run."""
    return out or Path("runs") / f"{recipe.name}-{recipe.preset}{suffix}-seed{seed}"


def check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or does not have, before any work.

    Raises:
        MdpotError: no such device here.
    """
    if device is None:
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise MdpotError(f"--device {device!r} cannot be used here: {reason}") from error


def _set_threads(n_threads: int | None) -> None:
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)
