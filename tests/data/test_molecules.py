"""Molecules by connectivity, against molecules that are known and ASE's minimum image."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry import find_mic

from mdpot.errors import MdpotError
from mdpot.molecules import find_molecules, is_bond, longest_bond
from mdpot.neighbors import neighbor_list


def _find(atoms: Atoms, formula: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    pairs, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, longest_bond(atoms.numbers))
    vectors = atoms.positions[pairs[1]] - atoms.positions[pairs[0]] + shifts @ atoms.cell.array
    bonded = is_bond(atoms.numbers[pairs[0]], atoms.numbers[pairs[1]], (vectors**2).sum(1))
    found, images = find_molecules(atoms.numbers, pairs[:, bonded], shifts[bonded], formula)
    return found, atoms.positions + images @ atoms.cell.array


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_broken_shuffled_molecules_are_put_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = np.array([[9.0, 0, 0], [3.0, 8.5, 0], [-2.0, 1.0, 9.5]])
    names = ["H2O", "CH3CH2OH", "C6H6"]
    atoms = Atoms(cell=cell, pbc=True)
    # Offsets keep them apart from each other and from their images.
    for name, offset in zip(names, ([0.1, 0.1, 0.1], [0.5, 0.4, 0.6], [0.95, 0.95, 0.6]), strict=True):
        part = molecule(name)
        part.positions += np.array(offset) @ cell - part.positions.mean(0)
        atoms += part
    owner = np.repeat([0, 1, 2], [len(molecule(name)) for name in names])
    order = rng.permutation(len(atoms))
    mixed = atoms[order]
    mixed.wrap()
    found, whole = _find(mixed)
    for k in range(3):
        members = np.flatnonzero(owner[order] == k)
        assert len(set(found[members].tolist())) == 1
        original = atoms.positions[order][members]
        np.testing.assert_allclose(whole[members] - whole[members[0]], original - original[0], atol=1e-12, rtol=0)
    assert sorted(set(found.tolist())) == [0, 1, 2]
    # Numbered by their first atoms.
    assert [np.flatnonzero(found == k)[0] for k in range(3)] == sorted(np.flatnonzero(found == k)[0] for k in range(3))
    assert set(_find(mixed, "C6H6")[0].tolist()) == {-1, 0}


def test_networks_across_the_cell_are_no_molecules() -> None:
    for crystal in (bulk("Si"), bulk("Cu", cubic=True)):
        found, whole = _find(crystal)
        assert (found == -1).all()
        np.testing.assert_array_equal(whole, crystal.positions)
    chain = Atoms("C2", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 20, 20], pbc=True)
    assert (_find(chain)[0] == -1).all()
    chain.pbc = False
    assert (_find(chain)[0] == 0).all()


def test_ions_are_not_water() -> None:
    hydronium = Atoms("OH3", [[0, 0, 0], [0.98, 0, 0.1], [-0.49, 0.85, 0.1], [-0.49, -0.85, 0.1]])
    water = molecule("H2O")
    water.positions += 6
    hydroxide = Atoms("HO", [[12, 12, 12.96], [12, 12, 12]])
    found, _ = _find(hydronium + water + hydroxide, "H2O")
    assert found.tolist() == [-1] * 4 + [0] * 3 + [-1] * 2


def test_real_water_against_the_minimum_image(sample_frames) -> None:
    n_molecules = 0
    for frame in sample_frames:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True)
        found, whole = _find(atoms, "H2O")
        for k in range(found.max() + 1):
            members = np.flatnonzero(found == k)
            oxygen, (first, second) = (
                members[frame.numbers[members] == 8],
                members[frame.numbers[members] == 1],
            )
            assert len(oxygen) == 1
            for hydrogen in (first, second):
                raw = frame.positions[hydrogen] - frame.positions[oxygen[0]]
                shortest, length = find_mic(raw, frame.cell, pbc=True)
                np.testing.assert_allclose(whole[hydrogen] - whole[oxygen[0]], shortest, atol=1e-10)
                assert length < 1.27
        n_molecules += found.max() + 1
    assert n_molecules > 0.95 * sum(len(frame) for frame in sample_frames) / 3


def test_a_formula_that_is_none() -> None:
    with pytest.raises(MdpotError, match="chemical formula such as 'H2O'; got 'water!'"):
        _find(molecule("H2O"), "water!")
