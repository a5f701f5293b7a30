"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mdpot.training.config import Recipe
    from mdpot.training.listener import Listener


class NamedPath(click.Path):
    """A path that is not empty: a variable that a shell does not know would stand for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; see `click.ParamType.convert`."""
        if value == "":
            self.fail("the path is empty. Give its name, or . for the current folder.", param, ctx)
        return super().convert(value, param, ctx)


PATH = NamedPath(path_type=Path)
SEED = click.IntRange(0, 2**32 - 1)
THREADS = click.IntRange(1, max(64, 4 * (os.cpu_count() or 1)))
"""Many more than there are cores help nobody, and a million kill the process."""

SEVERAL_FILES = 'For several files, give their folder, or a pattern in quotes, such as "runs/*.xyz".'


def data_option(text: str) -> Callable[[Any], Any]:
    """`--data PATH`; of several, of which click would take the last one without a word, none."""

    def one(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> Path | None:
        if len(paths) > 1:
            raise click.BadParameter(f"got {len(paths)} paths. {SEVERAL_FILES}", ctx, param)
        return paths[0] if paths else None

    return click.option("--data", type=PATH, multiple=True, callback=one, metavar="PATH", help=text)


device_option = click.option(
    "--device",
    metavar="NAME",
    help="Where to compute, e.g. cpu or cuda:0. Default: a GPU where there is one.",
)
training_device_option = click.option(
    "--device",
    metavar="NAME",
    help="Where to train, e.g. cpu or cuda:0. Default: a GPU where there is one; for Tide in small batches the CPU, "
    "whose kernels are faster.",
)
threads_option = click.option(
    "--threads",
    type=THREADS,
    metavar="N",
    callback=lambda ctx, param, value: _set_threads(value),
    expose_value=False,
    help="CPU threads for torch. Default: torch decides.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


LABEL_OPTIONS = {
    "energy_key": click.option("--energy-key", metavar="KEY", help="Key of the energies in the file, e.g. REF_energy."),
    "forces_key": click.option("--forces-key", metavar="KEY", help="Key of the forces."),
    "stress_key": click.option("--stress-key", metavar="KEY", help="Key of the stress or virial; ignore takes none."),
    "units": click.option(
        "--units",
        metavar="UNITS",
        help="Units of a file that states none: ase, atomic, vasp, metal, real, or quantity=unit, e.g. "
        "energy=Hartree,length=bohr or stress=GPa.  [default: what the file states, else ase]",
    ),
    "check": click.option(
        "--check",
        type=click.Choice(["on", "off"]),
        help="Whether to refuse labels that contradict physics.  [default: on]",
    ),
    "charge": click.option(
        "--charge", type=int, metavar="E", help="Charge of frames that do not state theirs, for GFN2-xTB."
    ),
    "multiplicity": click.option(
        "--multiplicity", type=int, metavar="N", help="Their spin multiplicity; 2 for a radical."
    ),
}
"""Options on the labels of a user's own file, by the key of `[data]` that they set."""


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `LABEL_OPTIONS`; the command gets them together as `labels`."""

    @wraps(command)
    def wrapped(**arguments: Any) -> Any:
        from mdpot.training.data.labels import Asked

        asked = {key: arguments.pop(key) for key in LABEL_OPTIONS}
        return command(labels=Asked(**{**asked, "check": asked["check"] != "off"}), **arguments)

    for option in reversed(LABEL_OPTIONS.values()):
        wrapped = option(wrapped)
    return wrapped


@dataclass(frozen=True)
class TrainingRequest:
    """What a training command was asked for, checked: the options that all three share.

    Attributes:
        recipe: as it is to run.
        data: file or folder with the frames; None searches.
        folder: of the run, as asked for; None takes a name under runs/.
        model: as asked for by --model.
        seed, device, devices, resume, tensorboard: as given.
    """

    recipe: Recipe
    data: Path | None
    folder: Path | None
    model: str | None
    seed: int
    device: str | None
    devices: int | None
    resume: bool
    tensorboard: bool

    def out(self, suffix: str = "") -> Path:
        """Where the run goes: what was asked for, or a folder under runs/ named after the run."""
        network = f"-{self.model}" if self.model else ""
        name = f"{self.recipe.name}-{self.recipe.preset}{network}{suffix}-seed{self.seed}"
        return self.folder or Path("runs") / name

    @contextmanager
    def running(self, suffix: str = "") -> Iterator[dict[str, Any]]:
        """The arguments that the functions of `mdpot.training.run` have in common; they hold while the block runs."""
        from mdpot.training.together import together

        with together(self.devices, self.device) as team, self._listening(suffix) as listener:
            if team.size > 1:
                listener.note(f"{team.size} processes train together, {team.threads} CPU threads each")
            yield {
                "data": self.data,
                "out": self.out(suffix),
                "seed": self.seed,
                "device": self.device,
                "resume": self.resume,
                "listener": listener,
                "team": team,
            }

    @contextmanager
    def _listening(self, suffix: str) -> Iterator[Listener]:
        """Who hears of the progress while the block runs: the terminal and, where asked, TensorBoard."""
        from mdpot.cli.progress import TerminalListener

        with TerminalListener() as listener:
            if not self.tensorboard:
                yield listener
                return
            from mdpot.training.tensorboard import TensorBoardListener

            with closing(TensorBoardListener(self.out(suffix) / "tensorboard", listener)) as both:
                yield both


class RecipeCommand(click.Command):
    """A command that trains by a RECIPE: its help ends with the names of the shipped ones, and it takes --resume."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mdpot.training.recipes import shipped_recipes

        with formatter.section("Shipped recipes"):
            names = wrap(", ".join(shipped_recipes()), formatter.width - 2, break_on_hyphens=False)
            formatter.write("".join(f"  {line}\n" for line in names))


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPE and all that says which run of it, which the command gets as one `TrainingRequest`; the rest by name."""

    @wraps(command)
    def wrapped(
        recipe: str,
        preset: str | None,
        model: str | None,
        overrides: tuple[str, ...],
        data: Path | None,
        seed: int,
        device: str | None,
        devices: int | None,
        out: Path | None,
        resume: bool,
        tensorboard: bool,
        print_recipe: bool,
        **others: Any,
    ) -> Any:
        labels = {key: value for key in LABEL_OPTIONS if (value := others.pop(key)) is not None}
        overrides = (
            *overrides,
            *(f"data.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in labels.items()),
        )
        loaded = read_recipe(recipe, preset, overrides, model, others.get("from_file"), print_recipe)
        check_device(device)
        return command(TrainingRequest(loaded, data, out, model, seed, device, devices, resume, tensorboard), **others)

    options = [
        click.argument("recipe"),
        click.option(
            "--preset",
            metavar="NAME",
            help="quick, full, or another of the recipe, such as xtb or delta; a wrong name lists them.  "
            "[default: quick]",
        ),
        click.option("--model", metavar="NAME", help="Network to use instead of the recipe's, e.g. egnn."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change one key of the recipe, e.g. --set finetune.lr=1e-3. Repeat for more.",
        ),
        data_option(
            "File or folder with the frames, or pyg:CLASS:ARGUMENT, a data set of PyTorch Geometric. Default: what "
            "MDPOT_DATA, the cache or mdpot itself holds."
        ),
        *LABEL_OPTIONS.values(),
        click.option(
            "--seed",
            type=SEED,
            default=0,
            show_default=True,
            metavar="N",
            help="Seed of the split, the initial weights, the batches, and the masks.",
        ),
        training_device_option,
        click.option(
            "--devices",
            type=THREADS,
            metavar="N",
            help="Processes that train together: each batch is divided among N GPUs, or N shares of the CPU threads. "
            "For several machines, start this command with torchrun.  [default: 1]",
        ),
        threads_option,
        click.option(
            "--out",
            type=PATH,
            metavar="FOLDER",
            help="Folder of the run.  [default: runs/, then recipe, preset, model, command, and seed]",
        ),
        click.option("--resume", is_flag=True, help="Continue the run in the folder, or start it if there is none."),
        click.option("--tensorboard", is_flag=True, help="Also write the curves for TensorBoard."),
        click.option(
            "--print-recipe",
            is_flag=True,
            help="Print the recipe as it would run, with the meaning of each key, and stop.",
        ),
    ]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def read_recipe(
    recipe: str,
    preset: str | None,
    overrides: tuple[str, ...],
    model: str | None,
    from_file: Path | None,
    print_recipe: bool,
) -> Recipe:
    """The checked recipe; with `print_recipe` it is printed and the command ends here.

    Its network is that of the file to begin from, unless one is asked for.
    """
    from mdpot.training.config import asks_for_network, load_recipe, recipe_to_toml, with_network_of

    if from_file is None or model is not None or asks_for_network(overrides):
        loaded = load_recipe(recipe, preset, overrides, model)
    else:
        from mdpot.modelfile import load_potential

        header = load_potential(from_file, correction=True)[1]
        loaded = with_network_of(header, load_recipe(recipe, preset, overrides, header["model"]))
    if print_recipe:
        click.echo(recipe_to_toml(loaded, comments=True), nl=False)
        raise click.exceptions.Exit(0)
    return loaded


def check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or does not have, before any work.

    Raises:
        MdpotError: no such device here.
    """
    if device is None:
        return
    from mdpot import device as devices

    devices.check_device(device, "--device")


def _set_threads(n_threads: int | None) -> None:
    if n_threads is not None:
        import torch

        torch.set_num_threads(n_threads)
