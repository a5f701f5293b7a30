"""The pair energy: fitted rightly, repulsive where there are no data, and taken off before the network learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mdpot.radial import pair_energy
from mdpot.training.config import load_recipe
from mdpot.training.contacts import closest_approach, shortest_contacts
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner
from mdpot.training.data.store import Store
from mdpot.training.networks import new_potential
from mdpot.training.pair import PairFit, evaluate_pair_energy, fit_pair_energy, zbl_force
from mdpot.training.prepare import prepare

CUTOFF = 4.0
ELEMENTS = [1, 8]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [frame for frame in read_runner(SAMPLE) if len(frame) <= 48][:60]


@pytest.fixture(scope="module")
def fitted(frames: list[Frame]) -> np.ndarray:
    store = Store(frames, CUTOFF)
    return _fit(store).coefficients


def test_it_finds_the_pair_energy_that_made_the_forces(frames: list[Frame], fitted: np.ndarray) -> None:
    store = Store(frames, CUTOFF)
    energies, forces = evaluate_pair_energy(store, ELEMENTS, fitted, CUTOFF)
    made = [replace(f, energy=0.0, forces=part) for f, part in zip(frames, _by_frame(frames, forces), strict=True)]
    again = _fit(Store(made, CUTOFF)).coefficients
    found = evaluate_pair_energy(store, ELEMENTS, again, CUTOFF)
    # The anchors and the ridge pull a little; they are the same in both fits.
    assert np.abs(found[1] - forces).max() < 0.05 * np.abs(forces).max()
    assert np.std(found[0] - energies) < 0.02 * np.std(energies)


def test_it_explains_most_of_the_forces_and_leaves_no_worse_scale(frames: list[Frame], fitted: np.ndarray) -> None:
    store = Store(frames, CUTOFF)
    rest = store.labels["forces"].numpy() - evaluate_pair_energy(store, ELEMENTS, fitted, CUTOFF)[1]
    assert np.sqrt(np.mean(rest**2)) < 0.4 * np.sqrt(np.mean(store.labels["forces"].numpy() ** 2))


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (1, 1)])
def test_it_repels_inside_the_data(frames: list[Frame], fitted: np.ndarray, a: int, b: int) -> None:
    smallest = shortest_contacts(Store(frames, CUTOFF))[ELEMENTS[a], ELEMENTS[b]].distance
    distance = torch.linspace(0.35 * smallest, 0.9 * smallest, 50, dtype=torch.float64).requires_grad_()
    energy = pair_energy(distance, torch.tensor(fitted[:, a, b]).unsqueeze(1).expand(-1, 50), CUTOFF)
    force = -torch.autograd.grad(energy.sum(), distance)[0]
    assert bool((force > 0).all())
    # And about as strongly as nuclei do, halfway down.
    assert float(force[10]) == pytest.approx(zbl_force(float(distance[10].detach()), ELEMENTS[a], ELEMENTS[b]), rel=0.5)


def test_forces_of_zbl_are_those_of_the_published_potential() -> None:
    # Two oxygens at 1 Å, computed with the formula and numpy alone.
    x, h = 1.0, 1e-6
    factors, rates = np.array([0.18175, 0.50986, 0.28022, 0.02817]), np.array([3.1998, 0.94229, 0.4029, 0.20162])

    def energy(d: float) -> float:
        return 14.399645 * 64 / d * (factors * np.exp(-rates * d * 2 * 8**0.23 / 0.4685)).sum()

    assert zbl_force(x, 8, 8) == pytest.approx((energy(x - h) - energy(x + h)) / (2 * h), rel=1e-6)


def test_the_energy_and_its_slope_vanish_at_the_cutoff(fitted: np.ndarray) -> None:
    distance = torch.tensor([CUTOFF - 1e-4, CUTOFF, CUTOFF + 1.0], dtype=torch.float64).requires_grad_()
    energy = pair_energy(distance, torch.tensor(fitted[:, 0, 1]).unsqueeze(1).expand(-1, 3), CUTOFF)
    slope = torch.autograd.grad(energy.sum(), distance)[0]
    assert float(energy.detach().abs().max()) < 1e-10
    assert float(slope.abs().max()) < 1e-6


def test_a_potential_with_it_gives_the_pair_energy_where_its_network_is_silent() -> None:
    recipe = load_recipe("water-rpbe", "quick", ["data.max_train_frames=40"])
    prepared = prepare(recipe, SAMPLE, 0, torch.device("cpu"))
    assert prepared.pair is not None
    potential = new_potential(recipe.model, prepared, 0).double().eval()
    with torch.no_grad():
        for weight in potential.readout[-1].parameters():
            weight.zero_()
    batch = prepared.train.batch(torch.arange(3), torch.float64)
    found = potential(*batch.graph.inputs())
    energies, forces = evaluate_pair_energy(prepared.train, prepared.elements, prepared.pair, recipe.model.cutoff)
    n_atoms = len(found["forces"])
    # The coefficients are kept in float32.
    assert np.allclose(found["interaction"].detach().numpy(), energies[:3], rtol=1e-4, atol=1e-4)
    assert np.allclose(found["forces"].detach().numpy(), forces[:n_atoms], rtol=1e-4, atol=1e-4)
    # Neither energies nor forces that the network is to learn have the pair energy in them.
    rest = prepared.train.labels["forces"].numpy() - forces
    assert prepared.scale == pytest.approx(np.sqrt(np.mean(rest**2)), rel=0.02)
    assert abs(float((prepared.train.labels["interaction"] - torch.tensor(energies)).mean())) < 0.5


def test_without_it_the_potential_has_none() -> None:
    recipe = load_recipe("water-rpbe", "quick", ["data.max_train_frames=20", "model.pair=false"])
    prepared = prepare(recipe, SAMPLE, 0, torch.device("cpu"))
    assert prepared.pair is None
    assert not new_potential(recipe.model, prepared, 0).has_pair
    assert prepared.scale == pytest.approx(float(prepared.train.labels["forces"].square().mean().sqrt()), rel=0.02)


def test_edges_are_counted_from_both_ends(frames: list[Frame], fitted: np.ndarray) -> None:
    """Against a plain double sum over atoms and images, in the smallest cell."""
    frame = min(frames, key=lambda f: abs(np.linalg.det(f.cell)))
    reach = int(np.ceil(CUTOFF / np.min(1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0)))) + 1
    total = 0.0
    span = range(-reach, reach + 1)
    for translation in np.array([(x, y, z) for x in span for y in span for z in span]) @ frame.cell:
        vectors = frame.positions[None] - frame.positions[:, None] + translation
        distance = np.linalg.norm(vectors, axis=2)
        i, j = np.nonzero((distance > 1e-8) & (distance < CUTOFF))
        kinds = [ELEMENTS.index(z) for z in frame.numbers]
        terms = torch.tensor(fitted[:, [kinds[a] for a in i], [kinds[b] for b in j]])
        total += 0.5 * float(pair_energy(torch.tensor(distance[i, j]), terms, CUTOFF).sum())
    energy = evaluate_pair_energy(Store([frame], CUTOFF), ELEMENTS, fitted, CUTOFF)[0]
    assert energy[0] == pytest.approx(total, rel=1e-9)


def test_the_order_of_a_pair_does_not_matter(fitted: np.ndarray) -> None:
    assert np.array_equal(fitted, fitted.transpose(0, 2, 1))


def _fit(store: Store) -> PairFit:
    closest = closest_approach(ELEMENTS, shortest_contacts(store))
    return fit_pair_energy(store, ELEMENTS, CUTOFF, closest)


def _by_frame(frames: list[Frame], values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(frame) for frame in frames])[:-1])


def test_atoms_beyond_the_cutoff_have_no_pair_energy() -> None:
    positions = [np.array([[0.0, 0, 0], [5.0 + 0.1 * n, 0, 0]]) for n in range(12)]
    frames = [Frame(np.array([18, 18]), x, np.zeros((3, 3)), np.zeros(3, bool), 0.0, 0.01 * (x - 1)) for x in positions]
    fit = fit_pair_energy(Store(frames, CUTOFF), [18], CUTOFF, {(18, 18): 3.0})
    assert not fit.helps
    assert fit.coefficients.shape[1:] == (1, 1)
