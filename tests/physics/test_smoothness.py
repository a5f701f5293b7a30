"""Energies and forces while atoms cross the cutoff."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from mdpot.heads import Potential
from mdpot.training.data.frames import Frame

from .conftest import CUTOFF, SYSTEMS, compute, sweep


@pytest.mark.parametrize("pair", ["OH", "HO", "OO", "CC"])
def test_a_pair_parts_smoothly(potential: Potential, pair: str) -> None:
    """Outside the cutoff exactly nothing is left of the pair; inside, forces grow like (cutoff - d)²."""
    atoms = Atoms(pair, [[0, 0, 0], [CUTOFF, 0, 0]])
    away = np.array([[0, 0, 0], [1.0, 0, 0]])
    alone = float(compute(potential, Atoms(pair, [[0, 0, 0], [3 * CUTOFF, 0, 0]]))["interaction"])
    distances = (np.arange(-200, 200) + 0.5) * 1e-4
    energy, forces, vector, edges = sweep(potential, atoms, away, distances)
    inside = distances < 0
    assert (edges == np.where(inside, 2, 0)).all()
    np.testing.assert_allclose(energy[~inside], alone, rtol=0, atol=1e-14)
    assert (forces[~inside] == 0).all()
    assert (vector[~inside] == 0).all()
    # The size of things up to 0.4 Å before the cutoff is the measure of what is small at it.
    energy_near, near, near_vector, _ = sweep(potential, atoms, away, np.linspace(-0.4, 0, 9))
    force = np.abs(near).max()
    assert force > 1e-4
    assert np.abs(forces[0]).max() < 3e-2 * force  # (0.02 / 0.4)² of it, times a few
    assert np.abs(forces[199]).max() < 1e-6 * force  # at 5e-5 Å
    assert np.abs(vector[199]).max() <= 1e-6 * np.abs(near_vector).max()
    assert np.abs(energy[199] - alone) < 1e-10 * force
    assert np.abs(np.diff(forces, axis=0)).max() < 1e-3 * force
    if potential.conservative:
        assert np.abs(np.diff(energy)).max() < 1e-4 * np.abs(forces).max() * 1.1 + 1e-14
    else:
        assert np.abs(np.diff(energy)).max() < 1e-3 * np.ptp(energy_near)


def test_energy_and_forces_are_continuous_in_a_liquid(potential: Potential, sample: list[Frame]) -> None:
    """While atoms move through a dense frame, neighbors come and go; no step differs from its fellows."""
    atoms = SYSTEMS["flattest real cell"](sample)
    direction = np.random.default_rng(6).normal(size=(len(atoms), 3))
    step, n = 1e-4, 201
    energy, forces, vector, edges = sweep(potential, atoms, direction, step * np.arange(1 - n, 1))
    assert len(np.flatnonzero(np.diff(edges))) >= 5
    for values in (energy, forces, vector):
        # Steps of a smooth function hardly differ from each other; a jump stands out.
        values = values.reshape(n, -1)
        largest_step = np.abs(np.diff(values, axis=0)).max()
        assert np.abs(np.diff(values, n=2, axis=0)).max() < 0.1 * largest_step
    # And the energy is the integral of the force (Simpson), crossings included.
    if potential.conservative:
        work = -np.einsum("naj,aj->n", forces, direction)
        simpson = (work[:-2:2] + 4 * work[1:-1:2] + work[2::2]) * step / 3
        np.testing.assert_allclose(simpson, energy[2::2] - energy[:-2:2], atol=1e-9 * np.abs(work).max())
