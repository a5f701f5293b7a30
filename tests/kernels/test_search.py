"""The kernels' search for neighbors against vesin's: the same arrays, whatever the cell and the number of threads."""

from __future__ import annotations

import ctypes
import logging

import numpy as np
import pytest
import torch

from mdpot.kernels import search as module
from mdpot.kernels.search import find_pairs, search
from mdpot.neighbors import neighbor_list
from mdpot.vesin_neighbors import vesin_neighbor_list

ALL, NONE = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
FLAT = np.array([[9.0, 0, 0], [0, 9, 0], [9, 9, 1e-7]])


def assert_same(lib: ctypes.CDLL, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> int:
    """Compares both searches; returns the number of pairs."""
    edge_index, shifts = vesin_neighbor_list(positions, cell, pbc, cutoff)
    for threads in (1, 2, 5):
        found = find_pairs(lib, positions, cell, pbc, cutoff, threads)
        assert found is not None
        np.testing.assert_array_equal(found[0], edge_index)
        np.testing.assert_array_equal(found[1], shifts)
        assert (found[0].dtype, found[1].dtype) == (np.int64, np.int32)
    return len(shifts)


def anything(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Cells of half an Å to 50 Å, skewed or not, atoms inside or anywhere, on a lattice or not."""
    rng = np.random.default_rng(seed)
    lengths = 10 ** rng.uniform(-0.3, 1.7, 3)
    cell = np.diag(lengths) + rng.normal(size=(3, 3)) * lengths.min() * rng.choice([0.0, 0.1, 0.5])
    cell, pbc = cell[rng.permutation(3)], rng.random(3) < 0.7
    cutoff = float(10 ** rng.uniform(-0.5, 0.8))
    positions = rng.uniform(-0.5, 1.0, (int(rng.choice([1, 2, 3, 10, 60, 150])), 3))
    match rng.integers(4):
        case 0:
            positions = positions @ cell
        case 1:
            positions = positions @ cell + 10 ** rng.uniform(0, 5, 3)
        case 2:
            positions = positions * 10 ** rng.uniform(-1, 2)
        case 3:  # on faces and edges of the cell, and on each other
            positions = rng.integers(-3, 4, positions.shape) / 4 @ cell
    return positions, cell, pbc, cutoff


def image_count(cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> float:
    lattice = cell[pbc]
    heights = 1 / np.linalg.norm(np.linalg.pinv(lattice), axis=0) if len(lattice) else np.ones(1)
    return float(np.prod(2 * cutoff / heights + 1))


@pytest.mark.parametrize("seed", range(40))
def test_random_sizes_as_vesin(lib, seed: int) -> None:
    n_pairs = 0
    for k in range(20):
        positions, cell, pbc, cutoff = anything(20 * seed + k)
        if image_count(cell, pbc, cutoff) * len(positions) ** 2 < 1e5:
            n_pairs += assert_same(lib, positions, cell, pbc, cutoff)
    assert n_pairs > 300


def test_nasty_structures(lib, make_structures) -> None:
    for seed in range(3):
        for s in make_structures(seed=seed):
            for cutoff in (0.7, 3.0, 6.5, 14.0):
                if len(s.numbers):
                    assert_same(lib, s.positions, s.cell, s.pbc, cutoff)


def test_many_atoms_on_threads(lib) -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[21.0, 0, 0], [5.0, 20.0, 0], [-4.0, 6.0, 19.0]])
    positions = rng.random((700, 3)) @ cell + rng.integers(-3, 4, (700, 3)) @ cell
    assert assert_same(lib, positions, cell, ALL, 5.5) > 10_000
    for pbc in (NONE, np.array([True, False, True])):
        assert assert_same(lib, positions, cell, pbc, 9.0) > 100


@pytest.mark.parametrize("cutoff", [np.sqrt(2.0), 2.0, np.sqrt(12.0), 4.0])
def test_pairs_at_the_cutoff_are_found_from_both_ends(lib, cutoff: float) -> None:
    """In a lattice that is turned and far from the origin, rounding decides which they are."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    points = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    decided = set()
    for shift in (0.0, 0.1, 1 / 3, 1e3):
        found = find_pairs(lib, (points + shift) @ turn, 4 * turn, ALL, float(cutoff), 1)
        assert found is not None
        rows = set(map(tuple, np.column_stack([found[0].T, found[1]]).tolist()))
        assert {(j, i, -a, -b, -c) for i, j, a, b, c in rows} == rows
        decided.add(len(rows))
    assert min(decided) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -3e10])
def test_what_is_not_finite_is_refused(lib, value: float) -> None:
    for row in (0, 17, 39):
        positions = np.random.default_rng(0).random((40, 3))
        positions[row, 1] = value
        for pbc in (ALL, NONE):
            assert find_pairs(lib, positions, np.eye(3), pbc, 0.5, 2) is None
    cell = np.eye(3)
    cell[1, 2] = value
    assert find_pairs(lib, np.zeros((3, 3)), cell, ALL, 0.5, 1) is None


@pytest.mark.parametrize(
    ("cell", "cutoff"),
    [(FLAT, 4.0), (np.zeros((3, 3)), 4.0), (1e-310 * np.eye(3), 4.0), (1e-3 * np.eye(3), 4.0), (np.eye(3), 1e5)]
    + [(np.eye(3), wrong) for wrong in (0.0, -1.0, 1e-300, np.nan, np.inf)],
)
def test_cells_and_cutoffs_that_are_refused(lib, cell: np.ndarray, cutoff: float) -> None:
    for n_atoms in (1, 40):
        assert find_pairs(lib, np.zeros((n_atoms, 3)), cell, ALL, cutoff, 2) is None


def test_shapes_that_do_not_fit_are_refused(lib) -> None:
    for positions in (np.zeros(3), np.zeros((3, 2)), np.zeros((0, 3))):
        assert find_pairs(lib, positions, np.eye(3), ALL, 1.0, 1) is None
    assert find_pairs(lib, np.zeros((2, 3)), np.eye(2), ALL, 1.0, 1) is None
    assert find_pairs(lib, np.zeros((2, 3)), np.eye(3), np.ones(2, bool), 1.0, 1) is None


def test_crowds_far_apart_are_refused(lib) -> None:
    """Bins that spread over both would hold thousands each."""
    crowd = np.random.default_rng(0).random((9000, 3))
    positions = np.concatenate([crowd, crowd + 1e6])
    assert find_pairs(lib, positions, np.eye(3), NONE, 0.01, 1) is None


def test_all_of_a_cluster(lib) -> None:
    positions = np.random.default_rng(0).normal(size=(30, 3))
    for cutoff in (50.0, 1e200, np.inf):
        found = find_pairs(lib, positions, np.zeros((3, 3)), NONE, cutoff, 1)
        assert found is not None
        assert found[0].shape == (2, 30 * 29)


def test_neighbor_list_takes_it_and_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    positions, cell = np.random.default_rng(0).uniform(0, 6, (30, 3)), 6 * np.eye(3)
    if search(positions, cell, ALL, 4.0) is None:
        pytest.skip("the kernels are not compiled")
    calls = []
    monkeypatch.setattr(module, "find_pairs", lambda *a: calls.append(a) or find_pairs(*a))
    with_it = neighbor_list(positions, cell, ALL, 4.0)
    assert calls[-1][-1] == torch.get_num_threads()
    n_calls = len(calls)
    monkeypatch.setenv("MDPOT_KERNELS", "off")
    without = neighbor_list(positions, cell, ALL, 4.0)
    assert len(calls) == n_calls
    for one, other in zip(with_it, without, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_differs_is_not_trusted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    positions, cell = np.random.default_rng(0).uniform(0, 6, (30, 3)), 6 * np.eye(3)
    if search(positions, cell, ALL, 4.0) is None:
        pytest.skip("the kernels are not compiled")
    wanted = vesin_neighbor_list(positions, cell, ALL, 4.0)

    def wrong(*arguments):
        found = find_pairs(*arguments)
        assert found is not None
        return found[0], found[1] + 1

    module._trusted.cache_clear()
    monkeypatch.setattr(module, "find_pairs", wrong)
    with caplog.at_level(logging.WARNING, "mdpot.kernels"):
        found = neighbor_list(positions, cell, ALL, 4.0)
    module._trusted.cache_clear()
    assert "vesin finds the neighbors" in caplog.text
    np.testing.assert_array_equal(found[1], wanted[1])
