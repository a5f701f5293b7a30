"""The store against ASE's neighbor list and against frames put side by side by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.neighborlist import primitive_neighbor_list

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner
from mdpot.training.data.store import Store, batches, count_batches
from mdpot.training.kinds import composition
from mdpot.training.objectives.labels import MANY_COMPOSITIONS

CUTOFF = 3.4


def _edge_set(pairs: np.ndarray, shifts: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, np.concatenate([pairs.T, shifts], axis=1).astype(int).tolist()))


def _assert_edges_are_those_of_ase(frames: list[Frame], cutoff: float) -> None:
    store = Store(frames, cutoff)
    for k, frame in enumerate(frames):
        graph = store.batch(torch.tensor([k]), dtype=torch.float64).graph
        i, j, shifts = primitive_neighbor_list("ijS", frame.pbc, frame.cell, frame.positions, cutoff)
        ours = _edge_set(graph.edge_index.numpy(), graph.shifts.numpy())
        assert len(ours) == graph.n_edges
        assert ours == _edge_set(np.stack([i, j]), shifts)


@pytest.fixture(scope="module")
def store(sample_frames) -> Store:
    return Store(sample_frames, CUTOFF, {1: -400.0, 8: -800.0}, "H2O")


def test_edges_of_the_sample(sample_frames) -> None:
    small = [frame for frame in sample_frames if len(frame) <= 48]
    _assert_edges_are_those_of_ase(small, CUTOFF)


def test_edges_of_the_nastiest_real_cells(data_folder: Path) -> None:
    frames = read_runner(data_folder / "water-rpbe" / "input.data.gz")
    heights = [1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max() for frame in frames]
    angles = [np.abs(np.cos(np.deg2rad(_angles(frame.cell)))).max() for frame in frames]
    nasty = [*np.argsort(heights)[:10], *np.argsort(angles)[-10:]]
    assert min(heights) < 4
    _assert_edges_are_those_of_ase([frames[k] for k in nasty], 5.0)


def _angles(cell: np.ndarray) -> np.ndarray:
    unit = cell / np.linalg.norm(cell, axis=1, keepdims=True)
    return np.rad2deg(np.arccos([unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]]))


def test_edges_without_a_cell_and_in_a_slab(make_frame) -> None:
    rng = np.random.default_rng(0)
    fields = {
        "numbers": np.full(20, 1),
        "positions": rng.uniform(-5, 5, (20, 3)),
        "forces": np.zeros((20, 3)),
    }
    alone = make_frame(**fields, cell=np.zeros((3, 3)), pbc=np.zeros(3, dtype=bool))
    slab = make_frame(**fields, cell=np.diag([4.0, 5, 30]), pbc=np.array([True, True, False]))
    _assert_edges_are_those_of_ase([alone, slab], 4.5)


def test_a_cutoff_shorter_than_a_bond(sample_frames) -> None:
    few = sample_frames[:5]
    _assert_edges_are_those_of_ase(few, 1.1)
    short, long = Store(few, 1.1, molecule="H2O"), Store(few, 5.0, molecule="H2O")
    assert torch.equal(short.molecule, long.molecule)
    assert torch.equal(short.whole, long.whole)


def test_a_batch_is_its_frames_side_by_side(store: Store, sample_frames) -> None:
    indices = torch.tensor([7, 0, 31, 7])
    batch = store.batch(indices, dtype=torch.float64)
    frames = [sample_frames[k] for k in indices.tolist()]
    starts = np.cumsum([0, *[len(frame) for frame in frames]])
    graph = batch.graph
    assert graph.n_systems == 4
    np.testing.assert_array_equal(graph.numbers, np.concatenate([f.numbers for f in frames]))
    np.testing.assert_array_equal(graph.positions, np.concatenate([f.positions for f in frames]))
    np.testing.assert_array_equal(graph.cell, np.stack([f.cell for f in frames]))
    np.testing.assert_array_equal(graph.system, np.repeat(np.arange(4), np.diff(starts)))
    np.testing.assert_array_equal(batch.labels["energy"], [f.energy for f in frames])
    np.testing.assert_array_equal(batch.labels["forces"], np.concatenate([f.forces for f in frames]))
    assert graph.pbc.all()
    assert batch.labels.keys() == {"energy", "forces", "interaction"}
    assert not batch.marks.any()
    reference = [-1600.0 * len(f) / 3 for f in frames]
    np.testing.assert_allclose(
        batch.labels["interaction"], [f.energy - r for f, r in zip(frames, reference, strict=True)]
    )
    edges = [store.batch(torch.tensor([k]), dtype=torch.float64).graph for k in indices.tolist()]
    expected = np.concatenate([e.edge_index + s for e, s in zip(edges, starts, strict=False)], axis=1)
    np.testing.assert_array_equal(graph.edge_index, expected)
    np.testing.assert_array_equal(graph.shifts, np.concatenate([e.shifts for e in edges]))
    # Sorted by the central atom, and inside the cutoff.
    assert (graph.edge_index[0].diff() >= 0).all()
    i, j = graph.edge_index
    shift = torch.einsum("ek,ekl->el", graph.shifts, graph.cell[graph.system[i]])
    lengths = (graph.positions[j] - graph.positions[i] + shift).norm(dim=1)
    assert lengths.max() < CUTOFF


def test_molecules_of_a_batch(store: Store, sample_frames) -> None:
    batch = store.batch(torch.tensor([5, 40, 5, 2]), dtype=torch.float64)
    molecule = batch.molecule
    found, counts = torch.unique(molecule[molecule >= 0], return_counts=True)
    assert found.tolist() == list(range(batch.n_molecules))
    assert (counts == 3).all()
    for k in found.tolist():
        members = torch.where(molecule == k)[0]
        assert len(set(batch.graph.system[members].tolist())) == 1
        assert sorted(batch.graph.numbers[members].tolist()) == [1, 1, 8]
        spread = torch.cdist(batch.whole[members], batch.whole[members])
        assert spread.max() < 2.3
    all_found = store.molecule[store.molecule >= 0].unique()
    assert torch.equal(all_found, torch.arange(int(store.n_molecules_per_frame.sum())))


def test_dtypes_and_absent_labels(make_frame) -> None:
    stress = np.arange(9.0).reshape(3, 3)
    store = Store([make_frame(energy=None, forces=None), make_frame(stress=stress)], CUTOFF)
    batch = store.batch(torch.tensor([1, 0]))
    assert batch.graph.positions.dtype == batch.labels["forces"].dtype == batch.whole.dtype == torch.float32
    assert batch.graph.shifts.dtype == torch.float32
    assert batch.labels["energy"].dtype == torch.float64
    assert batch.present["energy"].tolist() == batch.present["interaction"].tolist() == [True, False]
    assert batch.there("forces").tolist() == [True] * 3 + [False] * 3
    np.testing.assert_array_equal(batch.labels["stress"][0], stress)
    assert batch.present["stress"].tolist() == [True, False]
    assert not any(bool(torch.isnan(values).any()) for values in batch.labels.values())


def test_far_translations_are_kept(make_frame) -> None:
    near = make_frame()
    far = make_frame(positions=near.positions + np.array([[0, 0, 0], [6.0 * 500, 0, 0], [0, -6.0 * 300, 0]]))
    graph = Store([far], CUTOFF).batch(torch.tensor([0]), torch.float64).graph
    assert graph.shifts.abs().max() >= 300
    i, j = graph.edge_index
    assert ((graph.positions[j] - graph.positions[i] + graph.shifts * 6).norm(dim=1) < CUTOFF).all()


def test_moving_keeps_counts_on_the_cpu(make_frame) -> None:
    store = Store([make_frame()], CUTOFF).to("meta")
    assert store.device.type == "meta"
    assert store.n_atoms_per_frame.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_a_gpu_is_that_on_the_cpu(sample_frames) -> None:
    indices = torch.tensor([3, 1, 2])
    expected = Store(sample_frames[:5], CUTOFF, molecule="H2O").batch(indices)
    batch = Store(sample_frames[:5], CUTOFF, molecule="H2O").to("cuda").batch(indices)
    assert batch.graph.positions.device.type == "cuda"
    for name in ("edge_index", "shifts", "positions", "system"):
        assert torch.equal(getattr(batch.graph, name).cpu(), getattr(expected.graph, name))
    assert torch.equal(batch.molecule.cpu(), expected.molecule)


def test_a_cell_and_its_supercells_have_one_composition() -> None:
    structures = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("NaCl", "rocksalt", a=5.7) * (3, 2, 1),
        bulk("Na"),
        molecule("CH4"),
    ]
    frames = [Frame(a.numbers, a.positions, a.cell.array, a.pbc) for a in structures]
    assert Store(frames[1:], CUTOFF).n_compositions() == pytest.approx(3)
    assert Store(frames[:2], CUTOFF).n_compositions() == pytest.approx(1)
    assert 1 < Store([frames[0]] * 20 + frames[2:], CUTOFF).n_compositions() < 2


def test_compositions_are_counted_as_they_are_named() -> None:
    structures = [
        molecule("C2H4"),
        molecule("C3H6_D3h"),  # of the ratio of ethylene, and no part of it
        bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1),
        bulk("NaCl", "rocksalt", a=5.6),
    ]
    frames = [Frame(a.numbers, a.positions, a.cell.array, a.pbc) for a in structures]
    assert [composition(frame) for frame in frames] == ["C2H4", "C3H6", "NaCl", "NaCl"]
    assert Store(frames[:2], CUTOFF).n_compositions() == 2
    assert Store(frames[2:], CUTOFF).n_compositions() == 1


def test_twenty_compositions_are_twenty() -> None:
    frames = [Frame(np.array([z]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool)) for z in range(1, 21)]
    assert Store(frames, CUTOFF).n_compositions() >= MANY_COMPOSITIONS


def test_refusals(make_frame) -> None:
    with pytest.raises(MdpotError, match="at least one frame"):
        Store([], CUTOFF)
    with pytest.raises(MdpotError, match=r"it lacks Z = \[8\]"):
        Store([make_frame()], CUTOFF, {1: 0.0})
    with pytest.raises(MdpotError, match="no lattice vector"):
        Store([make_frame(cell=np.zeros((3, 3)))], CUTOFF)


@pytest.mark.parametrize("n_atoms", [50, 250, 500, 10**6])
def test_batches_of_about_so_many_atoms(store: Store, n_atoms: int) -> None:
    largest = int(store.n_atoms_per_frame.max())
    counts = set()
    for seed in range(5):
        cut = batches(store, n_atoms, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.cat(cut).sort().values, torch.arange(len(store)))
        sums = torch.stack([store.n_atoms_per_frame[indices].sum() for indices in cut])
        assert sums.max() - sums.min() <= 2 * largest
        assert sums.double().mean() >= min(n_atoms, int(store.n_atoms_per_frame.sum()))
        assert all(len(indices) for indices in cut)
        counts.add(len(cut))
    assert counts == {count_batches(store, n_atoms)}


def test_batches_of_so_many_frames(store: Store) -> None:
    cut = batches(store, n_frames=16, generator=torch.Generator().manual_seed(0))
    assert len(cut) == count_batches(store, n_frames=16)
    assert {len(indices) for indices in cut[:-1]} == {16}
    assert torch.equal(torch.cat(cut).sort().values, torch.arange(len(store)))
    again = batches(store, n_frames=16, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(cut, again, strict=True))
    assert torch.equal(torch.cat(batches(store, n_frames=7)), torch.arange(len(store)))


@pytest.mark.parametrize("sizes", [{}, {"n_atoms": 5, "n_frames": 5}, {"n_frames": 0}, {"n_atoms": -3}])
def test_batches_refuse(store: Store, sizes: dict) -> None:
    with pytest.raises(MdpotError, match=r"one of n_atoms and n_frames|positive number"):
        batches(store, **sizes)
