"""The curves of a run for TensorBoard, beside whoever else listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdpot.training.listener import Listener
from mdpot.training.trainer import Report


class TensorBoardListener(Listener):
    """Writes every validation as scalars named stage/split/quantity, and passes on all it hears.

    Args:
        folder: of the event files; made at the first validation.
        inner: who else listens.

    Raises:
        ModuleNotFoundError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, inner: Listener) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = lambda: SummaryWriter(str(folder))
        self._writer: Any = None
        self._inner = inner

    def note(self, text: str) -> None:
        """One line worth knowing."""
        self._inner.note(text)

    def progress(self, stage: str, report: Report) -> None:
        """Where a stage stands; validations are written."""
        self._inner.progress(stage, report)
        if not any(key.startswith("val/") for key in report.numbers):
            return
        if self._writer is None:
            self._writer = self._make()
        for key, value in report.numbers.items():
            if "/" in key or key == "lr":
                self._writer.add_scalar(f"{stage}/{key}", value, report.step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file, and ends the thread that writes it."""
        if self._writer is not None:
            self._writer.close()
