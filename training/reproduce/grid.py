"""A grid of runs: what each is, where it lies, what became of it, and doing those that are missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mdpot.errors import MdpotError
from mdpot.files import locked
from mdpot.stopping import Stopped, StopSignal
from mdpot.training import folder as files
from mdpot.training.config import Recipe, recipe_to_dict
from mdpot.training.listener import Listener

Kind = Literal["pretrain", "train", "finetune", "dynamics"]
Status = Literal["missing", "stopped", "failed", "diverged", "finished"]
DONE = ("finished", "diverged")
RESULTS: dict[Kind, str] = {
    "pretrain": files.PRETRAINED,
    "train": files.METRICS,
    "finetune": files.METRICS,
    "dynamics": files.METRICS,
}
"""The file with which a run of each kind ends."""
PAUSE = 0.2


@dataclass(frozen=True, eq=False)
class Run:
    """One training, or one timing of dynamics, in one folder.

    Attributes:
        folder: below `runs/`, for people: recipe/network/how it is trained/seedN.
        kind: "pretrain"; "train" from scratch; "finetune" from the weights of `parent`; "dynamics", which times the
            potential of `parent`.
        recipe: as it runs.
        seed: of the run.
        parent: the run whose weights this one takes.
    """

    folder: str
    kind: Kind
    recipe: Recipe
    seed: int
    parent: Run | None = None


@dataclass(frozen=True)
class State:
    """What became of a run.

    Attributes:
        status: "diverged": the loss was not finite, and would not be again; "failed": anything else went wrong;
            "stopped": to be resumed.
        message: of the error.
        facts: what the process that did it left: seconds, threads, device, commit, versions.
    """

    status: Status
    message: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """How the runs are done.

    Attributes:
        jobs: processes at a time.
        threads: of torch in each process.
        device: torch device; None takes a GPU where there is one.
        data: file or folder with the frames; None searches.
    """

    jobs: int = 1
    threads: int = 1
    device: str | None = None
    data: Path | None = None


class Job(Protocol):
    """A run in another process."""

    def running(self) -> bool:
        """Whether it is still at work."""
        ...

    def stop(self) -> None:
        """Asks it to save its state and end."""
        ...

    def kill(self) -> None:
        """Ends it at once; a saved state survives this too."""
        ...


Launch = Callable[[Run, Path, Work], Job]
"""Starts a run; the path is the folder that holds `runs/`."""


def folder_of(run: Run, out: Path) -> Path:
    """The folder of a run."""
    return out / "runs" / run.folder


def outcome_of(run: Run, out: Path) -> Path:
    """The file beside the folder of a run that tells how it ended."""
    return out / "runs" / f"{run.folder}.json"


def log_of(run: Run, out: Path) -> Path:
    """The file beside the folder of a run with what its process said."""
    return out / "runs" / f"{run.folder}.log"


def state_of(run: Run, out: Path) -> State:
    """What became of a run so far."""
    path = outcome_of(run, out)
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        facts = {}
    status: Status = facts.get("status", "missing")
    begun = (folder_of(run, out) / files.RUN).is_file()
    if (folder_of(run, out) / RESULTS[run.kind]).is_file():
        status = "finished"
    elif run.parent is not None and state_of(run.parent, out).status == "diverged":
        return State("diverged", f"the {run.parent.kind} before it diverged", facts)
    elif status in DONE and not begun:
        # Its folder was removed, to do it again.
        status = "missing"
    elif status in ("finished", "missing") and begun:
        status = "stopped"
    return State(status, facts.get("message", ""), facts)


def check(run: Run, out: Path) -> None:
    """Refuses a folder that holds another run than the one asked for.

    Raises:
        MdpotError: it does, with the keys in which the two differ.
    """
    path = folder_of(run, out) / files.RUN
    if run.kind == "dynamics" or not path.is_file() or files.barely_begun(path.parent):
        return
    there = files.read_run(path)
    different = [
        f"{key}: {there.get(key)!r} there, {value!r} asked for"
        for key, value in (("kind", run.kind), ("seed", run.seed))
        if there.get(key) != value
    ]
    different += list(_differences(files.up_to_date(there.get("recipe", {})), recipe_to_dict(run.recipe)))
    if different:
        raise MdpotError(
            f"{str(path.parent)!r} holds a run with another specification ({'; '.join(different[:4])}). "
            "Choose another --out, remove that folder, or ask for the same again."
        )


def with_parents(runs: Iterable[Run]) -> list[Run]:
    """Each run once, after those it depends on, all runs of one seed before those of the next.

    Raises:
        MdpotError: two runs of different specifications would share a folder.
    """
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        line = [run]
        while (parent := line[0].parent) is not None:
            line.insert(0, parent)
        for member in line:
            known = found.setdefault(member.folder, member)
            if (known.kind, known.seed, known.recipe) != (member.kind, member.seed, member.recipe):
                raise MdpotError(f"two runs of different specifications would share the folder {member.folder!r}.")
    return list(found.values())


def run_grid(runs: Sequence[Run], out: Path, work: Work, listener: Listener, launch: Launch) -> None:
    """Does the runs that are not done, `work.jobs` at a time, and tells of each.

    A run that fails or diverges is recorded and the others go on. What is not finished continues from its last saved
    state; what failed is tried again.

    Args:
        runs: any; those they depend on come along.
        out: folder that holds `runs/`.
        work: processes, threads, device and data.
        listener: hears of each run that begins and ends.
        launch: starts a run.

    Raises:
        MdpotError: a folder holds another run; nothing was started then.
        Stopped: on SIGINT or SIGTERM, after the runs at work saved their states.
    """
    everything = with_parents(runs)
    for run in everything:
        check(run, out)
    waiting = [run for run in everything if state_of(run, out).status not in DONE]
    if len(everything) > len(waiting):
        listener.note(f"{len(everything) - len(waiting)} of {len(everything)} runs are done")
    grid = _Grid(waiting, out, work, listener, launch)
    with StopSignal() as stop:
        try:
            while grid.waiting or grid.at_work:
                grid.start(stop)
                grid.collect()
                if stop.requested:
                    grid.end()
                    raise Stopped(
                        "every finished run is kept, and the others their last saved state. The same command "
                        "goes on; with --tables-only it writes what there is"
                    )
                time.sleep(PAUSE if grid.at_work else 0.0)
        finally:
            for _, job, _ in grid.at_work.values():
                job.kill()


class _Grid:
    """The runs that are waiting and those at work; arguments as of `run_grid`."""

    def __init__(self, waiting: list[Run], out: Path, work: Work, listener: Listener, launch: Launch) -> None:
        self.waiting, self.out, self.work, self.listener, self.launch = waiting, out, work, listener, launch
        self.at_work: dict[str, tuple[Run, Job, float]] = {}
        self.refused: set[str] = set()
        self.n_runs, self.ended, self.began = len(waiting), 0, time.perf_counter()

    def start(self, stop: StopSignal) -> None:
        """Starts what can be started, until a stop is requested, and leaves out what never can."""
        for run in list(self.waiting):
            if len(self.at_work) >= self.work.jobs or stop.requested:
                break
            pending = self.at_work.keys() | {r.folder for r in self.waiting}
            verdict = _may_start(run, self.out, pending, self.refused)
            if verdict == "no":
                self.waiting.remove(run)
                self.refused.add(run.folder)
                self._ends(run.folder, "left out, for what it depends on did not finish")
            elif verdict == "yes":
                self.waiting.remove(run)
                self.at_work[run.folder] = run, self.launch(run, self.out, self.work), time.perf_counter()
                self.listener.note(f"{run.folder}: begins")

    def collect(self) -> None:
        """Takes note of the runs that ended."""
        for folder, (run, job, since) in list(self.at_work.items()):
            if not job.running():
                del self.at_work[folder]
                state = state_of(run, self.out)
                if state.status not in DONE:
                    self.refused.add(folder)
                now = time.perf_counter()
                left = (now - self.began) / (self.ended + 1) * (self.n_runs - self.ended - 1)
                said = _said(state, log_of(run, self.out))
                self._ends(folder, f"{said}, {now - since:.0f} s; about {left / 60:.0f} min left")

    def end(self) -> None:
        """Has the runs at work save their states and end."""
        for _, job, _ in self.at_work.values():
            job.stop()
        while any(job.running() for _, job, _ in self.at_work.values()):
            time.sleep(PAUSE)
        self.at_work.clear()

    def _ends(self, folder: str, how: str) -> None:
        self.ended += 1
        self.listener.note(f"[{self.ended}/{self.n_runs}] {folder}: {how}")


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """While the block runs no second process does runs in `out`.

    Raises:
        MdpotError: another one does.
    """
    with locked(out / ".lock", wait=False) as ours:
        if not ours:
            raise MdpotError(f"another process does runs in {str(out)!r}. Wait for it, or choose another --out.")
        yield


def _may_start(run: Run, out: Path, pending: set[str], refused: set[str]) -> Literal["yes", "wait", "no"]:
    """Whether what a run depends on is finished, to come, or will never be."""
    if run.parent is None:
        return "yes"
    if run.parent.folder in refused:
        return "no"
    if run.parent.folder in pending:
        return "wait"
    return "yes" if state_of(run.parent, out).status == "finished" else "no"


def _said(state: State, log: Path) -> str:
    if state.status == "finished":
        return "finished"
    if state.status == "diverged":
        return "diverged"
    return f"failed ({state.message or 'it ended without a word'}; see {log})"


def _differences(there: Any, asked: Any, path: str = "") -> Iterator[str]:
    """The keys in which two recipes differ, with both values; texts that only describe do not count."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*there, *asked]):
            if (path, key) != ("", "description"):
                yield from _differences(there.get(key), asked.get(key), f"{path}.{key}".lstrip("."))
    elif there != asked:
        yield f"{path}: {there!r} there, {asked!r} asked for"
