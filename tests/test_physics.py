"""What physics asks of every model: an entry of `MODELS` inherits all of this by being there.

Weights are random but larger than at the start of a training, so that every path through a network shows in
its energy. Numbers are compared in float64 unless a test says otherwise.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot.graph import Graph
from mdpot.models import MODELS, Potential, build_potential
from mdpot.neighbors import neighbor_list
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.runner import read_runner

Results = dict[str, torch.Tensor]

CUTOFF = 3.4
ELEMENTS = [1, 6, 8]
SHIFT = [-13.6, -1030.0, -2043.2]
# Of H, C and O. That of C and C would reach beyond the cutoff.
WALL = [[1.7, 1.2, 1.1], [1.2, 4.5, 1.6], [1.1, 1.6, 2.6]]


def build(name: str, dtype: torch.dtype = torch.float64, small: bool = True, wall: bool = False) -> Potential:
    """A potential with lively weights."""
    return _amplified(name, small, wall, _factor(name, small)).to(dtype).eval()


def _amplified(name: str, small: bool, wall: bool, factor: float) -> Potential:
    takes = inspect.signature(MODELS[name].__init__).parameters
    sizes = {k: v for k, v in {"width": 24, "layers": 3}.items() if k in takes} if small else {}
    torch.manual_seed(1)
    starts = WALL if wall else None
    potential = build_potential(name, {"cutoff": CUTOFF, **sizes}, ELEMENTS, SHIFT, 0.7, starts)
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


def _name(param: tuple[str, bool]) -> str:
    name, wall = param
    return f"{name} with a wall" if wall else name


@pytest.fixture(params=[(name, wall) for name in MODELS for wall in (False, True)], ids=_name)
def potential(request) -> Potential:
    """Every architecture, with and without a repulsive wall that systems here run into."""
    name, wall = request.param
    return build(name, wall=wall)


@pytest.fixture
def conservative(potential: Potential) -> Potential:
    if not potential.conservative:
        pytest.skip("force-centric: its forces are not the gradient of its energy, by design")
    return potential


# ---- systems -------------------------------------------------------------------------


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


def _waters(n: int, cell: np.ndarray, pbc: tuple[bool, ...], seed: int = 4) -> Atoms:
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
    "slab": lambda sample: _waters(5, SLAB, (True, True, False)),
    "slab with vacuum": lambda sample: _waters(5, np.diag([4.0, 30.0, 3.1]), (True, False, True), 8),
    "wire": lambda sample: _waters(3, WIRE, (False, False, True)),
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
    direct: bool = False,
    compute_stress: bool = False,
) -> Results:
    graph = Graph.from_atoms(atoms, CUTOFF, dtype)
    return potential(*graph.inputs(), direct=direct, compute_stress=compute_stress)


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


def random_rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


# ---- gradients -----------------------------------------------------------------------


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
    stress = compute(potential, atoms, compute_stress=True)["stress"][0].numpy()
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
    atoms = _waters(3, np.diag([4.0, 4.5, 5.0]), (True, True, True))
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


# ---- symmetry ------------------------------------------------------------------------


def options(potential: Potential, atoms: Atoms) -> dict[str, Any]:
    return {"direct": True, "compute_stress": bool(atoms.pbc.all()) and potential.conservative}


def test_translation(potential: Potential, atoms: Atoms) -> None:
    expected = compute(potential, atoms, **options(potential, atoms))
    moved = atoms.copy()
    moved.positions += [1.234, -7.7, 3.1]
    assert_same(compute(potential, moved, **options(potential, atoms)), expected)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mirror", [False, True], ids=["rotation", "reflection"])
def test_rotation_and_reflection(potential: Potential, atoms: Atoms, seed: int, mirror: bool) -> None:
    turn = random_rotation(seed) * (-1 if mirror else 1)
    expected = compute(potential, atoms, **options(potential, atoms))
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T
    turned.set_cell(atoms.cell.array @ turn.T)
    assert_same(compute(potential, turned, **options(potential, atoms)), expected, rotation=turn)


def test_permutation(potential: Potential, atoms: Atoms) -> None:
    order = np.random.default_rng(2).permutation(len(atoms))
    expected = compute(potential, atoms, **options(potential, atoms))
    assert_same(compute(potential, atoms[order], **options(potential, atoms)), expected, order=order)


def test_wrapping(potential: Potential, atoms: Atoms) -> None:
    """Whole cells away, each atom somewhere else."""
    expected = compute(potential, atoms, **options(potential, atoms))
    jumps = np.random.default_rng(3).integers(-3, 4, (len(atoms), 3)) * atoms.pbc
    jumped = atoms.copy()
    jumped.positions += jumps @ atoms.cell.array
    assert_same(compute(potential, jumped, **options(potential, atoms)), expected)


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
    expected = compute(potential, atoms, **options(potential, atoms))
    other = atoms.copy()
    other.set_cell(matrix @ atoms.cell.array)
    assert_same(compute(potential, other, **options(potential, atoms)), expected)


def test_supercell(potential: Potential, atoms: Atoms) -> None:
    times = np.where(atoms.pbc, 2, 1)
    if (times == 1).all():
        pytest.skip("nothing is periodic")
    n = int(times.prod())
    expected = compute(potential, atoms, **options(potential, atoms))
    found = compute(potential, atoms.repeat(times), **options(potential, atoms))
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
    alone, found = compute(potential, atoms, direct=True), compute(potential, both, direct=True)
    assert_equal(found["interaction"], 2 * alone["interaction"], "interaction")
    for key in ("forces", "vector", "energies"):
        assert_equal(found[key], torch.cat([alone[key], alone[key]]), key)


def test_a_linear_molecule_is_pushed_along_its_axis(potential: Potential, sample: list[Frame]) -> None:
    atoms = SYSTEMS["linear molecule"](sample)
    out = compute(potential, atoms, direct=True)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    for key in ("forces", "vector"):
        assert float(out[key].abs().max()) > 0
        across = out[key] - (out[key] @ axis).unsqueeze(1) * axis
        assert_equal(across, torch.zeros_like(across), key)


# ---- smoothness ----------------------------------------------------------------------


def sweep(potential: Potential, atoms: Atoms, direction: np.ndarray, distances: np.ndarray):
    """Energies, forces, vectors and edge counts while atoms move along their directions [n_atoms, 3]."""
    parts = []
    for some in np.array_split(distances, -(-len(distances) // 50)):
        copies = [atoms.copy() for _ in some]
        for copy, distance in zip(copies, some, strict=True):
            copy.positions += distance * direction
        graph = Graph.from_atoms(copies, CUTOFF, torch.float64)
        out = potential(*graph.inputs(), direct=True)
        edges = torch.bincount(graph.system[graph.edge_index[0]], minlength=len(some))
        shape = (len(some), len(atoms), 3)
        parts.append((out["interaction"], out["forces"].view(shape), out["vector"].view(shape), edges))
    return tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True))


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
    _, near, near_vector, _ = sweep(potential, atoms, away, np.linspace(-0.4, 0, 9))
    force = np.abs(near).max()
    assert force > 1e-4
    assert np.abs(forces[0]).max() < 3e-2 * force  # (0.02 / 0.4)² of it, times a few
    assert np.abs(forces[199]).max() < 1e-6 * force  # at 5e-5 Å
    assert np.abs(vector[199]).max() <= 1e-6 * np.abs(near_vector).max()
    assert np.abs(energy[199] - alone) < 1e-10 * force
    assert np.abs(np.diff(forces, axis=0)).max() < 1e-3 * force
    assert np.abs(np.diff(energy)).max() < 1e-4 * np.abs(forces).max() * 1.1 + 1e-14


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


# ---- the same numbers everywhere -----------------------------------------------------


def test_a_batch_gives_what_each_gives_alone(potential: Potential, sample: list[Frame]) -> None:
    structures = [make(sample) for make in SYSTEMS.values()]
    together = compute(potential, structures, direct=True)
    start = 0
    for k, atoms in enumerate(structures):
        alone, own = compute(potential, atoms, direct=True), slice(start, start + len(atoms))
        assert_equal(together["energy"][k : k + 1], alone["energy"], "energy", 1e-13)
        assert_equal(together["interaction"][k : k + 1], alone["interaction"], "interaction", 1e-12)
        for key in ("energies", "forces", "vector"):
            assert_equal(together[key][own], alone[key], key, 1e-12)
        start += len(atoms)
    periodic = [atoms for atoms in structures if atoms.pbc.all()]
    stresses = compute(potential, periodic, compute_stress=True)["stress"]
    for stress, atoms in zip(stresses, periodic, strict=True):
        assert_equal(stress, compute(potential, atoms, compute_stress=True)["stress"][0], "stress", 1e-12)


def test_energies_add_up_and_hold_the_reference(potential: Potential, atoms: Atoms) -> None:
    out = compute(potential, atoms)
    assert out["energy"].dtype == out["energies"].dtype == torch.float64
    assert_equal(out["energies"].sum(), out["energy"][0], "energy", 1e-14)
    reference = sum(SHIFT[ELEMENTS.index(z)] for z in atoms.numbers)
    assert_equal(out["energy"] - reference, out["interaction"], "interaction", 1e-9)


def test_single_precision(potential: Potential, atoms: Atoms) -> None:
    expected = compute(potential, atoms, direct=True)
    single = build(potential.model, dtype=torch.float32, wall=potential.has_wall)
    for dtype in (torch.float32, torch.float64):
        found = compute(single, atoms, dtype=dtype, direct=True)
        assert found["energy"].dtype == torch.float64
        assert found["forces"].dtype == dtype
        for key in ("interaction", "forces", "vector", "energies"):
            assert_equal(found[key].double(), expected[key], key, 1e-4)


def test_large_references_cost_a_float32_network_nothing(potential: Potential) -> None:
    """Energy differences of a big system are exact although its total energy has more digits than float32."""
    single = build(potential.model, dtype=torch.float32)
    atoms = _waters(40, np.eye(3) * 11, (True, True, True))
    moved = atoms.copy()
    moved.positions[3] += 0.01
    out = [compute(single, a) for a in (atoms, moved)]
    total, interaction = (out[1][k].double() - out[0][k].double() for k in ("energy", "interaction"))
    assert abs(float(out[0]["energy"])) > 8e4
    assert float(total) == pytest.approx(float(interaction), abs=2e-4)


# TorchScript is deprecated in newer torch; and torch 2.13 warns of an attribute that no script uses.
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_eager_and_torchscript_agree(potential: Potential, sample: list[Frame], dtype: torch.dtype) -> None:
    relative = 1e-10 if dtype == torch.float64 else 1e-5
    model = build(potential.model, dtype=dtype, wall=potential.has_wall)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(model)
    for name in ("water", "flattest real cell", "molecule", "atom", "slab", "water"):
        atoms = SYSTEMS[name](sample)
        chosen = options(potential, atoms)
        graph = Graph.from_atoms(atoms, CUTOFF, dtype)
        eager, script = model(*graph.inputs(), **chosen), scripted(*graph.inputs(), **chosen)
        assert eager.keys() == script.keys()
        for key in eager:
            assert eager[key].dtype == script[key].dtype
            assert_equal(script[key], eager[key], f"{name}: {key}", relative)


# ---- what else the contract says -----------------------------------------------------


def test_marks_change_what_is_predicted(potential: Potential) -> None:
    atoms = molecule("H2O")
    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    plain = potential(*graph.inputs(), direct=True)
    marks = torch.tensor([0, 1, 0])
    marked = potential(*graph.inputs(), marks=marks, direct=True)
    for key in ("interaction", "forces", "vector"):
        assert float((marked[key] - plain[key]).abs().max()) > 1e-4 * float(plain[key].abs().max())
    none = potential(*graph.inputs(), marks=torch.zeros(3, dtype=torch.int64), direct=True)
    assert all(torch.equal(none[key], plain[key]) for key in plain)


def test_elements_and_distances_change_what_is_predicted(potential: Potential) -> None:
    results = [
        float(compute(potential, Atoms(pair, [[0, 0, 0], [d, 0, 0]]))["interaction"])
        for pair in ("OH", "CH", "HH")
        for d in (0.9, 1.0, 3.0)
    ]
    assert len(np.unique(np.round(results, 4))) == len(results)


def test_energies_depend_on_the_angle(potential: Potential) -> None:
    """Three atoms at equal bond lengths."""
    bent = [Atoms("OHH", [[0, 0, 0], [1, 0, 0], [np.cos(t), np.sin(t), 0]]) for t in (1.2, 1.8, 3.0)]
    assert np.ptp(compute(potential, bent)["interaction"].numpy()) > 1e-3


def test_without_edges_nothing_is_nan(potential: Potential) -> None:
    atoms = [Atoms("O"), Atoms("HO", [[0, 0, 0], [50, 0, 0]]), Atoms("C", cell=np.eye(3) * 9, pbc=True)]
    for training in (False, True):
        potential.train(training)
        for batch in [*([a] for a in atoms), atoms]:
            out = compute(potential, batch, direct=True)
            assert all(torch.isfinite(value).all() for value in out.values())
            assert_equal(out["forces"], torch.zeros_like(out["forces"]), "forces")
            assert_equal(out["vector"], torch.zeros_like(out["vector"]), "vector")
        stress = compute(potential, atoms[2], compute_stress=True)["stress"]
        assert_equal(stress, torch.zeros_like(stress), "stress")


def test_structures_without_a_volume_leave_the_stress_of_others_alone(conservative: Potential) -> None:
    """Training on stress in a batch that also holds a molecule: no not-a-number reaches a weight."""
    atoms = [_waters(2, np.diag([4.0, 4.0, 5.0]), (True,) * 3), molecule("H2O"), Atoms("O")]
    conservative.train()
    stress = compute(conservative, atoms, compute_stress=True)["stress"]
    stress[0].square().sum().backward()
    gradients = [w.grad for w in conservative.parameters() if w.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_edges_beyond_the_cutoff_do_no_harm(potential: Potential, sample: list[Frame]) -> None:
    atoms = SYSTEMS["flattest real cell"](sample)
    expected = compute(potential, atoms, **options(potential, atoms))
    wide = Graph.from_atoms(atoms, CUTOFF + 0.7, torch.float64)
    assert_same(potential(*wide.inputs(), **options(potential, atoms)), expected)


def test_inputs_are_left_alone(potential: Potential, sample: list[Frame]) -> None:
    graph = Graph.from_atoms(SYSTEMS["molecule"](sample), CUTOFF, torch.float64)
    before = [tensor.clone() for tensor in graph.inputs()]
    out = potential(*graph.inputs(), direct=True)
    for tensor, old in zip(graph.inputs(), before, strict=True):
        assert torch.equal(tensor, old)
        assert not tensor.requires_grad
    assert not any(value.requires_grad for value in out.values())


def test_every_weight_learns(potential: Potential) -> None:
    """No layer is left out of the energy, the forces or the vector."""
    potential.train()
    graph = Graph.from_atoms(_waters(3, np.eye(3) * 4.4, (True,) * 3), CUTOFF, torch.float64)
    marks = (graph.numbers == 8).long()
    out = potential(*graph.inputs(), marks=marks, direct=True)
    torch.cat([out[key].flatten() for key in ("interaction", "forces", "vector")]).square().sum().backward()
    lazy = [name for name, w in potential.named_parameters() if w.numel() and (w.grad is None or not w.grad.any())]
    assert lazy == []


def test_the_wall_is_a_pair_repulsion_inside_its_start() -> None:
    """300 eV (start / d - 1)³, half of it for each atom; nothing at all beyond."""
    plain, walled = (build("egnn", wall=wall) for wall in (False, True))
    for pair, start in (("HH", 1.7), ("OH", 1.1), ("HO", 1.1), ("CO", 1.6)):
        for d in (0.6 * start, 0.99 * start, start, 1.01 * start, 3.0):
            atoms = Atoms(pair, [[0, 0, 0], [0, d, 0]])
            without, found = compute(plain, atoms), compute(walled, atoms)
            inside = max(start / d - 1, 0.0)
            expected = without["energies"] + 150 * inside**3
            torch.testing.assert_close(found["energies"], expected, rtol=0, atol=1e-4 * inside**2)
            push = 900 * inside**2 * start / d**2
            change = found["forces"] - without["forces"]
            assert change[1].tolist() == pytest.approx([0, push, 0], rel=1e-5, abs=1e-4 * inside + 1e-11)


# ---- EGNN's own ----------------------------------------------------------------------

MEETING = 0.8  # Å


def test_egnn_follows_its_equations() -> None:
    """Atom by atom, pair by pair, with absolute coordinates that move (Satorras et al., eqs. 3 to 6)."""
    potential = build("egnn")
    egnn, atoms = potential.backbone, molecule("CH3CHO")
    silu = torch.nn.functional.silu
    x0 = torch.tensor(atoms.positions)
    x, n_atoms = x0.clone(), len(atoms)
    h = torch.stack([egnn.embedding.weight[ELEMENTS.index(z)] for z in atoms.numbers])  # type: ignore[union-attr]
    h[2] = h[2] + egnn.mark  # type: ignore[operator]
    for layer in egnn.layers:  # type: ignore[union-attr]
        new_x, new_h = x.clone(), []
        for i in range(n_atoms):
            total = torch.zeros(24, dtype=torch.float64)
            for j in range(n_atoms):
                true = (x0[i] - x0[j]).norm() / CUTOFF
                if i == j or true >= 1:
                    continue
                c = 1 - 28 * true**6 + 48 * true**7 - 21 * true**8
                d = (x[i] - x[j]).norm()
                waves = [(n * torch.pi * d / CUTOFF).sin() / d for n in range(1, 13)]
                basis = (2 * CUTOFF) ** 0.5 * torch.stack(waves)
                first = layer.center(h[i]) + layer.neighbor(h[j]) + layer.radial(basis)
                m = c * silu(layer.message(silu(first)))
                new_x[i] += (x[i] - x[j]) / (d + 1) * c * layer.move(m)[0] / 16
                total += m / 16**0.5
            new_h.append(h[i] + layer.update(torch.cat([h[i], total])))
        x, h = new_x, torch.stack(new_h)
    expected = 0.7 * potential.readout(h).sum()

    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    marks = torch.tensor([0, 0, 1, 0, 0, 0, 0])
    out = potential(*graph.inputs(), marks=marks, direct=True)
    assert_equal(out["vector"], (x - x0).detach(), "displacements", 1e-6)  # where EGNN rounds lengths off
    assert_equal(out["interaction"][0], expected.detach(), "energy", 1e-6)


def first_step(potential: Potential, distance: float) -> float:
    """How far the first layer of an EGNN moves the second of two H atoms, Å."""
    layers = potential.backbone.layers
    potential.backbone.layers = layers[:1]  # type: ignore[index]
    out = compute(potential, Atoms("HH", [[0, 0, 0], [distance, 0, 0]]), direct=True)
    potential.backbone.layers = layers
    return float(out["vector"][1, 0])


@pytest.fixture
def attracted() -> Potential:
    """An EGNN whose first layer moves two H atoms that are 0.8 Å apart onto each other."""
    potential = build("egnn")
    factor = -0.5 * MEETING / first_step(potential, MEETING)
    with torch.no_grad():
        potential.backbone.layers[0].move[2].weight *= factor  # type: ignore
    return potential


def meeting(potential: Potential, gap: float) -> Atoms:
    """Two H that the first layer brings to within `gap` of each other."""

    def excess(distance: float) -> float:
        return distance + 2 * first_step(potential, distance) - gap

    low, high = MEETING - 0.01, MEETING + 0.01
    assert excess(low) * excess(high) < 0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(low) * excess(middle) > 0 else (low, middle)
    return Atoms("HH", [[0, 0, 0], [low, 0, 0]])


@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-5, 1e-4, -1e-4, 1e-3, -1e-2])
def test_egnn_where_moved_atoms_meet(attracted: Potential, gap: float) -> None:
    """The atoms are 0.8 Å apart but their moved images (nearly) coincide: the forces stay the gradient."""
    atoms = meeting(attracted, gap)
    out = compute(attracted, atoms, direct=True)
    assert all(bool(torch.isfinite(value).all()) for value in out.values())
    assert float(out["forces"].abs().max()) > 0.1
    # EGNN rounds off lengths below 1e-4 Å, so the differences must be finer than that.
    check_forces(attracted, atoms, step=4e-6)


def test_egnn_passes_through_a_meeting_without_a_jump(attracted: Potential) -> None:
    atoms = meeting(attracted, 0.0)
    away = np.array([[0, 0, 0], [1.0, 0, 0]])
    energy, forces, _, _ = sweep(attracted, atoms, away, (np.arange(-200, 200) + 0.5) * 1e-5)
    steps = np.abs(np.diff(forces[:, 1, 0]))
    assert steps.max() < 5 * np.median(steps)
    assert np.abs(np.diff(energy)).max() < 2e-5 * np.abs(forces).max()
    single = build("egnn", dtype=torch.float32)
    single.load_state_dict(attracted.state_dict())
    expected = compute(attracted, atoms)["forces"]
    for distance in (0.0, 1e-5, 1e-4, -3e-4):
        moved = atoms.copy()
        moved.positions[1, 0] += distance
        expected = compute(attracted, moved)["forces"]
        assert_equal(compute(single, moved)["forces"], expected, f"{distance}", 1e-2)
