"""`mdpot md`: run molecular dynamics."""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from mdpot.cli.failure import INTERRUPTED
from mdpot.cli.options import PATH, check_device, threads_option
from mdpot.errors import MdpotError

if TYPE_CHECKING:
    from mdpot.simulate import Summary
    from mdpot.simulate.log import Row

STOPPED = 1  # exit code: the watch struck


@click.command()
@click.argument("start", required=False)
@click.option("--model", metavar="FILE", help="Potential file, folder of a run, or name of the zoo.")
@click.option("--out", type=PATH, metavar="FOLDER", required=True, help="Folder of the run.")
@click.option(
    "--engine",
    type=click.Choice(["ase", "openmm"]),
    default="ase",
    show_default=True,
    help="Program that moves the atoms.",
)
@click.option(
    "--ensemble",
    type=click.Choice(["nve", "nvt", "npt"]),
    default="nvt",
    show_default=True,
    help="What is kept constant: energy, temperature, or temperature and pressure.",
)
@click.option("--temperature", type=float, default=300.0, show_default=True, metavar="K", help="Temperature.")
@click.option("--pressure", type=float, default=1.0, show_default=True, metavar="BAR", help="Pressure, for npt.")
@click.option("--dt", type=float, default=0.5, show_default=True, metavar="FS", help="Time step.")
@click.option(
    "--steps",
    type=int,
    default=20_000,
    show_default=True,
    metavar="N",
    help="Steps in all; with --resume, those done before count too.",
)
@click.option(
    "--every",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Steps between lines of the log, frames and restart files.",
)
@click.option(
    "--friction",
    type=float,
    default=2.0,
    show_default=True,
    metavar="1/PS",
    help="Friction of the thermostat.",
)
@click.option("--minimize", is_flag=True, help="Relax the positions first.")
@click.option(
    "--trajectory",
    type=click.Choice(["xyz", "dcd"]),
    default="xyz",
    show_default=True,
    help="Extended XYZ or DCD.",
)
@click.option(
    "--hydrogen-mass",
    type=float,
    metavar="U",
    help="Make hydrogens this heavy, at the expense of the atoms that they are bonded to, for longer time steps.",
)
@click.option(
    "--charge",
    type=int,
    metavar="E",
    help="Charge of the structure, for a potential that corrects GFN2-xTB. Default: what START states.",
)
@click.option("--multiplicity", type=int, metavar="N", help="Its spin multiplicity; 2 for a radical.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of all random numbers.")
@click.option("--device", metavar="NAME", help="Where to compute, e.g. cpu or cuda:0.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), help="Precision of the network. Default: that of the file."
)
@click.option(
    "--backend",
    metavar="NAME",
    help="Who computes the forces: auto or native (fused kernels on a CPU); ase: also torch, padded (a CUDA graph "
    "on a GPU), torchscript or compile; openmm: also torchforce, python or pythontorch.  [default: auto]",
)
@click.option("--resume", is_flag=True, help="Continue the run in the folder; START is not needed.")
@threads_option
@click.pass_context
def md(ctx: click.Context, out: Path, resume: bool, **options: Any) -> None:
    """Run molecular dynamics with a potential.

    START is a structure in any format that ASE reads, or water:N for a fresh box of N water molecules at
    1 g/cm³.

    \b
        mdpot md water:64 --model potential.safetensors --out runs/water

    The folder receives the log (log.csv), the trajectory, a restart file, pictures and summary.json. If the
    run no longer makes sense, it stops with exit code 1: a number is not finite, atoms are too close, the
    temperature is far off, or the energy drifts.
    """
    given = {
        name: value
        for name, value in options.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if not resume:
        for name, label in (("start", "START"), ("model", "--model")):
            if options[name] is None:
                raise MdpotError(f"{label} is missing. It may be left out with --resume only.")
    check_device(options["device"])
    from mdpot.simulate import Settings, resume_md, run_md

    with _Progress() as progress, warnings.catch_warnings():
        warnings.showwarning = progress.warning
        if resume:
            summary = resume_md(out, given, observer=progress)
        else:
            summary = run_md(Settings(**options), out, observer=progress)
    _print(summary, out)
    if summary.stopped is None:
        return
    click.echo(_ending(summary, out), err=True)
    ctx.exit(INTERRUPTED if summary.interrupted else STOPPED)


def _print(summary: Summary, out: Path) -> None:
    lines = [f"{summary.steps} steps, {summary.time_ps:g} ps, in {out}", f"  {summary.engine}"]
    values = (
        ("temperature", summary.mean_temperature, ".1f", "K"),
        ("density", summary.mean_density, ".4f", "g/cm³"),
        ("energy drift", summary.drift, "+.4f", "meV/atom/ps"),
        ("O–O first peak", summary.oo_peak, ".2f", "Å"),
        ("speed", summary.ns_per_day, ".3g", "ns/day"),
    )
    lines += [f"  {name:<15} {value:{form}} {unit}" for name, value, form, unit in values if value is not None]
    lines += [f"  note: {note}" for note in summary.notes]
    click.echo("\n".join(lines))


def _ending(summary: Summary, out: Path) -> str:
    if summary.interrupted:
        again = shlex.join(["mdpot", "md", "--resume", "--out", str(out)])
        return f"{summary.stopped}. Go on with: {again}"
    last = out / "last_good.xyz"
    return f"{summary.stopped}" + (f". The last good state is in {last}" if last.exists() else "")


class _Progress:
    """Draws how a run goes on stderr: a bar on a terminal, else a line for every tenth of it."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None, now="")
        self._told = -1
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def warning(self, message: Warning | str, *details: Any, **more: Any) -> None:
        self._console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True)

    def phase(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def row(self, row: Row, n_steps: int) -> None:
        speed = "" if row.ns_per_day is None else f", {row.ns_per_day:.3g} ns/day"
        now = f"{row.time_ps:.2f} ps, {row.temperature_K:.0f} K{speed}"
        self._bar.update(self._task, total=n_steps, completed=row.step, now=now)
        tenth = 10 * row.step // n_steps
        if self._bar.disable and tenth > self._told:
            print(f"step {row.step} of {n_steps}: {now}", file=sys.stderr, flush=True)
        self._told = tenth
