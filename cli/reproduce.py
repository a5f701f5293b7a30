"""`mdpot reproduce`: the experiments of the papers, and their tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from mdpot.cli.options import PATH, THREADS, check_device, data_option, device_option
from mdpot.errors import MdpotError

MOST_JOBS = 8  # by default; each takes a gigabyte or two
FAILED = 1  # exit code: some runs failed; the pages are written all the same


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """ "a,b" as ("a", "b")."""
    names = tuple(dict.fromkeys(part.strip() for part in (value or "").split(",")))
    if value is not None and "" in names:
        raise MdpotError(f"--{parameter.name} takes names with commas between them, got {value!r}")
    return names if value is not None else ()


def _frames(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int | None, ...]:
    """ "10,all" as (10, None)."""
    numbers = []
    for name in _names(ctx, parameter, value):
        if name != "all" and not (name.isdecimal() and int(name) > 0):
            raise MdpotError(f"--frames takes positive numbers, or all, with commas between them, got {value!r}")
        numbers.append(None if name == "all" else int(name))
    return tuple(numbers)


@click.command()
@click.argument("experiment", nargs=-1, required=True)
@click.option(
    "--budget",
    default="small",
    show_default=True,
    metavar="NAME",
    help="small, for two CPU cores; or paper: its epochs and sizes, for a GPU.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Seeds of each run, from 0 on. Default: 1 to 4, by experiment.",
)
@click.option("--models", callback=_names, metavar="A,B", help="Networks. Default: those of the experiment.")
@click.option("--datasets", callback=_names, metavar="A,B", help="Recipes. Default: those of the experiment.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="TITLE",
    help="A pretraining, by its title in the page's table. May be given again. Default: those of the experiment.",
)
@click.option(
    "--frames",
    callback=_frames,
    metavar="N,N",
    help="Numbers of labeled frames, for learning-curve and objectives.  [default: 10,30,100,300,all; 100]",
)
@click.option(
    "--equal",
    type=click.Choice(["finetune", "total"]),
    help="What training from scratch has in common with the others: the finetuning, or the length of both stages "
    "together. Default: total for learning-curve and objectives, else finetune, as in the paper.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key of the recipe in all runs, over the budget. May be given again.",
)
@data_option("File or folder with the frames, where there is one recipe.")
@click.option(
    "--out", type=PATH, metavar="FOLDER", help="Folder of the runs and the pages.  [default: runs/reproduce-BUDGET]"
)
@click.option(
    "--jobs",
    type=THREADS,
    metavar="N",
    help=f"Runs at a time.  [default: the cores, up to {MOST_JOBS}; 1 on a GPU]",
)
@click.option(
    "--threads",
    type=THREADS,
    metavar="N",
    help="CPU threads of each run.  [default: the cores, divided by --jobs]",
)
@device_option
@click.option(
    "--earlier",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="JSON of an earlier page: finished runs in it with the same settings are taken over, not run again. May be "
    "given again.",
)
@click.option("--tables-only", is_flag=True, help="Run nothing; write tables and figures of what there is.")
def reproduce(
    experiment: tuple[str, ...],
    budget: str,
    seeds: int | None,
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    arms: tuple[str, ...],
    frames: tuple[int | None, ...],
    equal: str | None,
    overrides: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    jobs: int | None,
    threads: int | None,
    device: str | None,
    earlier: tuple[Path, ...],
    tables_only: bool,
) -> None:
    """Run an experiment, and set its numbers beside the paper's.

    \b
    EXPERIMENT is one or more of
      table1, table2, extended-epochs, denoising, masking-ratio, convergence,
      regime, cost, of the paper on masked pretraining, and two that it lacks,
      learning-curve and objectives;
      derivative-table2, derivative-table3, pooling, pretrain-epochs, of the
      paper on derivative-based pretraining.

    What is finished is not run again, and what was stopped goes on: give the same command again. Runs that
    experiments have in common are done once. Each experiment leaves a table (EXPERIMENT.md), a figure and their
    numbers (EXPERIMENT.json) in the folder.
    """
    check_device(device)
    from mdpot.cli.progress import TerminalListener
    from mdpot.threads import n_cores
    from mdpot.training.reproduce import Selection, Work, reproduce

    selection = Selection(budget, seeds, models, datasets, frames, equal, overrides, arms)  # type: ignore[arg-type]
    device = device or _gpu()
    # Small networks gain more from a core each than from several.
    jobs = jobs or (min(n_cores(), MOST_JOBS) if device is None or device.startswith("cpu") else 1)
    work = Work(jobs, threads or max(n_cores() // jobs, 1), device, data)
    folder = out or Path("runs") / f"reproduce-{budget}"
    with TerminalListener() as listener:
        failed = reproduce(
            experiment,
            selection,
            out=folder,
            work=work,
            tables_only=tables_only,
            earlier=earlier,
            command=shlex.join(["mdpot", *sys.argv[1:]]),
            listener=listener,
        )
    if failed and not tables_only:
        click.echo(f"error: {len(failed)} runs failed, e.g. {folder / 'runs' / failed[0].folder}.log", err=True)
        raise click.exceptions.Exit(FAILED)


def _gpu() -> str | None:
    """All runs of a table on one kind of device: a GPU where there is one, whatever suits each of them best."""
    import torch

    return "cuda" if torch.cuda.is_available() else None
