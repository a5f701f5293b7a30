"""Forces and stress against finite differences of the energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot.graph import Graph
from mdpot.heads import Potential
from mdpot.models import MODELS
from mdpot.training.data.frames import Frame

from .conftest import CUTOFF, ELEMENTS, SYSTEMS, build, check_forces, compute, energies_along, slope, waters


def test_forces_are_minus_the_gradient(conservative: Potential, atoms: Atoms) -> None:
    check_forces(conservative, atoms)


@pytest.mark.parametrize("seed", range(3))
def test_forces_at_random_points(conservative: Potential, seed: int) -> None:
    """Far from anything a molecule does: atoms thrown into a slanted cell, down to 0.5 Å apart."""
    rng = np.random.default_rng(seed)
    cell = np.array([[4.0, 0, 0], [2.2, 3.9, 0], [-1.3, 1.9, 3.8]])
    atoms = Atoms(rng.choice(ELEMENTS, 9), rng.uniform(-1, 2, (9, 3)) @ cell, cell=cell, pbc=True)
    while (near := atoms.get_all_distances(mic=True) + 9 * np.eye(9)).min() < 0.5:
        atoms.positions[near.min(1).argmin()] = rng.uniform(-1, 2, 3) @ cell
    check_forces(conservative, atoms)


@pytest.mark.parametrize("name", MODELS)
def test_forces_at_the_size_of_the_architecture(name: str, sample: list[Frame]) -> None:
    potential = build(name, small=False)
    if not potential.conservative:
        pytest.skip("force-centric")
    check_forces(potential, SYSTEMS["flattest real cell"](sample), n_random=1)


def check_stress(potential: Potential, atoms: Atoms, step: float = 3e-5) -> None:
    stress = compute(potential, atoms, outputs=["stress"])["stress"][0].numpy()
    np.testing.assert_allclose(stress, stress.T, atol=1e-14)
    basis = [np.eye(3), stress / np.linalg.norm(stress)]
    for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[a, b] = strain[b, a] = 1.0
        basis.append(strain)
    for strain in basis:

        def move(copy: Atoms, t: float, strain: np.ndarray = strain) -> None:
            copy.set_cell(atoms.cell.array @ (np.eye(3) + t * strain), scale_atoms=True)

        found = slope(energies_along(potential, atoms, move), step) / atoms.get_volume()
        assert abs(found - (stress * strain).sum()) <= 1e-6 * np.abs(stress).max()


def test_stress_is_the_strain_derivative(conservative: Potential, atoms: Atoms) -> None:
    if not atoms.pbc.all():
        pytest.skip("stress needs three periodic directions")
    check_stress(conservative, atoms)


def test_no_net_force_and_no_torque(conservative: Potential, atoms: Atoms) -> None:
    forces = compute(conservative, atoms)["forces"].numpy()
    scale = max(np.abs(forces).max(), 1.0)
    assert np.abs(forces.sum(0)).max() < 1e-11 * scale
    if not atoms.pbc.any():
        assert np.abs(np.cross(atoms.positions, forces).sum(0)).max() < 1e-10 * scale


def test_the_second_derivative_in_training_mode(conservative: Potential) -> None:
    """What training on forces follows: d|F|²/dx is -2 F · dF/dx by finite differences."""
    atoms = waters(3, np.diag([4.0, 4.5, 5.0]), (True, True, True))
    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    conservative.train()
    direction = torch.tensor(np.random.default_rng(1).normal(size=(len(atoms), 3)))

    def square(t: float) -> float:
        moved = graph.replace(positions=graph.positions + t * direction)
        return float(conservative(*moved.inputs())["forces"].detach().square().sum())

    positions = graph.positions.clone().requires_grad_()
    forces = conservative(*graph.replace(positions=positions).inputs())["forces"]
    (gradient,) = torch.autograd.grad(forces.square().sum(), [positions])
    found = slope(lambda ts: np.array([square(t) for t in ts]), 3e-4)
    assert found == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_structures_without_a_volume_leave_the_stress_of_others_alone(conservative: Potential) -> None:
    """Training on stress in a batch that also holds a molecule: no not-a-number reaches a weight."""
    atoms = [waters(2, np.diag([4.0, 4.0, 5.0]), (True,) * 3), molecule("H2O"), Atoms("O")]
    conservative.train()
    stress = compute(conservative, atoms, outputs=["stress"])["stress"]
    stress[0].square().sum().backward()
    gradients = [w.grad for w in conservative.parameters() if w.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
