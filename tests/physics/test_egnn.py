"""EGNN's own: its equations, and its moved atoms that may meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot.graph import Graph
from mdpot.heads import Potential
from mdpot.models.egnn import rounded_length

from .conftest import CUTOFF, ELEMENTS, WITH_VECTOR, assert_equal, build, check_forces, compute, sweep

MEETING = 0.8  # Å


def test_lengths_are_rounded_off_only_near_zero() -> None:
    d = torch.tensor([0.0, 0.003, 0.15, 0.3, 1.0, 3.0], dtype=torch.float64)
    v = torch.stack([0.6 * d, 0.0 * d, -0.8 * d], dim=1)
    found = rounded_length(v).squeeze(1)
    torch.testing.assert_close(found[2:], d[2:], rtol=1e-6, atol=0)
    assert float(found[0]) == 0.005
    assert 0.005 < float(found[1]) < 0.006
    single = rounded_length(v.float()).squeeze(1).double()
    torch.testing.assert_close(single, found, rtol=1e-6, atol=0)


def test_egnn_follows_its_equations() -> None:
    """Atom by atom, pair by pair, with absolute coordinates that move (Satorras et al., eqs. 3 to 6)."""
    potential = build("egnn")
    egnn, atoms = potential.backbone, molecule("CH3CHO")
    silu = torch.nn.functional.silu
    x0 = torch.tensor(atoms.positions)
    x, n_atoms = x0.clone(), len(atoms)
    h = torch.stack([potential.embedding.element.weight[ELEMENTS.index(z)] for z in atoms.numbers])
    h[2] = h[2] + potential.embedding.mark
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
    out = potential(*graph.inputs(), marks=marks, outputs=WITH_VECTOR)
    assert_equal(out["vector"], (x - x0).detach(), "displacements", 1e-7)  # where EGNN rounds lengths off
    assert_equal(out["interaction"][0], expected.detach(), "energy", 1e-7)


def first_step(potential: Potential, distance: float) -> float:
    """How far the first layer of an EGNN moves the second of two H atoms, Å."""
    layers = potential.backbone.layers
    potential.backbone.layers = layers[:1]  # type: ignore[index]
    out = compute(potential, Atoms("HH", [[0, 0, 0], [distance, 0, 0]]), outputs=WITH_VECTOR)
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
    out = compute(attracted, atoms, outputs=WITH_VECTOR)
    assert all(bool(torch.isfinite(value).all()) for value in out.values())
    assert float(out["forces"].abs().max()) > 0.1
    # Lengths are rounded off below 5e-3 Å, so the differences must be much finer than that.
    check_forces(attracted, atoms, step=4e-6)


def test_egnn_passes_through_a_meeting_without_a_jump(attracted: Potential) -> None:
    atoms = meeting(attracted, 0.0)
    away = np.array([[0, 0, 0], [1.0, 0, 0]])
    energy, forces, _, _ = sweep(attracted, atoms, away, (np.arange(-200, 200) + 0.5) * 1e-5)
    steps = np.abs(np.diff(forces[:, 1, 0]))
    assert steps.max() < 5 * np.median(steps)
    assert np.abs(np.diff(energy)).max() < 2e-5 * np.abs(forces).max()
    # Forces swing from -99 to 114 eV/Å within 4e-3 Å and pass through zero: float32 is held to the largest of them.
    single = build("egnn", dtype=torch.float32)
    single.load_state_dict(attracted.state_dict())
    for distance in (*np.linspace(-2e-3, 2e-3, 41), 1e-5, 1e-4):
        moved = atoms.copy()
        moved.positions[1, 0] += distance
        error = (compute(single, moved)["forces"] - compute(attracted, moved)["forces"]).abs().max()
        assert float(error) < 3e-4 * np.abs(forces).max(), distance
