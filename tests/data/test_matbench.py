"""MatBench's tasks and their official folds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mdpot import MdpotError
from mdpot.training.data.catalog import SOURCES
from mdpot.training.data.frames import Frame
from mdpot.training.data.matbench import TASKS, official_folds
from mdpot.training.data.sources import load_dataset

DATA = Path(os.environ.get("MDPOT_DATA", "nowhere")) / "matbench"


def rows(indices: list[int]) -> list[Frame]:
    one = np.array([14]), np.zeros((1, 3)), 5 * np.eye(3), np.ones(3, bool)
    return [Frame(*one, index=n) for n in indices]


def test_folds_divide_the_official_rows() -> None:
    task = TASKS["jdft2d"]
    folds = official_folds(task, rows(list(range(task.n_rows))))
    assert [len(fold) for fold in folds] == [128, 127, 127, 127, 127]
    assert (np.sort(np.concatenate(folds)) == np.arange(task.n_rows)).all()
    some = list(range(0, task.n_rows, 3))
    for whole, part in zip(folds, official_folds(task, rows(some)), strict=True):
        assert {some[n] for n in part} == set(whole.tolist()) & set(some)
    with pytest.raises(MdpotError, match="rows of this task go from 0 to 635"):
        official_folds(task, rows([0, 636]))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs MDPOT_DATA with matbench/")
@pytest.mark.parametrize(("name", "mae", "deviation"), [("jdft2d", 67.2851, 10.1832), ("phonons", 323.9822, 17.7269)])
def test_the_mean_of_the_training_targets_has_the_errors_of_the_official_board(
    name: str, mae: float, deviation: float
) -> None:
    """The board's entry "Dummy": the mean of the training targets, tested on each of the five folds."""
    dataset = load_dataset(f"matbench-{name}", DATA)
    values = np.array([frame.properties[dataset.property] for frame in dataset.frames])
    errors = []
    for test in dataset.folds:
        mean = np.delete(values, test).mean()
        errors.append(np.abs(values[test] - mean).mean())
    assert np.mean(errors) == pytest.approx(mae, abs=1e-4)
    assert np.std(errors) == pytest.approx(deviation, abs=1e-4)


def test_every_task_is_a_source_that_can_be_fetched() -> None:
    for name, task in TASKS.items():
        source = SOURCES[f"matbench-{name.replace('_', '-')}"]
        assert (source.property, source.unit) == (task.column, task.unit)
        assert source.download is not None
        address, checksum = source.download.resolve(*source.download.archives)
        assert address.endswith(f"/matbench_{name}.json.gz")
        assert checksum is not None
        assert len(checksum.removeprefix("sha256:")) == 64
