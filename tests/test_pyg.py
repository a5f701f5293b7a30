"""Graphs as data of PyTorch Geometric and back; PyG's own message passing must see the same neighbors."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mdpot.errors import MdpotError
from mdpot.graph import Graph
from mdpot.heads.potential import edge_vectors

pyg = pytest.importorskip("torch_geometric")
CUTOFF = 3.4


@pytest.fixture
def structures() -> list[Atoms]:
    slanted = bulk("Cu") * (1, 2, 1)
    slanted.rattle(0.1, seed=1)
    slab = Atoms("OH", [[0, 0, 0], [0, 0.9, 0.3]], cell=np.diag([3.0, 3.1, 0]), pbc=(True, True, False))
    return [molecule("CH3OH"), slanted, Atoms("He"), slab]


def assert_same(one: Graph, other: Graph) -> None:
    for field in fields(Graph):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert a.dtype == b.dtype, field.name
        assert torch.equal(a, b), field.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back_to_the_bit(structures: list[Atoms], dtype: torch.dtype) -> None:
    graph = Graph.from_atoms(structures, CUTOFF, dtype)
    batch = graph.to_pyg()
    assert isinstance(batch, pyg.data.Batch)
    assert batch.validate()
    assert batch.natoms.tolist() == [len(atoms) for atoms in structures]
    assert torch.equal(batch.batch, graph.system)
    assert_same(Graph.from_pyg(batch), graph)
    for k, data in enumerate(batch.to_data_list()):
        assert_same(Graph.from_pyg(data), Graph.from_atoms(structures[k], CUTOFF, dtype))


def test_pyg_passes_messages_to_the_atom_whose_neighbors_they_are(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF, torch.float64)
    # Each atom loses its last neighbor, so that edges are no longer there in both directions.
    last = torch.cat([graph.edge_index[0].diff() > 0, torch.tensor([True])])
    graph = graph.replace(edge_index=graph.edge_index[:, ~last], shifts=graph.shifts[~last])
    batch = graph.to_pyg()
    vectors = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
    expected = torch.zeros_like(graph.positions).index_add(0, graph.edge_index[0], vectors)

    class Sum(pyg.nn.MessagePassing):
        def forward(self, data: Any) -> torch.Tensor:
            lattice = data.cell[data.batch]
            return self.propagate(data.edge_index, pos=data.pos, lattice=lattice, shifts=data.shifts)

        def message(self, pos_i, pos_j, lattice_i, shifts):  # type: ignore[no-untyped-def, override]
            return pos_j - pos_i + torch.einsum("ei,eij->ej", shifts, lattice_i)

    torch.testing.assert_close(Sum(aggr="sum", node_dim=0)(batch), expected, rtol=0, atol=1e-12)
    assert_same(Graph.from_pyg(batch), graph)


def test_edges_are_made_where_there_is_no_neighbor_list(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF, torch.float64)
    batch = graph.to_pyg()
    bonds = batch.edge_index[:, :3]
    for lacking in (("edge_index", "shifts"), ("shifts",)):
        stripped = batch.clone()
        for key in lacking:
            del stripped[key]
        if "edge_index" in stripped:
            stripped.edge_index = bonds  # as QM9 has them: no neighbor list
        assert_same(Graph.from_pyg(stripped, CUTOFF), graph)
        with pytest.raises(MdpotError, match="cutoff must be given"):
            Graph.from_pyg(stripped)


def test_edges_in_any_order_are_sorted(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures[1], CUTOFF, torch.float64)
    data = graph.to_pyg()
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(0))
    data.edge_index, data.shifts = data.edge_index[:, order], data.shifts[order]
    found = Graph.from_pyg(data)
    assert bool((found.edge_index[0].diff() >= 0).all())
    rows = [torch.cat([g.edge_index.T.double(), g.shifts], 1).unique(dim=0) for g in (found, graph)]
    assert torch.equal(*rows)


def test_z_and_pos_are_enough() -> None:
    atoms = molecule("CH3OH")
    data = pyg.data.Data(z=torch.tensor(atoms.numbers), pos=torch.tensor(atoms.positions))
    assert_same(Graph.from_pyg(data, CUTOFF), Graph.from_atoms(atoms, CUTOFF, torch.float64))
    data.cell = torch.eye(3) * 4  # a cell without pbc is one of a crystal
    periodic = Atoms(atoms.numbers, atoms.positions, cell=np.eye(3) * 4, pbc=True)
    assert_same(Graph.from_pyg(data, CUTOFF), Graph.from_atoms(periodic, CUTOFF, torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": None}, "has z .* and pos .*; got pos"),
        ({"z": torch.tensor([1, 8])}, r"z \[n_atoms\]; got \[3, 3\] and \[2\]"),
        ({"z": torch.tensor([1.5, 8, 1])}, "z must be atomic numbers"),
        ({"cell": torch.zeros(2, 3)}, r"cell must have the shape \[1, 3, 3\]; got \[2, 3\]"),
        ({"pbc": torch.zeros(2)}, r"pbc must have the shape \[1, 3\]; got \[2\]"),
        ({"batch": torch.tensor([1, 0, 1])}, "ascending order"),
    ],
)
def test_fields_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None], message: str) -> None:
    data = pyg.data.Data(z=torch.tensor([1, 8, 1]), pos=torch.rand(3, 3))
    for key, value in change.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    with pytest.raises(MdpotError, match=message):
        Graph.from_pyg(data, CUTOFF)


def test_running_a_potential_does_not_import_pyg_and_a_missing_one_is_named() -> None:
    code = """
import sys
sys.modules["torch_geometric"] = None
from ase.build import molecule
import mdpot, mdpot.calculator, mdpot.cli, mdpot.simulate.run, mdpot.training.run, mdpot.openmm
atoms = molecule("H2O")
atoms.calc = mdpot.MaskedGNNCalculator("water-rpbe-small")
assert atoms.get_forces().shape == (3, 3)
graph = mdpot.Graph.from_atoms(atoms, 3.0)
try:
    graph.to_pyg()
except mdpot.MdpotError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir(), timeout=120
    )
    assert done.stdout.strip() == 'PyTorch Geometric is not installed. pip install "mdpot[pyg]"', done.stderr
