"""Files are told apart by their content."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file, read_frames


def test_kinds(tmp_path: Path, runner_text: str) -> None:
    (tmp_path / "plain.txt").write_text(runner_text)
    assert len(read_frames(tmp_path / "plain.txt")) == 12
    coords = np.arange(6.0).reshape(1, 2, 3)
    np.savez(tmp_path / "a.npz", nuclear_charges=np.array([1, 1]), coords=coords, energies=np.ones(1), forces=coords)
    assert len(read_frames(tmp_path / "a.npz")) == 1
    write(tmp_path / "b.extxyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    assert len(read_frames(tmp_path / "b.extxyz")) == 1


def test_frames_without_labels_take_none_from_the_others(tmp_path: Path) -> None:
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + 0.01 * n]]) for n in range(4)]
    for n, atoms in enumerate(frames[1:]):
        atoms.info["energy"], atoms.arrays["forces"] = -30.0 - n, np.full((2, 3), 0.1)
    write(tmp_path / "part.extxyz", frames)
    assert [frame.energy for frame in read_frames(tmp_path / "part.extxyz")] == [None, -30.0, -31.0, -32.0]


@pytest.mark.parametrize(
    ("module", "name", "ending"), [(gzip, "gzip", "gz"), (bz2, "bzip2", "bz2"), (lzma, "xz", "xz")]
)
def test_packed_files_are_unpacked_or_called_damaged(
    module: ModuleType, name: str, ending: str, tmp_path: Path, runner_text: str
) -> None:
    packed = module.compress(runner_text.encode())
    for file in ("packed", f"input.data.{ending}"):
        (tmp_path / file).write_bytes(packed)
        assert len(read_frames(tmp_path / file)) == 12
    table = tmp_path / f"table.csv.{ending}"
    write(tmp_path / "one.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    table.write_bytes(module.compress(b"file,gap\none.xyz,1.5\n"))
    assert read_file(table).frames[0].properties == {"gap": 1.5}
    (tmp_path / f"frames.{ending}").write_bytes(packed[:-20])
    with pytest.raises(MdpotError, match=f"the {name} file is truncated or damaged"):
        read_frames(tmp_path / f"frames.{ending}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"none\.xyz: no such file"):
        read_frames(tmp_path / "none.xyz")
    with pytest.raises(MdpotError, match="no output of a calculation and no file of frames"):
        read_frames(tmp_path)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(MdpotError, match="empty"):
        read_frames(tmp_path / "empty.npz")
