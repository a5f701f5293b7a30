"""Structures that no one means to have: the searches find all pairs or say what is wrong, and end soon."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.neighbors import VerletList, neighbor_list
from mdpot.torch_neighbors import TorchNeighborList
from mdpot.vesin_neighbors import vesin_neighbor_list

Edges = tuple[np.ndarray, np.ndarray]
Search = Callable[[np.ndarray, np.ndarray, np.ndarray, float], Edges]


def by_torch(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    edges = TorchNeighborList(cutoff, 0.0)(torch.tensor(positions), torch.tensor(cell), torch.tensor(pbc))
    return edges[0].numpy(), edges[1].numpy().astype(int)


def by_verlet(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    return VerletList(cutoff, 0.4).update(np.ones(len(positions), int), positions, cell, pbc)


@cache
def scripted() -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch announces the end of TorchScript
        return torch.jit.script(TorchNeighborList(1.0, 0.0))


def by_torchscript(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Edges:
    """As in the files that are exported."""
    module: Any = scripted()
    module.cutoff = cutoff
    module.reset()
    try:
        edges = module(torch.tensor(positions), torch.tensor(cell), torch.tensor(pbc))
    except torch.jit.Error as error:  # which is a RuntimeError
        raise RuntimeError(str(error)) from None
    return edges[0].numpy(), edges[1].numpy().astype(int)


SEARCHES: dict[str, Search] = {
    "numpy": neighbor_list,
    "vesin": vesin_neighbor_list,
    "verlet": by_verlet,
    "torch": by_torch,
    "torchscript": by_torchscript,
}


@pytest.fixture(params=SEARCHES)
def search(request: pytest.FixtureRequest) -> Search:
    return SEARCHES[request.param]


def brute_force(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """All (i, j, shift) in order, by every pair and every image that the lengths between lattice planes allow."""
    lattice = cell[pbc]
    dual = np.linalg.pinv(lattice) if len(lattice) else np.zeros((3, 0))
    wrap = np.floor(positions @ dual).astype(int)
    home = positions - wrap @ lattice
    reach = [int(np.ceil(cutoff * np.linalg.norm(d))) + 1 for d in dual.T]
    found = []
    for shift in itertools.product(*(range(-r, r + 1) for r in reach)):
        vectors = home[None] - home[:, None] + np.array(shift) @ lattice if reach else home[None] - home[:, None]
        for i, j in np.argwhere((vectors**2).sum(2) < cutoff**2):
            if i != j or any(shift):
                whole = np.zeros(3, dtype=int)
                whole[pbc] = np.array(shift, dtype=int) + wrap[i] - wrap[j]
                found.append((i, j, *whole))
    return np.array(sorted(found), dtype=int).reshape(-1, 5)


def nasty(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Cells from 1.5 to 1e6 Å long, slanted, periodic anyhow; clumps of atoms far apart, unwrapped far away."""
    rng = np.random.default_rng(seed)
    lengths = 10 ** rng.choice([rng.uniform(0.2, 1.2), rng.uniform(1, 6)], size=3)
    slant = np.tril(rng.uniform(-1, 1, (3, 3)), -1) * rng.choice([0.0, 0.5, 3.0])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    cell = lengths[:, None] * (np.eye(3) + slant) @ turn
    pbc = rng.random(3) < 0.6
    centers = rng.random((rng.integers(1, 4), 3)) @ np.where(pbc[:, None], cell, 1e5 * rng.normal(size=(3, 3)))
    clumps = [c + rng.uniform(-3, 3, (rng.integers(1, 7), 3)) for c in centers]
    positions = np.concatenate(clumps)
    cells_away = rng.integers(-3, 4, (len(positions), 3)) * rng.choice([0, 1, 100], size=(len(positions), 1))
    positions = positions + (cells_away * pbc) @ cell
    cutoff = float(rng.uniform(0.5, 3.0) * min(lengths.min(), 4.0))
    if rng.random() < 0.3:
        cell[~pbc] = 0.0
    return positions, cell, pbc, cutoff


@pytest.mark.parametrize("seed", range(60))
def test_all_pairs_in_order(seed: int, search: Search) -> None:
    positions, cell, pbc, cutoff = nasty(seed)
    edge_index, shifts = search(positions, cell, pbc, cutoff)
    found = np.concatenate([edge_index, shifts.T]).T
    np.testing.assert_array_equal(found, brute_force(positions, cell, pbc, cutoff))


def test_the_nasty_ones_are_many_kinds() -> None:
    """So that the test above cannot pass for want of pairs."""
    cases = [nasty(seed) for seed in range(60)]
    pairs = [len(brute_force(*case)) for case in cases]
    assert sum(n > 0 for n in pairs) > 40
    assert max(pairs) > 300
    assert {int(pbc.sum()) for _, _, pbc, _ in cases} == {0, 1, 2, 3}


ALL, NONE = np.ones(3, bool), np.zeros(3, bool)
WIRE = np.array([True, False, False])


@pytest.mark.parametrize(
    ("cell", "n_atoms"),
    [((4, 1500, 1500), 1), ((4, 1500, 1500), 50), ((1500, 4, 1e6), 3), ((1e8, 1e8, 4), 1), ((4, 4, 1e9), 1)],
)
def test_long_thin_cells(cell: tuple, n_atoms: int, search: Search) -> None:
    """vesin 0.6.2 divides by zero in the first: it merges its cells until there are none in the short direction."""
    positions = np.arange(n_atoms)[:, None] * np.array([[0.1, 0.2, 0.3]])
    edges = search(positions, np.diag(cell).astype(float), ALL, 4.5)[0]
    assert edges.shape[1] == len(brute_force(positions, np.diag(cell).astype(float), ALL, 4.5))


def _seconds(search: Search, *system: object) -> tuple[Edges, float]:
    start = time.process_time()
    found = search(*system)  # type: ignore[arg-type]
    return found, time.process_time() - start


@pytest.mark.parametrize("far", [800.0, 2e5, 1e8])
@pytest.mark.parametrize("pbc", [NONE, WIRE, ALL])
def test_a_stray_molecule(far: float, pbc: np.ndarray, search: Search) -> None:
    rng = np.random.default_rng(0)
    group = rng.uniform(0, 12, (150, 3))
    cell = np.diag([12.0, 2 * far, 3 * far])
    (edges, _), seconds = _seconds(search, np.concatenate([group, group[:9] + np.array([0, far, far])]), cell, pbc, 4.0)
    expected = search(group, cell, pbc, 4.0)[0].shape[1] + search(group[:9], cell, pbc, 4.0)[0].shape[1]
    assert edges.shape[1] == expected
    assert seconds < 2


def test_a_large_group_and_a_stray(search: Search) -> None:
    """The bins of a search that spread over both would hold the whole group."""
    group = np.random.default_rng(0).uniform(0, 60, (20_000, 3))
    (edges, _), seconds = _seconds(search, np.concatenate([group, [[1e6, 2e6, 3e6]]]), np.zeros((3, 3)), NONE, 3.0)
    assert edges.shape[1] == search(group, np.zeros((3, 3)), NONE, 3.0)[0].shape[1]
    assert seconds < 10


def test_a_cutoff_beyond_everything(search: Search) -> None:
    positions = np.random.default_rng(0).normal(size=(30, 3))
    for cutoff in (50.0, 1e9, 1e200):
        assert search(positions, np.zeros((3, 3)), NONE, cutoff)[0].shape[1] == 30 * 29


def test_no_atoms(search: Search) -> None:
    for pbc in (NONE, ALL):
        edges, shifts = search(np.zeros((0, 3)), np.eye(3) * 5, pbc, 3.0)
        assert edges.shape == (2, 0)
        assert shifts.shape == (0, 3)


REFUSED = {
    "flat": (np.array([[9.0, 0, 0], [0, 9, 0], [9, 9, 1e-7]]), [0.0, 0, 0], 4.0),
    "flat and huge": (np.array([[9e8, 0, 0], [0, 9e8, 0], [9e8, 9e8, 1.0]]), [0.0, 0, 0], 4.0),
    "tiny": (np.eye(3) * 1e-3, [0.0, 0, 0], 4.0),
    "denormal": (np.eye(3) * 1e-310, [0.0, 0, 0], 4.0),
    "huge": (np.eye(3) * 1e200, [0.0, 0, 0], 4.0),
    "infinite": (np.full((3, 3), np.inf), [0.0, 0, 0], 4.0),
    "no number": (np.full((3, 3), np.nan), [0.0, 0, 0], 4.0),
    "far": (np.eye(3) * 10, [3e10, 0, 0], 4.0),
    "farther": (np.eye(3) * 10, [1e300, 0, 0], 4.0),
    "nan": (np.eye(3) * 10, [np.nan, 0, 0], 4.0),
    "inf": (np.eye(3) * 10, [0, np.inf, 0], 4.0),
    "cutoff": (np.eye(3) * 10, [0.0, 0, 0], 1e5),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, search: Search) -> None:
    cell, position, cutoff = REFUSED[name]
    for n_atoms in (1, 40):
        positions = np.array([position] * n_atoms) + 0.01 * np.arange(n_atoms)[:, None]
        with pytest.raises((MdpotError, RuntimeError), match=r"cell|position|lattice"):
            search(positions, cell, ALL, cutoff)


def test_too_many_pairs_of_a_cluster(search: Search) -> None:
    with pytest.raises((MdpotError, RuntimeError), match="units of cell and positions"):
        search(np.zeros((100_000, 3)), np.zeros((3, 3)), NONE, 4.0)


def test_the_order_does_not_depend_on_history() -> None:
    """Lists that were built at other times, and one that is built now, give the same arrays."""
    rng = np.random.default_rng(3)
    cell = np.array([[6.1, 0, 0], [1.3, 5.9, 0], [-0.7, 2.2, 6.3]])
    positions = rng.random((40, 3)) @ cell
    numbers = np.ones(40, int)
    lists = [VerletList(5.0, 0.6) for _ in range(4)]
    torches = [TorchNeighborList(5.0, 0.6) for _ in range(4)]
    for step in range(60):
        positions = positions + rng.normal(scale=0.03, size=positions.shape)
        edges, shifts = VerletList(5.0, 0.6).update(numbers, positions, cell, ALL)
        assert (np.diff(edges[0]) >= 0).all()
        if step % 7 < 4:  # each sees steps of its own
            found = [lists[step % 7].update(numbers, positions, cell, ALL)]
            module = torches[step % 7]
            found.append(module(torch.tensor(positions), torch.tensor(cell), torch.tensor(ALL)))
            for other_edges, other_shifts in found:
                np.testing.assert_array_equal(edges, np.asarray(other_edges))
                np.testing.assert_array_equal(shifts, np.asarray(other_shifts))
        if step % 10 == 9:
            cell = cell * (1 + 1e-3 * rng.normal())
            positions = positions + rng.integers(-1, 2, (40, 3)) @ cell  # wrapped by someone
    assert all(1 < module.builds < 30 for module in torches)
