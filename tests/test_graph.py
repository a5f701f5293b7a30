"""Graphs from ASE structures and back, and the radial functions, against formulas written out anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from mdpot.errors import MdpotError
from mdpot.graph import Graph
from mdpot.heads.potential import edge_vectors
from mdpot.radial import bessel_basis, polynomial_envelope, repulsive_wall

CUTOFF = 3.4


@pytest.fixture
def structures() -> list[Atoms]:
    slanted = bulk("Cu") * (1, 2, 1)
    slanted.rattle(0.1, seed=1)
    slab = Atoms("OH", [[0, 0, 0], [0, 0.9, 0.3]], cell=np.diag([3.0, 3.1, 0]), pbc=(True, True, False))
    return [molecule("CH3OH"), slanted, Atoms("He"), slab]


def test_edge_vectors_are_distances_to_images(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF, torch.float64)
    vectors = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
    lengths = vectors.norm(dim=1)
    for k, atoms in enumerate(structures):
        from ase.neighborlist import primitive_neighbor_list

        expected = primitive_neighbor_list("d", atoms.pbc, atoms.cell.array, atoms.positions, CUTOFF)
        ours = lengths[graph.system[graph.edge_index[0]] == k]
        np.testing.assert_allclose(np.sort(ours), np.sort(expected), atol=1e-12)
    # No edge joins two structures, and edges are sorted by their centers.
    assert torch.equal(graph.system[graph.edge_index[0]], graph.system[graph.edge_index[1]])
    assert bool((graph.edge_index[0].diff() >= 0).all())


def test_there_and_back(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF, torch.float64)
    assert (graph.n_atoms, graph.n_systems) == (sum(map(len, structures)), 4)
    assert graph.n_edges == graph.edge_index.shape[1] == graph.shifts.shape[0]
    for found, atoms in zip(graph.to_atoms(), structures, strict=True):
        np.testing.assert_array_equal(found.numbers, atoms.numbers)
        np.testing.assert_array_equal(found.positions, atoms.positions)
        np.testing.assert_array_equal(found.cell.array, atoms.cell.array)
        np.testing.assert_array_equal(found.pbc, atoms.pbc)


def test_one_structure_is_a_batch_of_one(structures: list[Atoms]) -> None:
    one, same = Graph.from_atoms(structures[1], CUTOFF), Graph.from_atoms([structures[1]], CUTOFF)
    for a, b in zip(one.inputs(), same.inputs(), strict=True):
        assert torch.equal(a, b)
    assert one.positions.dtype == one.cell.dtype == one.shifts.dtype == torch.float32


def test_conversions_leave_integers_and_the_original_alone(structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF)
    double = graph.to(dtype=torch.float64)
    assert double.positions.dtype == double.cell.dtype == double.shifts.dtype == torch.float64
    assert double.numbers.dtype == double.edge_index.dtype == double.system.dtype == torch.int64
    assert double.pbc.dtype == torch.bool
    assert graph.positions.dtype == torch.float32
    moved = graph.replace(positions=graph.positions + 1)
    assert torch.equal(moved.positions, graph.positions + 1)
    assert moved.edge_index is graph.edge_index


def test_refusals() -> None:
    with pytest.raises(MdpotError, match="no lattice vector in a periodic direction"):
        Graph.from_atoms(Atoms("H", pbc=True), CUTOFF)
    with pytest.raises(MdpotError, match="positions must be finite"):
        Graph.from_atoms(Atoms("H", [[np.nan, 0, 0]]), CUTOFF)


def test_envelope() -> None:
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    torch.testing.assert_close(polynomial_envelope(x * CUTOFF, CUTOFF), expected)
    assert bool((polynomial_envelope(x * CUTOFF, CUTOFF).diff() <= 0).all())
    beyond = polynomial_envelope(torch.tensor([CUTOFF, CUTOFF + 1e-6, 2 * CUTOFF, 1e6]), CUTOFF)
    assert beyond.abs().max() < 1e-6
    # Value, slope and curvature are zero at the cutoff, from both sides.
    for d in (CUTOFF, CUTOFF * (1 - 1e-12), CUTOFF * (1 + 1e-12)):
        distance = torch.tensor(d, dtype=torch.float64, requires_grad=True)
        value = polynomial_envelope(distance, CUTOFF)
        (slope,) = torch.autograd.grad(value, distance, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, distance)
        assert abs(float(value.detach())) < 1e-13
        assert abs(float(slope.detach())) < 1e-12
        assert abs(float(curvature)) < 1e-8


def test_bessel_functions_are_orthogonal() -> None:
    """sqrt(2/c) sin(nπd/c)/d with weight d² on (0, c); ours carry another factor c^(1/2) · c^(1/2)."""
    n = 20_000
    d = (torch.arange(n, dtype=torch.float64) + 0.5) * CUTOFF / n
    basis = bessel_basis(d, 8, CUTOFF)
    overlap = (basis.T * d**2) @ basis * CUTOFF / n / CUTOFF**2
    torch.testing.assert_close(overlap, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-8)
    assert basis.shape == (n, 8)
    assert bool((bessel_basis(torch.tensor([CUTOFF]), 8, CUTOFF).abs() < 1e-5).all())


def test_the_wall_starts_without_a_jump_in_two_derivatives() -> None:
    for d, inside in ((1.2 - 1e-5, True), (1.2, False), (1.2 + 1e-9, False), (9.0, False)):
        distance = torch.tensor(d, dtype=torch.float64, requires_grad=True)
        value = repulsive_wall(distance, torch.tensor(1.2, dtype=torch.float64), strength=100.0)
        (slope,) = torch.autograd.grad(value, distance, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, distance)
        assert float(value.detach()) == pytest.approx(100 * max(1.2 / d - 1, 0) ** 3)
        assert abs(float(slope.detach())) < (1e-7 if inside else 1e-300)
        assert abs(float(curvature)) < (1e-2 if inside else 1e-300)
    assert float(repulsive_wall(torch.tensor(0.1), torch.tensor(0.0))) == 0.0
