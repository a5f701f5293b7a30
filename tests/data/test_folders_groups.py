"""Folders of calculations: which frames stay together in a split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from ase.io import write

from mdpot.training.data.readers import read_file
from mdpot.training.data.reading import Reading
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.splits import split_by_group

from .metals import coppers
from .outputs import NEED, put
from .vasp import vasprun


def test_runs_of_several_frames_stay_together(tmp_path: Path) -> None:
    for n in range(12):
        put(tmp_path / f"run{n}" / "vasprun.xml", vasprun(coppers(5, seed=n)))
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames] == [f"run{n}/vasprun.xml" for n in range(12) for _ in range(5)]
    assert reading.frames[7].file == "run1/vasprun.xml, frame 2"
    dataset = load_dataset("custom", tmp_path)
    splits = split_by_group([frame.group for frame in dataset.frames])
    found = [{dataset.frames[n].group for n in rows} for rows in splits.values()]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert dataset.labels.startswith(f"as in {tmp_path.name}: 12 vasprun.xml: run0/vasprun.xml to run11/")


def test_series_of_single_frames_are_groups(tmp_path: Path) -> None:
    """Of twelve systems with three frames each, in files or in folders side by side."""
    for n in range(12):
        for k, atoms in enumerate(coppers(3, seed=n)):
            if n % 2:
                (tmp_path / f"s{n}").mkdir(exist_ok=True)
                write(tmp_path / f"s{n}" / f"frame_{k}.extxyz", atoms)
            else:
                (tmp_path / f"s{n}" / f"{k}").mkdir(parents=True)
                write(tmp_path / f"s{n}" / f"{k}" / "frame.extxyz", atoms)
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames] == [f"s{n}" for n in range(12) for _ in range(3)]


def neighbors_apart(reading: Reading) -> int:
    """How many pairs of frames, one after the other, are of two groups."""
    groups = [frame.group for frame in reading.frames]
    return sum(one != other for one, other in pairwise(groups))


@pytest.mark.parametrize("name", ["step_{}/scf/out.xyz", "T300/step_{}/scf_{}/out.xyz", "step_{}.xyz", "{}/out.xyz"])
def test_single_frames_are_a_series_however_deep_they_lie(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdpot.training.data.frames.N_CHUNKS", 20)
    for n, atoms in enumerate(coppers(60)):
        path = tmp_path / name.format(n, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, atoms, format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    assert neighbors_apart(reading) == 19  # runs of three frames


@pytest.mark.parametrize("name", ["extra.xyz", "c0/opt.xyz", "relax/opt.xyz"])
@pytest.mark.parametrize("size", [2, 5])
def test_a_trajectory_among_single_frames_leaves_them_a_series(
    tmp_path: Path, name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdpot.training.data.frames.N_CHUNKS", 20)
    for n, atoms in enumerate(coppers(60)):
        path = tmp_path / (f"c{n}/out.xyz" if name.startswith("c0") else f"c{n}.xyz")
        path.parent.mkdir(exist_ok=True)
        write(path, atoms, format="extxyz")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(tmp_path / name, coppers(size, seed=1), format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    assert neighbors_apart(reading) <= 22
    assert len({frame.group.split("#")[0] for frame in reading.frames}) == 2
    # What tells ten groups apart is not cut, and the series is one of them.
    for n in range(10):
        write(tmp_path / f"opt{n}.xyz", coppers(2, seed=n + 2), format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    series = {frame.group for frame in reading.frames if ", frame" not in frame.file}
    assert series == {"."}
    assert len({frame.group for frame in reading.frames}) == 12


def test_names_of_groups_in_the_files_are_kept(tmp_path: Path) -> None:
    for n in range(3):
        frames = coppers(8, seed=n)
        for k, atoms in enumerate(frames):
            atoms.info["group"] = f"T{k // 2}"
        write(tmp_path / f"{n}.extxyz", frames)
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames[::2]] == [f"{n}.extxyz: T{k}" for n in range(3) for k in range(4)]
