"""What TensorBoard is told of a run."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from mdpot.training.listener import Listener
from mdpot.training.tensorboard import TensorBoardListener
from mdpot.training.trainer import Report


class Heard(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, stage: str, report: Report) -> None:
        self.steps.append(report.step)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what reads the file
def test_validations_are_written_and_all_is_passed_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    inner, before = Heard(), threading.active_count()
    with closing(TensorBoardListener(tmp_path / "events", inner)) as listener:
        listener.note("begins")
        listener.progress("finetune", Report(5, 20, 0.1, {"train/force_mae": 9.0}))
        assert not (tmp_path / "events").exists()
        for step, error in ((10, 4.0), (20, 2.0)):
            listener.progress("finetune", Report(step, 20, 0.2, {"step": step, "lr": 1e-3, "val/force_mae": error}))
    assert (inner.notes, inner.steps) == (["begins"], [5, 10, 20])
    assert threading.active_count() == before
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(found.Tags()["scalars"]) == {"finetune/lr", "finetune/val/force_mae"}
    assert [(event.step, event.value) for event in found.Scalars("finetune/val/force_mae")] == [(10, 4.0), (20, 2.0)]
