"""The scriptable neighbor list: brute-force image sums and ASE; the Verlet skin against fresh lists."""

from __future__ import annotations

import copy
import io
import itertools
import warnings

import numpy as np
import pytest
import torch
from ase.neighborlist import primitive_neighbor_list

from mdpot.errors import MdpotError
from mdpot.torch_neighbors import TorchNeighborList
from mdpot.torch_pairs import complete_cell, find_pairs

CUBIC = np.eye(3) * 9.0
TRICLINIC = np.array([[8.0, 0.0, 0.0], [3.1, 7.5, 0.0], [-2.2, 2.9, 6.8]])
LEFT_HANDED = TRICLINIC[[1, 0, 2]]
TINY = np.array([[3.6, 0.0, 0.0], [1.2, 3.7, 0.0], [0.4, -1.5, 3.6]])
FLAT = np.array([[40.0, 0.0, 0.0], [0.0, 4.1, 0.0], [0.0, 7.0, 5.0]])
NONE = np.zeros((3, 3))
ALL, SLAB = (True, True, True), (True, False, True)
WIRE, MOLECULE = (False, False, True), (False, False, False)

# name: cell, periodic directions, number of atoms, spread of the positions in Å
SYSTEMS = {
    "cubic": (CUBIC, ALL, 60, 9.0),
    "triclinic": (TRICLINIC, ALL, 50, 8.0),
    "left-handed": (LEFT_HANDED, ALL, 50, 8.0),
    "unwrapped": (TRICLINIC, ALL, 40, 60.0),
    "tiny cell": (TINY, ALL, 6, 3.6),
    "one atom": (TINY, ALL, 1, 1.0),
    "flat triclinic": (FLAT, ALL, 40, 30.0),
    "slab": (TRICLINIC, SLAB, 60, 12.0),
    "slab without third vector": (np.diag([7.0, 0.0, 6.0]), SLAB, 60, 12.0),
    "wire": (np.diag([0.0, 0.0, 4.0]), WIRE, 30, 9.0),
    "wire along a slanted vector": (np.array([[0, 0, 0], [0, 0, 0], [1.0, 2.0, 4.0]]), WIRE, 30, 9.0),
    "molecule": (NONE, MOLECULE, 30, 9.0),
    "molecule in a cell": (CUBIC, MOLECULE, 30, 20.0),
    "sparse cluster": (NONE, MOLECULE, 200, 400.0),
    "dense cluster": (NONE, MOLECULE, 300, 14.0),
    "all in one plane": (NONE, MOLECULE, 200, 0.0),
    "large box": (np.eye(3) * 21.0, ALL, 400, 21.0),
}


def make(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cell, pbc, n_atoms, spread = SYSTEMS[name]
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-0.3, 0.7, (n_atoms, 3)) * spread
    if name == "all in one plane":
        positions = rng.uniform(0, 12, (n_atoms, 3)) * [1, 1, 0]
    return positions, cell, np.array(pbc)


def brute_force(positions, cell, pbc, cutoff) -> set[tuple[int, ...]]:
    """Every (i, j, shift) by trying all shifts in a range that is surely large enough."""
    full = complete_cell(torch.tensor(cell), torch.tensor(pbc)).numpy()
    heights = 1 / np.linalg.norm(np.linalg.inv(full), axis=0)
    spread = np.ptp(positions @ np.linalg.inv(full), axis=0)
    reach = [int(np.ceil(cutoff / h + s)) if p else 0 for h, s, p in zip(heights, spread, pbc, strict=True)]
    found = set()
    for shift in itertools.product(*(range(-r, r + 1) for r in reach)):
        vectors = positions[None] - positions[:, None] + np.array(shift) @ full
        for i, j in np.argwhere((vectors**2).sum(2) < cutoff**2):
            if i != j or any(shift):
                found.add((int(i), int(j), *shift))
    return found


def by_ase(positions, cell, pbc, cutoff) -> set[tuple[int, ...]]:
    i, j, shifts = primitive_neighbor_list("ijS", pbc, cell, positions, cutoff)
    return {(int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, shifts, strict=True)}


def as_set(edge_index: torch.Tensor, shifts: torch.Tensor) -> set[tuple[int, ...]]:
    rows = torch.cat([edge_index, shifts.round().to(torch.int64).T]).T.tolist()
    found = {tuple(row) for row in rows}
    assert len(found) == len(rows), "an edge came twice"
    assert bool((edge_index[0].diff() >= 0).all()), "edges are sorted by central atom"
    return found


def script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch announces the end of TorchScript
        return torch.jit.script(module)


@pytest.fixture(params=["eager", "scripted"])
def build(request):
    """Makes a neighbor list, as a Python module or compiled by TorchScript."""
    if request.param == "eager":
        return TorchNeighborList
    return lambda cutoff, skin=0.5: script(TorchNeighborList(cutoff, skin))


def tensors(positions, cell, pbc, dtype=torch.float64):
    return torch.tensor(positions, dtype=dtype), torch.tensor(cell, dtype=dtype), torch.tensor(pbc)


@pytest.mark.parametrize("cutoff", [2.5, 6.0])
@pytest.mark.parametrize("name", SYSTEMS)
def test_equals_brute_force_and_ase(name, cutoff):
    for seed in range(2):
        positions, cell, pbc = make(name, seed)
        expected = brute_force(positions, cell, pbc, cutoff)
        assert expected == by_ase(positions, cell, pbc, cutoff)
        assert as_set(*TorchNeighborList(cutoff)(*tensors(positions, cell, pbc))) == expected


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("brute", [0, 10**9])
@pytest.mark.parametrize("chunk", [0, 500])
def test_bins_and_brute_force_agree(name, brute, chunk):
    positions, cell, pbc = make(name, 3)
    p, c, b = tensors(positions, cell, pbc)
    pairs = find_pairs(p, complete_cell(c, b), b, 5.0, brute_force=brute, chunk=chunk)
    assert as_set(*pairs) == by_ase(positions, cell, pbc, 5.0)


@pytest.mark.parametrize("name", ["triclinic", "tiny cell", "slab", "molecule", "large box"])
def test_scripted_equals_eager(name):
    list_ = script(TorchNeighborList(4.0))
    for seed in range(3):  # the executor optimizes after the first runs
        positions, cell, pbc = make(name, seed)
        assert as_set(*list_(*tensors(positions, cell, pbc))) == by_ase(positions, cell, pbc, 4.0)


def test_single_precision_edges():
    positions, cell, pbc = make("triclinic", 0)
    edge_index, shifts = TorchNeighborList(4.0)(*tensors(positions, cell, pbc, torch.float32))
    assert shifts.dtype == torch.float32
    assert as_set(edge_index, shifts) == by_ase(positions, cell, pbc, 4.0)


def test_edge_vectors_are_within_the_cutoff():
    p, c, b = tensors(*make("unwrapped", 1))
    (i, j), shifts = TorchNeighborList(4.0)(p, c, b)
    lengths = (p[j] - p[i] + shifts @ c).norm(dim=1)
    assert len(lengths) > 0
    assert bool((lengths < 4.0).all())


@pytest.mark.parametrize("name", ["triclinic", "tiny cell", "slab", "wire", "molecule", "large box"])
def test_skin_while_atoms_move(build, name):
    positions, cell, pbc = make(name, 5)
    rng = np.random.default_rng(0)
    list_ = build(3.5, 0.6)
    for _ in range(25):
        positions = positions + rng.normal(0, 0.03, positions.shape)
        assert as_set(*list_(*tensors(positions, cell, pbc))) == by_ase(positions, cell, pbc, 3.5)
    assert 1 < list_.builds < 20


def test_wrapping_needs_no_build(build):
    positions, cell, pbc = make("triclinic", 5)
    list_ = build(3.5, 0.6)
    rng = np.random.default_rng(1)
    list_(*tensors(positions, cell, pbc))
    for _ in range(5):
        turns = rng.integers(-2, 3, positions.shape)
        wrapped = positions + turns @ cell + rng.normal(0, 0.02, positions.shape)
        assert as_set(*list_(*tensors(wrapped, cell, pbc))) == by_ase(wrapped, cell, pbc, 3.5)
    assert list_.builds == 1


def test_drift_of_all_atoms_together_needs_no_build(build):
    positions, cell, pbc = make("triclinic", 5)
    list_ = build(3.5, 0.6)
    for step in range(20):
        moved = positions + step * np.array([0.2, -0.1, 0.3])
        assert as_set(*list_(*tensors(moved, cell, pbc))) == by_ase(moved, cell, pbc, 3.5)
    assert list_.builds == 1


@pytest.mark.parametrize("name", ["triclinic", "tiny cell", "slab", "wire"])
def test_cell_changes(build, name):
    """Barostat moves: cell and positions scaled together, accepted or not; then larger strains and shears."""
    positions, cell, pbc = make(name, 7)
    list_ = build(3.5, 0.6)
    rng = np.random.default_rng(2)
    for step in range(30):
        strain = np.eye(3) + rng.normal(0, 0.002 if step < 20 else 0.03, (3, 3))
        trial_positions, trial_cell = positions @ strain, cell @ strain
        # Not by ASE, which misses pairs along a slanted wire.
        assert as_set(*list_(*tensors(trial_positions, trial_cell, pbc))) == brute_force(
            trial_positions, trial_cell, pbc, 3.5
        )
        if step % 2:
            positions, cell = trial_positions, trial_cell
        positions = positions + rng.normal(0, 0.01, positions.shape)
    assert list_.builds < 20


def test_small_cell_changes_need_no_build(build):
    positions, cell, pbc = make("triclinic", 7)
    list_ = build(3.5, 0.6)
    for scale in (1.0, 1.01, 0.99, 1.02, 1.0):
        list_(*tensors(scale * positions, scale * cell, pbc))
    assert list_.builds == 1


def test_compression_into_the_cutoff(build):
    """A cell that shrinks with atoms left in place brings images nearer without any atom moving."""
    positions, cell, pbc = make("cubic", 7)
    list_ = build(3.5, 0.6)
    for shrink in np.linspace(1.0, 0.8, 15):
        box = shrink * cell
        assert as_set(*list_(*tensors(positions, box, pbc))) == by_ase(positions, box, pbc, 3.5)


def test_change_of_system(build):
    """Another number of atoms, other periodic directions, another precision: one list serves all in turn."""
    list_ = build(3.5, 0.6)
    for name in ("triclinic", "cubic", "tiny cell", "molecule", "slab", "triclinic"):
        for pbc in (ALL, SLAB, MOLECULE):
            for dtype in (torch.float64, torch.float32):
                positions, cell, _ = make(name, 1)
                cell = cell if cell.any() else CUBIC
                found = as_set(*list_(*tensors(positions, cell, pbc, dtype)))
                assert found == by_ase(positions, cell, pbc, 3.5)


def test_no_skin_builds_when_something_moves(build):
    positions, cell, pbc = make("triclinic", 1)
    list_ = build(3.5, 0.0)
    for _ in range(3):
        list_(*tensors(positions, cell, pbc))
    assert list_.builds == 1
    list_(*tensors(positions + np.random.default_rng(0).normal(0, 1e-3, positions.shape), cell, pbc))
    assert list_.builds == 2


def test_reset_and_no_atoms(build):
    list_ = build(3.5, 0.5)
    positions, cell, pbc = make("triclinic", 1)
    list_(*tensors(positions, cell, pbc))
    list_.reset()
    list_(*tensors(positions, cell, pbc))
    assert list_.builds == 2
    edge_index, shifts = list_(*tensors(np.zeros((0, 3)), cell, pbc))
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)


def test_inputs_stay_as_they_are_and_carry_no_gradient(build):
    p, c, b = tensors(*make("unwrapped", 1))
    before = p.clone(), c.clone()
    p.requires_grad_(True)
    _, shifts = build(3.5)(p, c, b)
    assert torch.equal(p.detach(), before[0])
    assert torch.equal(c, before[1])
    assert not shifts.requires_grad


def test_saved_frozen_and_copied_lists_keep_working():
    positions, cell, pbc = make("triclinic", 1)
    arguments = tensors(positions, cell, pbc)
    expected = by_ase(positions, cell, pbc, 3.5)
    list_ = script(TorchNeighborList(3.5)).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(list_, file)
        file.seek(0)
        others = [torch.jit.load(file), torch.jit.freeze(list_, preserved_attrs=["builds"])]
    for other in [*others, copy.deepcopy(TorchNeighborList(3.5))]:
        for _ in range(3):
            assert as_set(*other(*arguments)) == expected
        assert other.builds == 1


def test_errors(build):
    positions, cell, pbc = make("triclinic", 1)
    broken = positions.copy()
    broken[3, 1] = np.nan
    with pytest.raises(Exception, match="positions: every coordinate must be a finite number"):
        build(3.0)(*tensors(broken, cell, pbc))
    list_ = build(3.0)
    list_(*tensors(positions, cell, pbc))
    with pytest.raises(Exception, match="positions: every coordinate must be a finite number"):
        list_(*tensors(broken, cell, pbc))
    for bad in (NONE, np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]])):
        with pytest.raises(Exception, match="cell: periodic directions need linearly independent"):
            build(3.0)(*tensors(positions, bad, pbc))
    with pytest.raises(MdpotError, match="cutoff: must be positive"):
        TorchNeighborList(0.0)
    with pytest.raises(MdpotError, match="skin must not be negative"):
        TorchNeighborList(3.0, -0.1)
