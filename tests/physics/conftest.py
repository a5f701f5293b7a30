"""What the physics tests share: lively potentials, structures of every kind, and ways to compare results.

Weights are random but larger than at the start of a training, so that every path through a network shows in
its energy. Numbers are compared in float64 unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.models.hyperparameters import hyperparameters_of
from mdpot.neighbors import neighbor_list
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner

Results = dict[str, torch.Tensor]

CUTOFF = 3.4
ELEMENTS = [1, 6, 8]
SHIFT = [-13.6, -1030.0, -2043.2]
# Of H, C and O. That of C and C would reach beyond the cutoff.
WALL = [[1.7, 1.2, 1.1], [1.2, 4.5, 1.6], [1.1, 1.6, 2.6]]
VARIANTS = {"tide that sends l = 2": ("tide", {"sent_order": 2})}
"""Architectures with hyperparameters that are worth the whole suite, beside those of `MODELS`."""
PAIR = [[[1.0, -2.0, 3.0], [-2.0, 1.5, 0.5], [3.0, 0.5, -1.0]], [[5.0, 6.0, 4.0], [6.0, 9.0, 7.0], [4.0, 7.0, 8.0]]]


def build(name: str, dtype: torch.dtype = torch.float64, small: bool = True, wall: bool = False) -> Potential:
    """A potential with lively weights."""
    return _amplified(name, small, wall, _factor(name, small)).to(dtype).eval()


def _amplified(name: str, small: bool, wall: bool, factor: float) -> Potential:
    model, given = VARIANTS.get(name, (name, {}))
    takes = hyperparameters_of(MODELS[model])
    sizes = {k: v for k, v in {"width": 24, "layers": 3}.items() if k in takes} if small else {}
    torch.manual_seed(1)
    starts, terms = (WALL, PAIR) if wall else (None, None)
    potential = build_potential(model, {"cutoff": CUTOFF, **sizes, **given}, ELEMENTS, SHIFT, 0.7, starts, terms)
    with torch.no_grad():
        for weight in potential.parameters():
            if weight.dim() > 1:
                weight *= factor
    return potential


@cache
def _factor(name: str, small: bool) -> float:
    """The largest factor on the weights that leaves the forces in dense structures below 50 eV/Å."""
    dense = [SYSTEMS["slab"](_sample()), SYSTEMS["flattest real cell"](_sample())]
    graph = Graph.from_atoms(dense, CUTOFF, torch.float64)
    for factor in (1.6, 1.4, 1.2, 1.0, 0.8):
        forces = _amplified(name, small, False, factor).double().eval()(*graph.inputs())["forces"]
        if float(forces.abs().max()) < 50:
            return factor
    return 0.6


def _name(kind: tuple[str, bool]) -> str:
    name, wall = kind
    return f"{name} with wall and pair energy" if wall else name


KINDS = [(name, wall) for name, model in MODELS.items() for wall in (False, True) if model.conservative or not wall]
KINDS += [(name, False) for name in VARIANTS]


@pytest.fixture(params=KINDS, ids=_name)
def kind(request) -> tuple[str, bool]:
    """Every architecture, and whether with a pair energy and a repulsive wall that systems here run into."""
    return request.param


@pytest.fixture
def potential(kind: tuple[str, bool]) -> Potential:
    """Every architecture, with and without a pair energy and a wall."""
    name, wall = kind
    return build(name, wall=wall)


@pytest.fixture
def conservative(potential: Potential) -> Potential:
    if not potential.conservative:
        pytest.skip("force-centric: its forces are not the gradient of its energy, by design")
    return potential


@pytest.fixture
def equivariant(potential: Potential) -> Potential:
    if not getattr(potential.backbone, "equivariant", True):
        pytest.skip("its forces do not turn with the structure, by design")
    return potential


# ---- structures ----------------------------------------------------------------------


@cache
def _sample() -> list[Frame]:
    return read_runner(SAMPLE)


@pytest.fixture
def sample() -> list[Frame]:
    return _sample()


def _to_atoms(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)


def _heights(cell: np.ndarray) -> np.ndarray:
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def _slant(cell: np.ndarray) -> float:
    """The largest |cosine| between two lattice vectors."""
    unit = cell / np.linalg.norm(cell, axis=1, keepdims=True)
    return float(np.abs((unit @ unit.T)[np.triu_indices(3, 1)]).max())


def waters(n: int, cell: np.ndarray, pbc: tuple[bool, ...], seed: int = 4) -> Atoms:
    """Water molecules in random orientations on random places, their atoms at least 0.75 Å apart."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=cell, pbc=pbc)
    room = np.where(np.abs(cell).sum(1, keepdims=True) > 0, cell, 4 * np.eye(3))
    while len(atoms) < 3 * n:
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += rng.uniform(0, 1, 3) @ room
        more = atoms + water
        edges, shifts = neighbor_list(more.positions, more.cell.array, more.pbc, 0.75)
        if edges.shape[1] == len(shifts) == 0:
            atoms = more
    return atoms


def _water_frame(sample: list[Frame]) -> Atoms:
    return _to_atoms(next(frame for frame in sample if len(frame) == 48))


def _flattest(sample: list[Frame]) -> Atoms:
    atoms = _to_atoms(min(sample, key=lambda frame: _heights(frame.cell).min()))
    assert _heights(atoms.cell.array).min() < 3.6
    return atoms


def _most_slanted(sample: list[Frame]) -> Atoms:
    atoms = _to_atoms(max(sample, key=lambda frame: _slant(frame.cell)))
    assert _slant(atoms.cell.array) > 0.35
    return atoms


def _near_the_cutoff(sample: list[Frame]) -> Atoms:
    """Pairs just inside, exactly at, and just outside the cutoff, and one bond that sees them."""
    x = np.array([0.0, CUTOFF - 2e-4, -CUTOFF, 0.0, 0.0, 0.9])
    y = np.array([0.0, 0.0, 0.0, CUTOFF + 1e-4, -(CUTOFF - 0.05), 0.3])
    return Atoms("OHHOHH", np.stack([x, y, np.zeros(6)], axis=1))


TINY = [[2.4, 0, 0], [0.9, 2.5, 0], [-0.7, 1.1, 2.3]]

SLAB = np.array([[5.0, 0, 0], [1.5, 4.4, 0], [0, 0, 0]])

WIRE = np.array([[0, 0, 0], [0, 0, 0], [1.0, 0.5, 4.0]])

SYSTEMS: dict[str, Callable[[list[Frame]], Atoms]] = {
    "water": _water_frame,
    "flattest real cell": _flattest,
    "most slanted real cell": _most_slanted,
    "cell of one atom": lambda sample: Atoms("O", cell=TINY, pbc=True),
    "molecule": lambda sample: molecule("CH3CH2OH"),
    "molecule in a box": lambda sample: Atoms(molecule("H2O"), cell=np.eye(3) * 2.0, pbc=False),
    "linear molecule": lambda sample: Atoms("OCOH", np.outer([-1.16, 0, 1.17, 2.9], [0.6, 0, 0.8])),
    "atom": lambda sample: Atoms("O", [[0.3, -2.0, 5.0]]),
    "slab": lambda sample: waters(5, SLAB, (True, True, False)),
    "slab with vacuum": lambda sample: waters(5, np.diag([4.0, 30.0, 3.1]), (True, False, True), 8),
    "wire": lambda sample: waters(3, WIRE, (False, False, True)),
    "near the cutoff": _near_the_cutoff,
}


@pytest.fixture(params=SYSTEMS)
def atoms(request, sample: list[Frame]) -> Atoms:
    return SYSTEMS[request.param](sample)


# ---- tools ---------------------------------------------------------------------------


def compute(
    potential: Potential,
    atoms: Atoms | list[Atoms],
    *,
    dtype: torch.dtype = torch.float64,
    outputs: list[str] | None = None,
) -> Results:
    graph = Graph.from_atoms(atoms, CUTOFF, dtype)
    return potential(*graph.inputs(), outputs=outputs)


WITH_VECTOR = ["energy", "forces", "vector"]


def everything(potential: Potential, atoms: Atoms) -> list[str]:
    """The outputs that a structure and a potential have."""
    return [*WITH_VECTOR, "stress"] if atoms.pbc.all() and potential.conservative else WITH_VECTOR


def assert_equal(found: torch.Tensor, expected: torch.Tensor, what: str, relative: float = 1e-10) -> None:
    """Within `relative` of the largest number there is."""
    tolerance = relative * max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance, msg=lambda text: f"{what}: {text}")


def assert_same(
    found: Results, expected: Results, rotation: np.ndarray | None = None, order: np.ndarray | None = None
) -> None:
    """The same results, with vectors rotated and atoms in another order."""
    turn = torch.eye(3, dtype=torch.float64) if rotation is None else torch.tensor(rotation)
    order = np.arange(len(expected["forces"])) if order is None else order
    assert_equal(found["interaction"], expected["interaction"], "interaction")
    assert_equal(found["energy"], expected["energy"], "energy")
    assert_equal(found["energies"], expected["energies"][order], "energies")
    assert_equal(found["forces"], (expected["forces"] @ turn.T)[order], "forces")
    if "stress" in expected:
        assert_equal(found["stress"], turn @ expected["stress"] @ turn.T, "stress")
    if "vector" in expected:
        assert_equal(found["vector"], (expected["vector"] @ turn.T)[order], "direct vector")


def slope(energy: Callable[[np.ndarray], np.ndarray], step: float) -> float:
    """dE/dt at t = 0 by central differences of sixth order; `energy` takes all t at once."""
    e = energy(step * np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]))
    return float(e @ [-1.0, 9.0, -45.0, 45.0, -9.0, 1.0]) / (60 * step)


def energies_along(potential: Potential, atoms: Atoms, move: Callable[[Atoms, float], None]):
    """Energies (without the reference, whose size costs digits) of copies of `atoms` moved by t."""

    def energy(ts: np.ndarray) -> np.ndarray:
        copies = [atoms.copy() for _ in ts]
        for copy, t in zip(copies, ts, strict=True):
            move(copy, float(t))
        return compute(potential, copies)["interaction"].numpy()

    return energy


def check_forces(potential: Potential, atoms: Atoms, step: float = 3e-5, n_random: int = 4) -> None:
    """Directional derivatives along the force, along random directions, and of single coordinates."""
    forces = compute(potential, atoms)["forces"].numpy()
    size = np.linalg.norm(forces)
    rng = np.random.default_rng(5)
    directions = [forces / size] if size > 0 else []
    directions += [d / np.linalg.norm(d) for d in rng.normal(size=(n_random, len(atoms), 3))]
    single = np.zeros((2, len(atoms), 3))
    single[0].flat[rng.integers(3 * len(atoms))] = 1.0
    single[1].flat[np.abs(forces).argmax()] = 1.0
    for direction in [*directions, *single]:

        def move(copy: Atoms, t: float, direction: np.ndarray = direction) -> None:
            copy.positions += t * direction

        found = -slope(energies_along(potential, atoms, move), step)
        exact = float((forces * direction).sum())
        assert abs(found - exact) <= 1e-6 * max(abs(exact), size / np.sqrt(forces.size), 1e-3)


def sweep(potential: Potential, atoms: Atoms, direction: np.ndarray, distances: np.ndarray):
    """Energies, forces, vectors and edge counts while atoms move along their directions [n_atoms, 3]."""
    parts = []
    for some in np.array_split(distances, -(-len(distances) // 50)):
        copies = [atoms.copy() for _ in some]
        for copy, distance in zip(copies, some, strict=True):
            copy.positions += distance * direction
        graph = Graph.from_atoms(copies, CUTOFF, torch.float64)
        out = potential(*graph.inputs(), outputs=WITH_VECTOR)
        edges = torch.bincount(graph.system[graph.edge_index[0]], minlength=len(some))
        shape = (len(some), len(atoms), 3)
        parts.append((out["interaction"], out["forces"].view(shape), out["vector"].view(shape), edges))
    return tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True))
