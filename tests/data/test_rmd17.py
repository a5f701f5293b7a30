"""rMD17 with its official splits, in both layouts, and without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data import rmd17
from mdpot.training.data.rmd17 import read_all_rmd17, read_rmd17


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """5,000 frames whose energy is their row number."""
    path = tmp_path / "rmd17" / "npz_data" / "rmd17_ethanol.npz"
    path.parent.mkdir(parents=True)
    coords = np.random.default_rng(0).normal(size=(5000, 2, 3))
    np.savez(path, nuclear_charges=np.array([6, 8]), coords=coords, energies=np.arange(5000.0), forces=coords)
    return path


def _write_splits(folder: Path, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for kind, start in (("train", first), ("test", 3000)):
        np.savetxt(folder / f"index_{kind}_01.csv", np.arange(start, start + 1000), fmt="%d")


@pytest.mark.parametrize("below", ["splits", "splits/ethanol"])
def test_official_splits(archive: Path, below: str) -> None:
    _write_splits(archive.parent.parent / below)
    frames, splits = read_rmd17(archive)
    assert all(frame.group == str(frame.index) for frame in frames)  # its place in the archive
    assert {name: len(indices) for name, indices in splits.items()} == {
        "train": 950,
        "validation": 50,
        "test": 1000,
    }
    rows = {name: {int(frames[k].group) for k in indices} for name, indices in splits.items()}
    assert rows["train"] | rows["validation"] == set(range(1000))
    assert rows["test"] == set(range(3000, 4000))
    again = read_rmd17(archive)[1]
    assert all(np.array_equal(splits[name], again[name]) for name in splits)


def test_without_split_files_frames_are_spread_over_the_file(archive: Path) -> None:
    frames, splits = read_rmd17(archive)
    assert {name: len(indices) for name, indices in splits.items()} == {
        "train": 950,
        "validation": 50,
        "test": 1000,
    }
    rows = sorted(int(frame.group) for frame in frames)
    assert len(set(rows)) == 2000
    assert rows[0] == 0
    assert rows[-1] == 4999


def test_bad_splits(archive: Path) -> None:
    _write_splits(archive.parent.parent / "splits", first=4500)
    with pytest.raises(MdpotError, match="5000 frames, but the official split names"):
        read_rmd17(archive)
    (archive.parent.parent / "splits" / "index_train_01.csv").write_text("row\n")
    with pytest.raises(MdpotError, match="one row number a line"):
        read_rmd17(archive)


def test_all_molecules_together_are_split_as_each_by_itself(data_folder: Path) -> None:
    files = [data_folder / "rmd17" / "npz_data" / f"rmd17_{name}.npz" for name in ("ethanol", "uracil")]
    frames, splits = read_all_rmd17(files)
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 1900, "validation": 100, "test": 2000}
    for n, file in enumerate(files):
        alone, parts = read_rmd17(file)
        for name, indices in parts.items():
            mine = splits[name][n * len(indices) : (n + 1) * len(indices)]
            assert all(
                np.array_equal(frames[i].positions, alone[j].positions) for i, j in zip(mine, indices, strict=True)
            )


def test_the_protocol_of_the_paper(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MdpotError, match=r"takes 50,000 training frames, and the file holds 5,000"):
        read_rmd17(archive, "paper")
    monkeypatch.setattr(rmd17, "PAPER_TRAIN", 3000)
    monkeypatch.setattr(rmd17, "PAPER_VALIDATION", 100)
    frames, splits = read_rmd17(archive, "paper")
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 3000, "validation": 100, "test": 1900}
    rows = [int(frames[k].group) for indices in splits.values() for k in indices]
    assert sorted(rows) == list(range(5000))
    assert rows != sorted(rows)


def test_real_ones(data_folder: Path) -> None:
    frames, splits = read_rmd17(data_folder / "rmd17" / "npz_data" / "rmd17_ethanol.npz")
    assert len(frames) == 2000
    assert len(splits["train"]) == 950
    assert frames[0].numbers.tolist().count(6) == 2
