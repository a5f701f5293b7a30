"""What the runs of an experiment found: errors by seed, means, standard errors, and what it took."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mdpot.training import folder as files
from mdpot.training.compare import standard_error
from mdpot.training.report import read_log
from mdpot.training.reproduce.experiments import LONGER, SCRATCH, Cell
from mdpot.training.reproduce.grid import Run, State, folder_of, state_of

Log = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Value:
    """A number that a paper gives: a mean and its standard error, where there is one."""

    mean: float
    standard_error: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the finite values.
        standard_error: sample standard deviation over the square root of their number; None for one.
        n: how many.
    """

    mean: float
    standard_error: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of some values and its standard error; None for no values."""
    if not len(values):
        return None
    array = np.asarray(values, dtype=float)
    return Estimate(float(array.mean()), standard_error(array), len(array))


@dataclass(frozen=True)
class Outcome:
    """One run, as far as it got.

    Attributes:
        run: which.
        state: what became of it.
        metrics: the content of metrics.json; empty where it is not finished.
        before: what became of the run it began from; None where it began from random weights.
        finetune, pretrain: the logs of the stages by column, the pretraining's from the run it began from.
        data: what labeled its frames, how many there are, and their fingerprints; empty where that is not known.
    """

    run: Run
    state: State
    before: State | None
    metrics: Mapping[str, Any]
    finetune: Log
    pretrain: Log
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """As `State.status`; also "diverged" where the errors on the test frames are not finite."""
        broken = not all(map(math.isfinite, self.errors().values()))
        return "diverged" if broken else self.state.status

    def errors(self, frames: str = "test") -> Mapping[str, float]:
        """The table of errors of a set of frames; for "test" that of validation where there is no test split."""
        tables = self.metrics.get("errors", {})
        return tables.get(frames) or (tables.get("validation", {}) if frames == "test" else {})


@dataclass(frozen=True)
class Result:
    """A cell and its runs, as far as they got.

    Attributes:
        cell: what was asked.
        outcomes: one a seed.
        timings: the content of metrics.json of the timed dynamics that are finished.
    """

    cell: Cell
    outcomes: tuple[Outcome, ...]
    timings: tuple[Mapping[str, Any], ...]

    @cached_property
    def finished(self) -> dict[int, Outcome]:
        """The finished runs by seed."""
        return {o.run.seed: o for o in self.outcomes if o.status == "finished"}

    def count(self, status: str) -> int:
        """How many runs have a status."""
        return sum(o.status == status for o in self.outcomes)

    def values(self, key: str, frames: str = "test") -> dict[int, float]:
        """An error by seed, of the finished runs."""
        found = {seed: o.errors(frames).get(key) for seed, o in self.finished.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, key: str, frames: str = "test", seeds: Container[int] | None = None) -> Estimate | None:
        """The mean of an error over the finished seeds, or over those of them that are in `seeds`."""
        found = self.values(key, frames)
        return estimate([value for seed, value in found.items() if seeds is None or seed in seeds])

    def seconds(self, stage: str) -> Estimate | None:
        """Seconds of a stage, "pretrain" or "finetune", validations included, over the finished seeds."""
        logs = [o.pretrain if stage == "pretrain" else o.finetune for o in self.finished.values()]
        return estimate([log["seconds"][-1] for log in logs if log.get("seconds")])

    def steps(self, stage: str) -> int | None:
        """Steps that a stage of the first finished seed took."""
        return self._last(stage, "step")

    def steps_per_epoch(self, stage: str) -> int | None:
        """Steps in which a stage of the first finished seed saw all its frames once."""
        return self._last(stage, "steps_per_epoch")

    def _last(self, stage: str, column: str) -> int | None:
        for outcome in self.finished.values():
            log = outcome.pretrain if stage == "pretrain" else outcome.finetune
            if log.get(column):
                return int(log[column][-1])
        return None


NOTHING_RECORDED: Mapping[str, Outcome] = MappingProxyType({})


def paired(result: Result, base: Result, key: str) -> Estimate | None:
    """The mean difference of a test error, `result` minus `base`, over the seeds that both finished."""
    ours, theirs = result.values(key), base.values(key)
    return estimate([value - theirs[seed] for seed, value in ours.items() if seed in theirs])


def collect(cells: Sequence[Cell], out: Path, recorded: Mapping[str, Outcome] = NOTHING_RECORDED) -> list[Result]:
    """What the runs of some cells left in `out`, finished or not.

    Args:
        cells: which.
        out: folder of the runs.
        recorded: runs that earlier pages tell of, by folder; they count where `out` has no finished one.
    """
    return [
        Result(
            cell,
            tuple(_outcome(run, out, recorded) for run in cell.runs),
            tuple(metrics for run in cell.timings if (metrics := _read(folder_of(run, out) / files.METRICS))),
        )
        for cell in cells
    ]


def baseline(results: Sequence[Result], of: Result) -> Result | None:
    """The result without pretraining that belongs to a result; the one with the paper's length where there are two."""
    same = [r for r in results if _finetuned_on(r) == _finetuned_on(of)]
    return next((r for arm in (SCRATCH, LONGER) for r in same if r.cell.arm == arm), None)


def _finetuned_on(result: Result) -> tuple[Any, ...]:
    cell = result.cell
    return cell.dataset, cell.model, cell.frames, cell.variant


def facts_of_data(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """For each recipe what labeled its frames, how many there are, and their fingerprints: one, unless data changed."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        for data in (outcome.data for outcome in result.outcomes if outcome.data):
            known = found.setdefault(
                result.cell.dataset, {"labels": data["labels"], "n_frames": data["n_frames"], "fingerprints": []}
            )
            known["fingerprints"] += [each for each in data["fingerprints"] if each not in known["fingerprints"]]
    return found


def _outcome(run: Run, out: Path, recorded: Mapping[str, Outcome]) -> Outcome:
    folder = folder_of(run, out)
    first = folder if run.parent is None else folder_of(run.parent, out)
    state = state_of(run, out)
    if state.status != "finished" and run.folder in recorded:
        return recorded[run.folder]
    metrics = _read(folder / files.METRICS) if state.status == "finished" else {}
    before = None if run.parent is None else state_of(run.parent, out)
    logs = read_log(folder / "finetune"), read_log(first / "pretrain")
    return Outcome(run, state, before, metrics, *logs, _facts_of_data(folder))


def _facts_of_data(folder: Path) -> dict[str, Any]:
    """What the folder of a run tells of its data."""
    data = _read(folder / files.RUN).get("data")
    if not data:
        return {}
    return {"labels": data["labels"], "n_frames": data["n_frames"], "fingerprints": [data["fingerprint"]]}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
