"""The two kinds of npz archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.npz import read_water_npz
from mdpot.training.data.readers import read_frames


def test_water_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n_atoms in (3, 6):
        np.savez(
            tmp_path / f"scan_water_{n_atoms}atoms.npz",
            numbers=np.tile(np.array([8, 1, 1], dtype=np.uint8), n_atoms // 3),
            positions=rng.normal(size=(7, n_atoms, 3)).astype(np.float32),
            forces=rng.normal(size=(7, n_atoms, 3)).astype(np.float32),
            energies=rng.normal(size=7),
            cells=np.tile(np.eye(3) * 9, (7, 1, 1)),
            source=np.array([f"run/{k}" for k in range(7)]),
        )
    frames = read_water_npz(sorted(tmp_path.glob("*.npz")))
    assert [len(frame) for frame in frames] == [3] * 7 + [6] * 7
    assert len({frame.group for frame in frames}) == 14
    assert frames[0].positions.dtype == np.float64
    assert frames[0].pbc.all()
    assert len(read_frames(tmp_path / "scan_water_6atoms.npz")) == 7


def test_rmd17_archives_in_electronvolts(tmp_path: Path) -> None:
    path = tmp_path / "any.npz"
    coords = np.random.default_rng(0).normal(size=(2, 3, 3))
    np.savez(
        path,
        nuclear_charges=np.array([8, 1, 1]),
        coords=coords,
        energies=np.array([-1.0, -2.0]),
        forces=coords,
    )
    frames = read_frames(path)
    assert frames[1].energy == pytest.approx(-2 * units.kcal / units.mol, rel=1e-6)
    assert frames[1].forces is not None
    np.testing.assert_allclose(frames[1].forces, coords[1] * units.kcal / units.mol, rtol=1e-6)
    np.testing.assert_array_equal(frames[1].positions, coords[1])
    assert not frames[1].pbc.any()


def test_bad_archives(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(MdpotError, match=r"other\.npz: an archive of frames holds .* got weights"):
        read_frames(path)
    with pytest.raises(MdpotError, match="lacks"):
        read_water_npz([path])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(MdpotError, match="truncated or damaged"):
        read_frames(path)
    with pytest.raises(MdpotError, match="no such file"):
        read_frames(tmp_path / "none.npz")
