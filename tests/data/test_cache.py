"""The cache of what took long: kept, found again, and never trusted where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpot.training.data import cache
from mdpot.training.data.reference import fit_reference
from mdpot.training.pair import fit_pair_energy

CODE = (fit_pair_energy,)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(cache, "LONG", -1.0)
    return tmp_path / "prepared"


def test_it_is_computed_once_for_a_key(folder: Path) -> None:
    calls: list[int] = []

    def compute() -> cache.Arrays:
        calls.append(1)
        return {"a": np.arange(3.0), "b": np.array(2.5)}

    for _ in range(3):
        found = cache.cached("kind", ["frames", 5.0], CODE, compute)
        assert found["a"].tolist() == [0.0, 1.0, 2.0]
        assert float(found["b"]) == 2.5
    assert len(calls) == 1
    cache.cached("kind", ["frames", 5.1], CODE, compute)
    cache.cached("other", ["frames", 5.0], CODE, compute)
    assert len(calls) == 3
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"PK nothing", None])
def test_a_damaged_file_is_made_anew(folder: Path, damage: bytes | None) -> None:
    cache.cached("kind", [1], CODE, lambda: {"a": np.arange(1000.0)})
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    assert cache.cached("kind", [1], CODE, lambda: {"a": np.ones(2)})["a"].tolist() == [1.0, 1.0]
    assert cache.cached("kind", [1], CODE, lambda: {"a": np.zeros(2)})["a"].tolist() == [1.0, 1.0]


def test_another_version_is_another_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.cached("kind", [1], CODE, lambda: {"a": np.zeros(1)})
    assert cache.cached("kind", [1], (fit_reference,), lambda: {"a": np.ones(1)})["a"].tolist() == [1.0]


def test_its_size_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 20_000)
    for n in range(10):
        cache.cached("kind", [n], CODE, lambda: {"a": np.zeros(1000)})
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20_000


def test_what_was_quick_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LONG", 1e9)
    cache.cached("kind", [1], CODE, lambda: {"a": np.zeros(1)})
    assert not folder.exists()
