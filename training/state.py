"""What a stage of a training keeps in its folder: its state, its best weights and its log."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mdpot.errors import MdpotError
from mdpot.files import sealed, sealed_content, write_bytes, write_text
from mdpot.training.average import MovingAverage
from mdpot.training.process import ALONE, Process

LAST, BEST, LOG = "last.pt", "best.pt", "metrics.jsonl"


@dataclass
class Progress:
    """Where a stage stands; saved with the weights."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    best_digest: str = ""


@dataclass
class State:
    """A stage in memory, and what of it survives in its folder.

    Attributes:
        folder: holds last.pt, best.pt and metrics.jsonl; made where it is missing.
        potential: in training.
        average: the moving average of its weights, if there is one.
        optimizer: of its weights.
        run: what tells this run from others; the same on resuming.
        process: the first of several reads and writes the files.
        progress: where the stage stands.
    """

    folder: Path
    potential: torch.nn.Module
    average: MovingAverage | None
    optimizer: torch.optim.Optimizer
    run: dict[str, Any]
    process: Process = ALONE
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        if self.process.writes:
            self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def best(self) -> torch.nn.Module:
        """The network that is validated and kept: that of the averaged weights, where there are any."""
        return self.potential if self.average is None else self.average.module

    def resume(self) -> Progress:
        """Takes up the state that is in the folder, if any and of this run, and cuts the log back to it."""
        state = self.process.from_first(self._saved)
        if state is None:
            return self.progress
        with _readable(self.folder / LAST):
            self.potential.load_state_dict(state["potential"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
        if self.process.writes:
            _cut(self.folder / LOG, self.progress.step)
        return self.progress

    def _saved(self) -> dict[str, Any] | None:
        """The state that is in the folder; where there is none the log is of no use."""
        if not (self.folder / LAST).exists():
            (self.folder / LOG).unlink(missing_ok=True)
            return None
        with _readable(self.folder / LAST):
            state = _load(self.folder / LAST, self._device)
            # Keys that came into the schema since are no difference; a state of before there was this has none.
            there = state.get("run", {})
            if different := [key for key in there.keys() & self.run.keys() if there[key] != self.run[key]]:
                raise ValueError(f"it is of another run, which differs in {', '.join(sorted(different))}")
        return state

    def keep_best(self, loss: float | None) -> None:
        """Saves the weights if this validation is the best so far, or if it cannot tell: no molecule in it was
        masked."""
        progress = self.progress
        if loss is None or loss < progress.best_loss:
            progress.best_loss = progress.best_loss if loss is None else loss
            progress.best_step, progress.stale = progress.step, 0
            if self.process.writes:
                save(self.folder / BEST, self.best.state_dict())
                progress.best_digest = _digest(self.folder / BEST)
        else:
            progress.stale += 1

    def log(self, line: dict[str, float]) -> None:
        """Adds a line to the log."""
        if self.process.writes:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Writes all that `resume` takes up."""
        if self.process.writes:
            state: dict[str, Any] = {
                "run": self.run,
                "potential": self.potential.state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "progress": asdict(self.progress),
            }
            save(self.folder / LAST, state)

    def take_best(self) -> None:
        """Leaves the best weights in the network of the process that has the files."""
        if not self.process.writes:
            return
        with _readable(self.folder / BEST):
            self.potential.load_state_dict(_load(self.folder / BEST, self._device))
            if self.progress.best_digest not in ("", _digest(self.folder / BEST)):
                raise ValueError("it is of another run")

    @property
    def _device(self) -> torch.device:
        return next(self.potential.parameters()).device


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a state with its checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, sealed(buffer.getvalue()))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote; raises many things where that is no such state."""
    return torch.load(io.BytesIO(sealed_content(path)), map_location=device, weights_only=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what torch raises on a state that it cannot read, or that is of another network, into one line."""
    try:
        yield
    except Exception as error:  # what unpickling raises depends on what it meets
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MdpotError(
            f"{str(path)!r} is damaged or of another network: {reason}. "
            f"Remove the folder {str(path.parent)!r} to do this stage again."
        ) from None


def _cut(log: Path, step: int) -> None:
    """Takes the lines beyond a step out of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if log.exists() else []
    write_text(log, "".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """The step of a line of the log; a line that was cut off counts as beyond the end."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
