"""A set of many elements, most pairs of which are rare: nothing that is fitted to it may do harm."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from mdpot.training.contacts import closest_approach, shortest_contacts
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store
from mdpot.training.pair import PRIOR_ROWS, evaluate_pair_energy, fit_pair_energy

CUTOFF = 4.5
ELEMENTS = list(range(20, 40))


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Alloys of three of twenty metals each, with forces that no pair of elements can explain: noise."""
    rng, frames = np.random.default_rng(0), []
    for n in range(40):
        atoms = bulk("Cu", cubic=True, a=rng.uniform(4.0, 5.0)) * (2, 1, 1)
        atoms.numbers = rng.choice(rng.choice(ELEMENTS, 3, replace=False), len(atoms))
        atoms.rattle(0.2, rng=rng)
        forces = rng.normal(size=(len(atoms), 3))
        cell, pbc = atoms.cell.array, np.ones(3, bool)
        frames.append(Frame(atoms.numbers, atoms.positions, cell, pbc, -4.0 * len(atoms), forces, None, f"g{n}"))
    return frames


def test_noise_gets_no_pair_energy(frames: list[Frame]) -> None:
    store = Store(frames, CUTOFF, molecules=False)
    fit = fit_pair_energy(store, ELEMENTS, CUTOFF, closest_approach(ELEMENTS, shortest_contacts(store)))
    assert not fit.helps
    assert np.isfinite(fit.coefficients).all()


def test_forces_of_pairs_are_found_where_there_is_evidence(frames: list[Frame]) -> None:
    """Twenty metals of one kind: the same repulsion between all."""
    coefficients = np.zeros((4, len(ELEMENTS), len(ELEMENTS)))
    coefficients[1] = 300.0
    store = Store(frames, CUTOFF, molecules=False)
    energies, forces = evaluate_pair_energy(store, ELEMENTS, coefficients, CUTOFF)
    parts = np.split(forces, np.cumsum([len(frame) for frame in frames])[:-1])
    made = [
        Frame(f.numbers, f.positions, f.cell, f.pbc, energy - 4.0 * len(f), part, None, f.group)
        for f, energy, part in zip(frames, energies, parts, strict=True)
    ]
    store = Store(made, CUTOFF, molecules=False)
    fit = fit_pair_energy(store, ELEMENTS, CUTOFF, closest_approach(ELEMENTS, shortest_contacts(store)))
    assert fit.helps
    left = store.labels["forces"].numpy() - evaluate_pair_energy(store, ELEMENTS, fit.coefficients, CUTOFF)[1]
    assert np.abs(left).mean() < 0.2 * np.abs(forces).mean()


def test_frames_too_few_to_judge_by_get_no_pair_energy(frames: list[Frame]) -> None:
    store = Store(frames[:3], CUTOFF, molecules=False)
    fit = fit_pair_energy(store, ELEMENTS, CUTOFF, closest_approach(ELEMENTS, shortest_contacts(store)))
    assert not fit.helps
    assert not fit.coefficients.any()


def test_the_priors_that_are_tried_are_in_order() -> None:
    assert list(PRIOR_ROWS) == sorted(PRIOR_ROWS)
