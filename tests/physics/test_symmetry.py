"""What leaves energies alone: translation, rotation, order, the choice of images and of the cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from mdpot.heads import Potential
from mdpot.training.data.frames import Frame

from .conftest import CUTOFF, SYSTEMS, WITH_VECTOR, assert_equal, assert_same, compute, everything


def test_translation(potential: Potential, atoms: Atoms) -> None:
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    moved = atoms.copy()
    moved.positions += [1.234, -7.7, 3.1]
    assert_same(compute(potential, moved, outputs=everything(potential, atoms)), expected)


def random_rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mirror", [False, True], ids=["rotation", "reflection"])
def test_rotation_and_reflection(equivariant: Potential, atoms: Atoms, seed: int, mirror: bool) -> None:
    turn = random_rotation(seed) * (-1 if mirror else 1)
    expected = compute(equivariant, atoms, outputs=everything(equivariant, atoms))
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T
    turned.set_cell(atoms.cell.array @ turn.T)
    assert_same(compute(equivariant, turned, outputs=everything(equivariant, atoms)), expected, rotation=turn)


def test_permutation(potential: Potential, atoms: Atoms) -> None:
    order = np.random.default_rng(2).permutation(len(atoms))
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    assert_same(compute(potential, atoms[order], outputs=everything(potential, atoms)), expected, order=order)


def test_wrapping(potential: Potential, atoms: Atoms) -> None:
    """Whole cells away, each atom somewhere else."""
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    jumps = np.random.default_rng(3).integers(-3, 4, (len(atoms), 3)) * atoms.pbc
    jumped = atoms.copy()
    jumped.positions += jumps @ atoms.cell.array
    assert_same(compute(potential, jumped, outputs=everything(potential, atoms)), expected)


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
        [[1, 2, 0], [0, 1, 0], [3, -1, 1]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
    ],
    ids=["a2+a1", "slanted", "left-handed"],
)
def test_another_cell_of_the_same_lattice(potential: Potential, atoms: Atoms, rows: list[list[int]]) -> None:
    matrix = np.array(rows)
    changes = matrix != np.eye(3)
    if not atoms.pbc[changes.any(0) | changes.any(1)].all():
        pytest.skip("for other periodic directions")
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    other = atoms.copy()
    other.set_cell(matrix @ atoms.cell.array)
    assert_same(compute(potential, other, outputs=everything(potential, atoms)), expected)


def test_supercell(potential: Potential, atoms: Atoms) -> None:
    times = np.where(atoms.pbc, 2, 1)
    if (times == 1).all():
        pytest.skip("nothing is periodic")
    n = int(times.prod())
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    found = compute(potential, atoms.repeat(times), outputs=everything(potential, atoms))
    assert_equal(found["energy"], n * expected["energy"], "energy")
    assert_equal(found["interaction"], n * expected["interaction"], "interaction")
    for key in ("forces", "vector", "energies"):
        repeats = [n] + [1] * (expected[key].dim() - 1)
        assert_equal(found[key], expected[key].repeat(repeats), key)
    if "stress" in expected:
        assert_equal(found["stress"], expected["stress"], "stress")


def test_isolated_copies_add_up(potential: Potential, atoms: Atoms) -> None:
    """A copy outside the cutoff, along a direction that is not periodic."""
    if atoms.pbc.all():
        pytest.skip("no direction to put a copy")
    axis = int(np.flatnonzero(~atoms.pbc)[-1])
    normal = np.eye(3)[axis]
    if atoms.pbc.any():
        normal = np.linalg.svd(atoms.cell.array[atoms.pbc])[2][-1]
    both = atoms.copy()
    other = atoms.copy()
    other.positions += normal * (np.ptp(atoms.positions @ normal) + CUTOFF + 1e-6)
    both += other
    alone, found = compute(potential, atoms, outputs=WITH_VECTOR), compute(potential, both, outputs=WITH_VECTOR)
    assert_equal(found["interaction"], 2 * alone["interaction"], "interaction")
    for key in ("forces", "vector", "energies"):
        assert_equal(found[key], torch.cat([alone[key], alone[key]]), key)


def test_a_linear_molecule_is_pushed_along_its_axis(equivariant: Potential, sample: list[Frame]) -> None:
    atoms = SYSTEMS["linear molecule"](sample)
    out = compute(equivariant, atoms, outputs=WITH_VECTOR)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    for key in ("forces", "vector"):
        assert float(out[key].abs().max()) > 0
        across = out[key] - (out[key] @ axis).unsqueeze(1) * axis
        assert_equal(across, torch.zeros_like(across), key)
