"""The kernels compute what the network in torch does: every instruction set, size, order and precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.kernels import Kernel, self_test
from mdpot.modelfile import load_potential
from mdpot.zoo import ZOO, find_model

CASES = {
    "small": {},
    "medium": {"size": "medium"},
    "order1": {"order": 1},
    "order3": {"order": 3},
    "sent2": {"sent_order": 2},
    "sent2-order3": {"order": 3, "sent_order": 2},
    "sent2-three-layers": {"sent_order": 2, "layers": 3, "width": 19, "channels": 5, "hidden": 21},
    "one-layer": {"layers": 1},
    "one-layer-order3": {"layers": 1, "order": 3},
    "three-layers": {"layers": 3},
    "five-layers": {"layers": 5, "width": 24, "order": 1},
    "one-of-all": {"width": 1, "channels": 1, "n_radial": 1, "n_basis": 1, "hidden": 1},
    "odd-sizes": {"width": 19, "channels": 5, "n_radial": 3, "n_basis": 11, "hidden": 21, "order": 3},
    "many-functions": {"n_basis": 40, "n_radial": 9},
}
ELEMENTS = {"one": (8,), "two": (1, 8), "many": (1, 6, 7, 8, 16, 17, 35, 53, 55)}


def worst(found, wanted) -> float:
    """The largest relative difference of energies, forces and virial."""
    pairs = (found.energies, wanted.energies), (found.forces, wanted.forces), (found.virial, wanted.virial)
    return max(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-6) for a, b in pairs)


@pytest.mark.parametrize("elements", ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float64(lib, case, elements, make_potential, make_structures, reference, run) -> None:
    potential = make_potential(elements, **case)
    kernels = [Kernel(potential, threads=threads, lib=lib) for threads in (1, 3)]
    rng = np.random.default_rng(1)
    for structure in make_structures(elements):
        for marks in (None, rng.integers(0, 2, len(structure.numbers)).astype(float)):
            wanted = reference(potential, structure, marks)
            for kernel in kernels:
                assert worst(run(kernel, structure, marks), wanted) < 1e-10


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float32_is_no_worse_than_eager(lib, case, make_potential, make_structures, reference, run, as_float32) -> None:
    """On the average over structures: of one alone the rounding of each is a matter of chance."""
    ratios = []
    for seed in range(3):
        # Weights that float32 holds: the error is that of computing.
        rough = as_float32(make_potential(seed=seed, plain=seed > 0, **case))
        exact = copy.deepcopy(rough).double()
        kernel = Kernel(rough, threads=2, lib=lib)
        for structure in make_structures(seed=seed):
            if len(structure.numbers) < 3:
                continue
            wanted, ours, eager = reference(exact, structure), run(kernel, structure), reference(rough, structure)
            for name in ("forces", "virial"):
                error, own = (np.linalg.norm(getattr(r, name) - getattr(wanted, name)) for r in (ours, eager))
                ratios.append(error / own)
            # The reference energy is added in float64: these differ by the network's part.
            assert np.abs(ours.energies - wanted.energies).max() < 1e-5 * np.abs(wanted.energies).max()
    assert np.exp(np.mean(np.log(ratios))) < 1.5


def random_sizes(rng: np.random.Generator, shortest: float, longest: float) -> dict[str, Any]:
    """Hyperparameters of a Tide with a cutoff, Å, between two."""
    order = int(rng.integers(1, 4))
    return {
        "order": order,
        "layers": int(rng.integers(1, 5)),
        "width": int(rng.integers(1, 50)),
        "channels": int(rng.integers(1, 20)),
        "n_radial": int(rng.integers(1, 10)),
        "n_basis": int(rng.integers(1, 20)),
        "hidden": int(rng.integers(1, 70)),
        "cutoff": float(rng.uniform(shortest, longest)),
        "sent_order": int(rng.integers(1, min(order, 2) + 1)),
    }


@pytest.mark.parametrize("seed", range(12))
def test_random_sizes(lib, seed, make_potential, make_structures, reference, run) -> None:
    rng = np.random.default_rng(seed)
    case = {**random_sizes(rng, 1.5, 6.0), "avg_neighbors": float(rng.uniform(1, 60))}
    elements = tuple(sorted(rng.choice(np.arange(1, 90), rng.integers(1, 7), replace=False).tolist()))
    potential = make_potential(elements, seed, plain=bool(rng.integers(2)), **case)
    kernel = Kernel(potential, threads=int(rng.integers(1, 6)), lib=lib)
    for structure in make_structures(elements, seed):
        assert worst(run(kernel, structure), reference(potential, structure)) < 1e-10


@pytest.mark.parametrize("name", ZOO)
def test_zoo(lib, name, make_structures, reference, run) -> None:
    potential, _ = load_potential(find_model(name), torch.device("cpu"), torch.float64)
    kernel = Kernel(potential, lib=lib)
    for structure in make_structures():
        wanted = reference(potential, structure)
        assert worst(run(kernel, structure), wanted) < 1e-10
    self_test(kernel, potential)
    self_test(Kernel(potential, torch.float32, lib=lib), potential)


def test_derivatives_by_finite_differences(lib, make_potential, make_structures, run) -> None:
    kernel = Kernel(make_potential(order=3, layers=3), lib=lib)
    structure, step = make_structures()[3], 1e-7
    found = run(kernel, structure)
    rng = np.random.default_rng(0)
    for _ in range(6):
        direction = rng.normal(size=structure.positions.shape)
        strain = rng.normal(size=(3, 3))
        strain = strain + strain.T
        before, cell = structure.positions.copy(), structure.cell.copy()
        energies = []
        for sign in (1, -1):
            structure.positions = before + sign * step * direction
            energies.append(run(kernel, structure).energy)
        assert -np.sum(found.forces * direction) == pytest.approx((energies[0] - energies[1]) / (2 * step), rel=1e-5)
        energies = []
        for sign in (1, -1):
            bend = np.eye(3) + sign * step * strain
            structure.positions, structure.cell = before @ bend, cell @ bend
            energies.append(run(kernel, structure).energy)
        structure.positions, structure.cell = before, cell
        slope = (energies[0] - energies[1]) / (2 * step)
        assert np.sum(found.virial * strain) == pytest.approx(slope, rel=1e-5, abs=1e-6)
        assert found.stress * abs(np.linalg.det(cell)) == pytest.approx(found.virial)
