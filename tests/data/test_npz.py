"""The two kinds of npz archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file, read_frames
from mdpot.training.data.readers.npz import read_water_npz


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


@pytest.mark.parametrize("stated", [{}, {"e_unit": np.array("kcal/mol"), "r_unit": np.array("Ang")}])
def test_archives_of_md17_and_sgdml(tmp_path: Path, stated: dict) -> None:
    rng = np.random.default_rng(0)
    arrays = {"z": np.array([8, 1, 1]), "R": rng.normal(size=(2, 3, 3)), "F": rng.normal(size=(2, 3, 3))}
    np.savez(tmp_path / "a.npz", E=np.array([[-1.0], [-2.0]]), **arrays, **stated)
    reading = read_file(tmp_path / "a.npz")
    assert (reading.keys.energy, reading.keys.forces, reading.units.energy) == ("E", "F", "kcal/mol")
    assert reading.frames[1].energy == pytest.approx(-2 * units.kcal / units.mol, rel=1e-6)
    said = read_file(tmp_path / "a.npz", Asked(units="ase"))
    assert said.frames[1].energy == -2.0


GOOD = {
    "nuclear_charges": np.array([8, 1, 1]),
    "coords": np.random.default_rng(0).normal(size=(4, 3, 3)),
    "energies": np.arange(4.0),
    "forces": np.ones((4, 3, 3)),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coords": np.zeros((4, 3))}, r"positions must have the shape \[n_frames, n_atoms, 3\]; got \[4, 3\]"),
        ({"coords": np.zeros((0, 3, 3))}, r"positions must have the shape"),
        ({"coords": np.array(["a"] * 4)}, r"positions must be real numbers; got the type <U1"),
        ({"coords": np.zeros((4, 3, 3), complex)}, r"positions must be real numbers"),
        ({"nuclear_charges": np.array([8, 1])}, r"atomic numbers must be 3 integers.*got the shape \[2\]"),
        ({"nuclear_charges": np.array([8, 1, 119])}, r"a\.npz: atomic numbers go from 1 to 118; got 119"),
        ({"nuclear_charges": np.array([8, 1, np.inf])}, r"atomic numbers go from 1 to 118; got inf"),
        ({"nuclear_charges": np.array(8)}, r"atomic numbers must be 3 integers"),
        ({"nuclear_charges": np.array([8.5, 1, 1])}, r"atomic numbers must be 3 integers"),
        ({"energies": np.arange(3.0)}, r"energies must be 4, one for each frame; got the shape \[3\]"),
        ({"energies": np.array(1.0)}, r"energies must be 4"),
        ({"forces": np.ones((4, 3, 2))}, r"forces must have the shape of the positions, \[4, 3, 3\]; got \[4, 3, 2\]"),
        ({"forces": np.array([None] * 4)}, r"pickled objects"),
        ({"cells": np.eye(2)}, r"cells must have the shape \[4, 3, 3\]; got \[2, 2\]"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **{**GOOD, **change})
    with pytest.raises(MdpotError, match=message) as caught:
        read_file(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
