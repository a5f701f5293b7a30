"""Potentials with random weights, nasty structures, and the network in torch as the reference."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mdpot.autograd import exact_gradients
from mdpot.evaluator import usual_outputs
from mdpot.heads import Potential, build_potential
from mdpot.kernels import Kernel, Result, library
from mdpot.neighbors import neighbor_list

LIBRARIES = [os.environ["MDPOT_TEST_KERNELS"]] if "MDPOT_TEST_KERNELS" in os.environ else library.supported()
"""Instruction sets; or the file of one library, such as one with sanitizers in it (see `.ci/sanitize`)."""


@dataclass
class Structure:
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    def candidates(self, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        edge_index, shifts = neighbor_list(self.positions, self.cell, self.pbc, radius)
        return edge_index[0], edge_index[1], shifts


@pytest.fixture(params=LIBRARIES or [pytest.param(None, marks=pytest.mark.skip(reason="the kernels are not compiled"))])
def lib(request: pytest.FixtureRequest):
    """The library for each instruction set of this machine."""
    return library.load(request.param) if os.path.sep in request.param else library.of(request.param)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_potential() -> Callable[..., Potential]:
    """A Tide in float64 whose every weight is away from its initial value, with wall and pair energy."""

    def make(elements=(1, 8), seed: int = 0, plain: bool = False, **hyperparameters) -> Potential:
        rng, n = np.random.default_rng(seed), len(elements)
        torch.manual_seed(seed)
        wall, pair = rng.uniform(0.9, 1.4, (n, n)), rng.normal(0, 0.3, (3, n, n))
        extras = [] if plain else [(wall + wall.T).tolist(), (pair + pair.transpose(0, 2, 1)).tolist()]
        shift = rng.normal(0, 50, n).tolist()
        potential = build_potential("tide", hyperparameters, list(elements), shift, 0.7, *extras)
        with torch.no_grad():
            for parameter in potential.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return potential.double().eval()

    return make


@pytest.fixture(scope="session")
def make_structures() -> Callable[..., list[Structure]]:
    """The nastiest structures of some elements: small and skewed cells, lone atoms, none, mixed periodicity."""

    def make(elements=(1, 8), seed: int = 0) -> list[Structure]:
        rng = np.random.default_rng(seed)

        def random(n: int, cell: np.ndarray, pbc=(True, True, True), shift: float = 0.0) -> Structure:
            placed: list[np.ndarray] = []
            images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3) @ cell
            while len(placed) < n:
                trial = rng.uniform(0, 1, 3) @ cell
                others = np.array(placed).reshape(-1, 1, 3) + images
                if (np.linalg.norm(others - trial, axis=-1) > 0.8).all():
                    placed.append(trial)
            positions = np.array(placed).reshape(-1, 3) + shift
            return Structure(rng.choice(elements, n), positions, cell, np.array(pbc))

        skewed = np.array([[5.0, 0.0, 0.0], [2.0, 4.5, 0.0], [-1.0, 1.5, 5.5]])
        return [
            random(37, 7.5 * np.eye(3)),
            random(2, 3.6 * np.eye(3)),
            random(1, 3.6 * np.eye(3)),
            random(9, skewed),
            random(13, skewed, (True, True, False)),
            random(25, 8.0 * np.eye(3), (False, False, True), shift=1e4),
            random(12, 6.0 * np.eye(3), (False, False, False)),
            random(1, 9.0 * np.eye(3), (False, False, False)),
            Structure(
                np.resize(elements, 2), np.array([[0.0, 0, 0], [50.0, 0, 0]]), 9.0 * np.eye(3), np.zeros(3, bool)
            ),
            Structure(np.zeros(0, np.int64), np.zeros((0, 3)), 9.0 * np.eye(3), np.ones(3, bool)),
        ]

    return make


@pytest.fixture(scope="session")
def reference() -> Callable[..., Result]:
    """What the network in torch says, in its own dtype."""

    def evaluate(potential: Potential, structure: Structure, marks: np.ndarray | None = None) -> Result:
        if len(structure.numbers) == 0:
            return Result(np.zeros(0), np.zeros((0, 3)), np.zeros((3, 3)), np.zeros((3, 3)))
        i, j, shifts = structure.candidates(potential.cutoff)
        with exact_gradients():
            out = potential(
                torch.tensor(structure.numbers),
                torch.tensor(structure.positions),
                torch.tensor(structure.cell[None]),
                torch.zeros(len(structure.numbers), dtype=torch.int64),
                torch.tensor(np.stack([i, j])),
                torch.tensor(shifts, dtype=torch.float64),
                None if marks is None else torch.tensor(marks),
                outputs=usual_outputs(True),
            )
        stress = out["stress"][0].double().numpy()
        volume = abs(np.linalg.det(structure.cell))
        return Result(out["energies"].numpy(), out["forces"].double().numpy(), stress * volume, stress)

    return evaluate


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    """A kernel on a structure, with candidates of a radius beyond the cutoff."""

    def evaluate(kernel: Kernel, structure: Structure, marks: np.ndarray | None = None) -> Result:
        candidates = structure.candidates(kernel.cutoff + 0.5)
        return kernel(structure.numbers, structure.positions, structure.cell, candidates, True, marks)

    return evaluate


@pytest.fixture(scope="session")
def as_float32() -> Callable[[Potential], Potential]:
    return lambda potential: copy.deepcopy(potential).float()
