"""An experiment from its name to its page: run what is missing, then write what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.files import write_text
from mdpot.training.config import load_recipe
from mdpot.training.data.catalog import SOURCES
from mdpot.training.listener import SILENT, Listener
from mdpot.training.reproduce.experiments import Cell, Selection
from mdpot.training.reproduce.figures import draw
from mdpot.training.reproduce.grid import Launch, Run, Work, check, only_one, run_grid, state_of, with_parents
from mdpot.training.reproduce.numbers import numbers, to_json
from mdpot.training.reproduce.pages import page
from mdpot.training.reproduce.plan import find_experiment, plan
from mdpot.training.reproduce.recorded import Recorded, read_recorded
from mdpot.training.reproduce.results import collect
from mdpot.training.reproduce.worker import launch as launch_worker

__all__ = ["Work", "reproduce"]


def reproduce(
    names: Sequence[str],
    selection: Selection,
    *,
    out: Path,
    work: Work | None = None,
    tables_only: bool = False,
    earlier: Sequence[Path] = (),
    command: str = "",
    listener: Listener = SILENT,
    launch: Launch = launch_worker,
) -> list[Run]:
    """Runs what is missing of some experiments and writes their pages.

    Runs that experiments have in common are done once; so are pretrainings that runs have in common. Called again it
    goes on where it was; `work` may differ then.

    Args:
        names: keys of `EXPERIMENTS`.
        selection: what of them.
        out: folder; receives for each experiment NAME.md, NAME.png and NAME.json, and the runs in `runs/`.
        work: how the runs are done; None does them one by one with one thread.
        tables_only: run nothing; write what there is.
        earlier: JSON files of earlier pages; finished runs in them that are asked again are taken over, not repeated.
        command: the command line, for the pages.
        listener: hears of the progress.
        launch: starts a run; tests give their own.

    Returns:
        The runs that failed or wait for one that did; those that diverged are not among them.

    Raises:
        MdpotError: a bad selection, or runs of another specification in `out`; nothing was started then.
        Stopped: on Ctrl-C or SIGTERM; nothing finished is lost.
    """
    work = work or Work()
    plans = {name: plan(name, selection) for name in dict.fromkeys(names)}
    datasets = {cell.dataset for cells in plans.values() for cell in cells}
    if work.data is not None and len(datasets) > 1:
        raise MdpotError(f"--data is for one recipe; {len(datasets)} are asked for. Name one by --datasets.")
    own = sorted(name for name in datasets if not SOURCES[load_recipe(name).data.source].files)
    if own and work.data is None and not tables_only:
        raise MdpotError(f"the recipe {own[0]} is for frames of your own. Name their file by --data.")
    if earlier and work.data is not None:
        raise MdpotError("runs of earlier pages are of the recipe's own data; give --earlier or --data, not both.")
    everything = [cell for cells in plans.values() for cell in cells]
    done = {run.folder for cell in everything for run in cell.runs if state_of(run, out).status == "finished"}
    recorded = read_recorded(earlier, everything, selection, done)
    if earlier:
        listener.note(f"{len(recorded.outcomes)} runs are taken over from earlier pages")
    # Only what is missing brings the pretraining along that it begins from.
    trainings = with_parents(run for cell in everything for run in cell.runs if run.folder not in recorded.outcomes)
    timings = [run for cell in everything for run in cell.timings]
    for run in trainings:
        check(run, out)
    if not tables_only:
        with only_one(out):
            run_grid(trainings, out, work, listener, launch)
            # Alone on the machine, or the times would be those of a crowd.
            able = [run for run in timings if run.parent and state_of(run.parent, out).status == "finished"]
            run_grid(able, out, replace(work, jobs=1), listener, launch)
    elif not (out / "runs").is_dir() and not recorded.outcomes:
        raise MdpotError(f"{str(out)!r} holds no runs. Leave --tables-only away to start them, or give their --out.")
    for name, cells in plans.items():
        _write(name, selection, cells, out, command, recorded)
        listener.note(f"{name}: {out / name}.md")
    return [run for run in trainings if state_of(run, out).status not in ("finished", "diverged")]


def _write(name: str, selection: Selection, cells: Sequence[Cell], out: Path, command: str, recorded: Recorded) -> None:
    experiment, results = find_experiment(name), collect(cells, out, recorded.outcomes)
    told = experiment, selection, results, command, recorded.processes_of(run for cell in cells for run in cell.runs)
    draw(out / f"{name}.png", experiment, results)
    write_text(out / f"{name}.md", page(*told))
    write_text(out / f"{name}.json", to_json(numbers(*told)) + "\n")
