"""Where a run starts: fresh boxes of water, and structures from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLengths
from ase.io import write
from ase.neighborlist import neighbor_list

from mdpot.errors import MdpotError
from mdpot.simulate import water_box
from mdpot.simulate.box import read_start


@pytest.mark.parametrize("n_molecules", [1, 2, 3, 7, 27, 50, 64, 65, 130])
def test_water_box(n_molecules: int) -> None:
    box = water_box(n_molecules, np.random.default_rng(n_molecules))
    assert box.get_chemical_symbols() == ["O", "H", "H"] * n_molecules
    assert box.pbc.all()
    grams = box.get_masses().sum() / 6.02214076e23
    assert grams / (box.get_volume() * 1e-24) == pytest.approx(1.0, abs=1e-4)

    i, j, d, s = neighbor_list("ijdS", box, 3.5)  # ASE's, independent of ours
    same = (i // 3 == j // 3) & (s == 0).all(axis=1)
    z = box.numbers

    def shortest(a: int, b: int, inside: np.ndarray) -> float:
        return d[(z[i] == a) & (z[j] == b) & inside].min(initial=np.inf)

    assert np.sort(d[same & (z[i] == 8)]) == pytest.approx(0.9572)
    assert d[same & (z[i] == 1) & (z[j] == 1)] == pytest.approx(1.5139, abs=1e-4)
    assert shortest(8, 8, ~same) > 2.7
    assert shortest(8, 1, ~same) > 1.5
    assert shortest(1, 1, ~same) > 1.6


def test_water_box_is_random_and_seeded() -> None:
    one, same, other = (water_box(8, np.random.default_rng(seed)).positions for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_orientations_are_not_aligned() -> None:
    box = water_box(216, np.random.default_rng(0))
    oxygen = box.positions[::3]
    dipoles = box.positions[1::3] + box.positions[2::3] - 2 * oxygen
    dipoles /= np.linalg.norm(dipoles, axis=1, keepdims=True)
    assert np.linalg.norm(dipoles.mean(axis=0)) < 0.25


def test_read_start_takes_the_last_frame_and_turns_a_left_handed_cell(tmp_path: Path) -> None:
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=0)
    left = copper.copy()
    left.set_cell(copper.cell.array[[1, 0, 2]])
    write(tmp_path / "two.xyz", [Atoms("H"), left], format="extxyz")
    atoms = read_start(str(tmp_path / "two.xyz"), np.random.default_rng(0))
    assert np.linalg.det(atoms.cell.array) > 0
    assert atoms.get_all_distances(mic=True) == pytest.approx(copper.get_all_distances(mic=True), abs=1e-6)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("water:", "water:N with a positive count"),
        ("water:0", "water:N with a positive count"),
        ("water:many", "water:N with a positive count"),
        ("no-such-file.xyz", "is not there"),
    ],
)
def test_read_start_refuses(start: str, message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        read_start(start, np.random.default_rng(0))


def test_read_start_refuses_what_is_no_structure(tmp_path: Path) -> None:
    (tmp_path / "text.xyz").write_text("hello\n")
    with pytest.raises(MdpotError, match=r"START .* cannot be read"):
        read_start(str(tmp_path / "text.xyz"), np.random.default_rng(0))


@pytest.mark.parametrize("constraint", [FixAtoms([0]), FixBondLengths([[0, 1]])])
def test_read_start_refuses_constraints(tmp_path: Path, constraint: FixAtoms | FixBondLengths) -> None:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], constraint=constraint)
    write(tmp_path / "fixed.traj", atoms)
    with pytest.raises(MdpotError, match=rf"holds constraints \({type(constraint).__name__}\)"):
        read_start(str(tmp_path / "fixed.traj"), np.random.default_rng(0))


def test_read_start_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="is a folder"):
        read_start(str(tmp_path), np.random.default_rng(0))


def test_read_start_says_that_velocities_are_drawn_anew(tmp_path: Path) -> None:
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], momenta=[[0, 0, 1], [0, 0, -1]])
    write(tmp_path / "moving.extxyz", atoms)
    with pytest.warns(UserWarning, match="holds velocities, which are not used"):
        found = read_start(str(tmp_path / "moving.extxyz"), np.random.default_rng(0))
    assert not found.has("momenta")


@pytest.mark.parametrize(("n_molecules", "density"), [(0, 1.0), (-1, 1.0), (8, 0.0), (8, float("nan"))])
def test_no_water_at_all(n_molecules: int, density: float) -> None:
    with pytest.raises(MdpotError, match="n_molecules and density must be positive; got"):
        water_box(n_molecules, np.random.default_rng(0), density)
