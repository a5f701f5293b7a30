"""Neighbor lists against brute-force sums over images and against ASE; the Verlet list against fresh ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list

from mdpot.errors import MdpotError
from mdpot.neighbors import VerletList, neighbor_list
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.readers.runner import read_runner
from mdpot.vesin_neighbors import full_cell, vesin_neighbor_list

CUBIC = np.eye(3) * 8.0
TRICLINIC = np.array([[7.0, 0.0, 0.0], [-3.2, 6.9, 0.0], [2.7, 3.0, 6.1]])
TINY = np.array([[2.9, 0.0, 0.0], [1.3, 2.7, 0.0], [-0.9, 1.2, 2.6]])
NEEDLE = np.array([[30.0, 0.0, 0.0], [0.5, 3.4, 0.0], [9.0, 2.0, 3.6]])
NOTHING = np.zeros((3, 3))
ALL, NONE = (True, True, True), (False, False, False)

# name: cell, periodic directions, number of atoms, spread in Å
SYSTEMS = {
    "cubic": (CUBIC, ALL, 30, 8.0),
    "triclinic": (TRICLINIC, ALL, 30, 8.0),
    "left-handed": (TRICLINIC[[0, 2, 1]], ALL, 30, 8.0),
    "unwrapped": (TRICLINIC, ALL, 12, 30.0),
    "tiny": (TINY, ALL, 3, 3.0),
    "one atom": (TINY, ALL, 1, 5.0),
    "needle": (NEEDLE, ALL, 20, 20.0),
    "slab": (TRICLINIC, (True, True, False), 30, 12.0),
    "slab without third vector": (np.diag([5.0, 0.0, 6.0]), (True, False, True), 20, 12.0),
    "slab in a short box": (np.diag([5.0, 6.0, 1.0]), (True, True, False), 20, 9.0),
    "wire": (np.array([[0, 0, 0], [1.0, 3.0, 2.0], [0, 0, 0]]), (False, True, False), 15, 9.0),
    "cluster": (NOTHING, NONE, 40, 9.0),
    "cluster in a cell": (np.eye(3) * 2.0, NONE, 40, 9.0),
    "one atom alone": (NOTHING, NONE, 1, 9.0),
}


def make(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cell, pbc, n_atoms, spread = SYSTEMS[name]
    return np.random.default_rng(seed).uniform(-0.4, 0.6, (n_atoms, 3)) * spread, cell, np.array(pbc)


def brute_force(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> set[tuple]:
    """Every pair by trying every image in a range that is surely large enough."""
    lattice = cell[pbc]
    if len(lattice):
        # |shift_k| <= |displacement · dual_k| for the dual lattice vectors.
        dual = np.linalg.pinv(lattice)
        widest = cutoff + np.linalg.norm(np.ptp(positions, axis=0))
        reach = np.ceil(widest * np.linalg.norm(dual, axis=0)).astype(int)
    found = set()
    for shift in itertools.product(*(range(-r, r + 1) for r in (reach if len(lattice) else []))):
        whole = np.zeros(3, dtype=int)
        whole[pbc] = shift
        vectors = positions[None] - positions[:, None] + whole @ cell
        for i, j in np.argwhere((vectors**2).sum(2) < cutoff**2):
            if i != j or whole.any():
                found.add((int(i), int(j), *whole.tolist()))
    return found


def by_ase(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> set[tuple]:
    i, j, shifts = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff)
    return set(zip(i.tolist(), j.tolist(), *shifts.T.tolist(), strict=True))


def as_set(edge_index: np.ndarray, shifts: np.ndarray) -> set[tuple]:
    rows = [*zip(*edge_index.tolist(), *shifts.T.tolist(), strict=True)]
    assert len(set(rows)) == len(rows)
    return set(rows)


@pytest.mark.parametrize("search", [neighbor_list, vesin_neighbor_list])
@pytest.mark.parametrize("cutoff", [1.5, 3.4, 6.5])
@pytest.mark.parametrize("name", SYSTEMS)
def test_equals_brute_force_and_ase(name: str, cutoff: float, search: Callable) -> None:
    for seed in range(2):
        positions, cell, pbc = make(name, seed)
        edge_index, shifts = search(positions, cell, pbc, cutoff)
        expected = brute_force(positions, cell, pbc, cutoff)
        assert as_set(edge_index, shifts) == expected
        assert by_ase(positions, cell, pbc, cutoff) == expected
        assert edge_index.dtype == np.int64
        assert shifts.dtype == np.int32
        assert (np.diff(edge_index[0]) >= 0).all()
        assert (edge_index.shape, shifts.shape) == ((2, len(expected)), (len(expected), 3))


def test_equals_ase_in_the_flattest_real_cells() -> None:
    frames = read_runner(SAMPLE)
    flattest = sorted(frames, key=lambda frame: -np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max())[:5]
    for frame in flattest:
        for cutoff in (3.4, 6.0):
            ours = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff)
            assert as_set(*ours) == by_ase(frame.positions, frame.cell, frame.pbc, cutoff)


def test_every_edge_has_its_reverse() -> None:
    edges = as_set(*neighbor_list(*make("tiny", 0), 6.0))
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in edges} == edges


def test_rows_of_aperiodic_directions_are_ignored() -> None:
    positions, cell, pbc = make("slab", 0)
    expected = as_set(*neighbor_list(positions, cell, pbc, 4.0))
    for row in ([0, 0, 0], [0.1, 0.2, 0.1], [100.0, 3.0, -2.0], [np.inf] * 3):
        other = cell.copy()
        other[2] = row
        assert as_set(*neighbor_list(positions, other, pbc, 4.0)) == expected


def test_arguments_are_left_alone() -> None:
    positions, cell, pbc = make("slab", 0)
    before = positions.copy(), cell.copy(), pbc.copy()
    neighbor_list(positions, cell, pbc, 4.0)
    full_cell(cell, pbc)
    for now, old in zip((positions, cell, pbc), before, strict=True):
        np.testing.assert_array_equal(now, old)


@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        (NOTHING, ALL, "no lattice vector in a periodic direction"),
        (np.diag([5.0, 5.0, 0.0]), ALL, "no lattice vector"),
        (np.diag([5.0, 0.0, 5.0]), (False, True, False), "no lattice vector"),
        (np.array([[5.0, 0, 0], [0, 5, 0], [5, 5, 0]]), ALL, "span no volume"),
        (np.array([[5.0, 0, 0], [10, 0, 0], [0, 0, 5]]), (True, True, False), "span no volume"),
        (np.full((3, 3), np.nan), ALL, "finite"),
        (np.diag([5.0, np.inf, 5.0]), ALL, "finite"),
    ],
)
def test_a_periodic_direction_needs_a_lattice_vector(cell: np.ndarray, pbc: tuple, message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        neighbor_list(np.zeros((1, 3)), cell, np.array(pbc), 3.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_must_be_finite(bad: float) -> None:
    positions, cell, pbc = make("cubic", 0)
    positions[3, 1] = bad
    with pytest.raises(MdpotError, match="positions must be finite"):
        neighbor_list(positions, cell, pbc, 3.0)


# ---- Verlet list -----------------------------------------------------------------------

NUMBERS = np.ones(30, dtype=int)


@pytest.mark.parametrize("name", ["triclinic", "tiny", "slab", "wire", "cluster", "unwrapped"])
@pytest.mark.parametrize("skin", [0.0, 0.4, 1.5])
def test_verlet_equals_fresh_lists_along_a_random_walk(name: str, skin: float) -> None:
    positions, cell, pbc = make(name, 1)
    numbers = NUMBERS[: len(positions)]
    verlet, rng, n_steps = VerletList(3.4, skin), np.random.default_rng(0), 80
    for _ in range(n_steps):
        positions = positions + rng.normal(scale=0.05, size=positions.shape)
        found = as_set(*verlet.update(numbers, positions, cell, pbc))
        assert found == as_set(*neighbor_list(positions, cell, pbc, 3.4))
    if skin == 0.0:
        assert verlet.n_builds == n_steps
    else:
        assert 1 < verlet.n_builds < n_steps / 2


def test_verlet_rebuilds_beyond_half_the_skin_and_not_before() -> None:
    positions, cell, pbc = make("cubic", 0)
    verlet = VerletList(3.0, 0.6)
    verlet.update(NUMBERS, positions, cell, pbc)
    for distance, n_builds in ((0.299, 1), (-0.299, 1), (0.301, 2)):
        moved = positions.copy()
        moved[7] += distance * np.array([0.6, 0.0, 0.8])
        found = as_set(*verlet.update(NUMBERS, moved, cell, pbc))
        assert found == as_set(*neighbor_list(moved, cell, pbc, 3.0))
        assert verlet.n_builds == n_builds
    # Counted from the last build, not from the first.
    verlet.update(NUMBERS, positions, cell, pbc)
    assert verlet.n_builds == 3


def test_verlet_sees_two_atoms_that_approach_each_other() -> None:
    """Each moves by a little less than half the skin: together they come from outside into the cutoff."""
    verlet, numbers, pbc = VerletList(3.0, 1.0), np.ones(2, dtype=int), np.zeros(3, dtype=bool)
    positions = np.array([[0, 0, 0], [3.99, 0, 0]])
    assert verlet.update(numbers, positions, NOTHING, pbc)[0].shape == (2, 0)
    positions[:, 0] = [0.4999, 3.4901]
    assert verlet.update(numbers, positions, NOTHING, pbc)[0].shape == (2, 2)
    assert verlet.n_builds == 1


@pytest.mark.parametrize("name", ["triclinic", "tiny", "unwrapped"])
def test_verlet_follows_a_cell_that_is_strained_with_its_atoms(name: str) -> None:
    positions, cell, pbc = make(name, 1)
    numbers = NUMBERS[: len(positions)]
    verlet, rng, n_steps = VerletList(3.4, 0.5), np.random.default_rng(0), 100
    for _ in range(n_steps):
        strain = np.eye(3) + rng.normal(scale=2e-3, size=(3, 3))
        positions, cell = positions @ strain + rng.normal(scale=0.02, size=positions.shape), cell @ strain
        found = as_set(*verlet.update(numbers, positions, cell, pbc))
        assert found == as_set(*neighbor_list(positions, cell, pbc, 3.4))
    assert 1 < verlet.n_builds < n_steps / 2


@pytest.mark.parametrize(("scale", "n_builds"), [(0.834, 1), (0.832, 2), (1.5, 1)])
def test_verlet_rebuilds_when_a_strain_takes_all_of_the_skin(scale: float, n_builds: int) -> None:
    """The list reaches to 3.6 Å, which 3.0 / 3.6 = 0.8333 brings to the cutoff."""
    positions, cell, pbc = make("cubic", 0)
    verlet = VerletList(3.0, 0.6)
    verlet.update(NUMBERS, positions, cell, pbc)
    strain = np.diag([1.0, scale, 1.0])
    found = as_set(*verlet.update(NUMBERS, positions @ strain, cell @ strain, pbc))
    assert found == as_set(*neighbor_list(positions @ strain, cell @ strain, pbc, 3.0))
    assert verlet.n_builds == n_builds


def test_verlet_rebuilds_when_anything_else_changes() -> None:
    positions, cell, pbc = make("cubic", 0)
    slab = np.array([True, True, False])
    changes = [
        (NUMBERS, positions, cell, pbc),
        (NUMBERS, positions, cell * 1.3, pbc),
        (NUMBERS, positions, cell, slab),
        (NUMBERS * 8, positions, cell, pbc),
        (NUMBERS[:-1], positions[:-1], cell, pbc),
        (NUMBERS, positions, cell, pbc),
    ]
    verlet = VerletList(3.0, 0.6)
    for n, (numbers, x, box, periodic) in enumerate(changes, start=1):
        for _ in range(2):
            found = as_set(*verlet.update(numbers, x, box, periodic))
            assert found == as_set(*neighbor_list(x, box, periodic, 3.0))
            assert verlet.n_builds == n


def test_verlet_does_not_follow_arrays_that_change_in_place() -> None:
    positions, cell, pbc = make("cubic", 0)
    numbers = NUMBERS.copy()
    verlet = VerletList(3.0, 0.6)
    for n_builds in (1, 2, 3):
        found = as_set(*verlet.update(numbers, positions, cell, pbc))
        assert found == as_set(*neighbor_list(positions, cell, pbc, 3.0))
        assert verlet.n_builds == n_builds
        if n_builds == 1:
            positions[4] += 0.4
        else:
            cell = cell.copy()
            cell[0, 1] += 1.0


@pytest.mark.parametrize("name", ["cubic", "cluster"])
def test_verlet_refuses_nan_and_recovers(name: str) -> None:
    positions, cell, pbc = make(name, 0)
    numbers = np.ones(len(positions), dtype=int)
    verlet = VerletList(3.0, 0.6)
    expected = as_set(*verlet.update(numbers, positions, cell, pbc))
    for bad in (np.nan, np.inf):
        broken = positions.copy()
        broken[5, 2] = bad
        with pytest.raises(MdpotError, match="positions must be finite"):
            verlet.update(numbers, broken, cell, pbc)
    assert as_set(*verlet.update(numbers, positions, cell, pbc)) == expected


@pytest.mark.parametrize(("cutoff", "skin", "message"), [(0.0, 0.5, "cutoff"), (-1, 0.5, "cutoff"), (3, -0.1, "skin")])
def test_verlet_refuses_lengths_that_make_no_sense(cutoff: float, skin: float, message: str) -> None:
    with pytest.raises(MdpotError, match=f"{message} must"):
        VerletList(cutoff, skin)
