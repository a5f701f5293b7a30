"""Rows that grow in memory or, beyond a size, in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mdpot import MdpotError
from mdpot.training.data import rows
from mdpot.training.data.frames import Frame
from mdpot.training.data.rows import Rows
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.store import Store


@pytest.mark.parametrize("limit", [rows.MOST_IN_MEMORY, 0, 20])
@pytest.mark.parametrize("largest", [127, 128, 2**31 - 1])
def test_rows_are_those_that_were_appended(limit: int, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_IN_MEMORY", limit)
    parts = [np.arange(n * 3).reshape(n, 3) - 4 for n in (2, 0, 5)]
    parts[2][1, 1] = largest
    found = Rows(3, np.int8)
    for part in parts:
        found.append(part)
    assert found.in_file == (limit < 21)
    taken = found.take()
    assert taken.dtype == (torch.int8 if largest < 128 else torch.int32)
    np.testing.assert_array_equal(taken.numpy(), np.concatenate(parts))


def test_no_rows_are_an_empty_tensor() -> None:
    assert Rows(2, np.int32).take().shape == (0, 2)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return load_dataset("water-rpbe").frames[:6]


def test_batches_are_the_same_from_a_file(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Store(frames, 4.0)
    monkeypatch.setattr(rows, "MOST_IN_MEMORY", 1000)
    mapped = Store(frames, 4.0)
    monkeypatch.undo()
    assert mapped._in_files
    chosen = torch.tensor([4, 0, 4])
    for name, value in vars(inside.batch(chosen).graph).items():
        torch.testing.assert_close(getattr(mapped.batch(chosen).graph, name), value, rtol=0, atol=0)
    assert mapped.fingerprint() == inside.fingerprint()


def test_a_disk_that_cannot_take_them_is_named(
    frames: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(rows, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(rows, "cache_folder", lambda: file)
    with pytest.raises(MdpotError, match=r"cannot be written to .*file.* Make room there"):
        Store(frames, 4.0)
