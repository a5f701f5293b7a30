"""What else the contract of a model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.training.data.frames import Frame

from .conftest import (
    CUTOFF,
    ELEMENTS,
    SHIFT,
    SYSTEMS,
    WITH_VECTOR,
    assert_equal,
    assert_same,
    build,
    compute,
    everything,
    waters,
)


def test_energies_add_up_and_hold_the_reference(potential: Potential, atoms: Atoms) -> None:
    out = compute(potential, atoms)
    assert out["energy"].dtype == out["energies"].dtype == torch.float64
    assert_equal(out["energies"].sum(), out["energy"][0], "energy", 1e-14)
    reference = sum(SHIFT[ELEMENTS.index(z)] for z in atoms.numbers)
    assert_equal(out["energy"] - reference, out["interaction"], "interaction", 1e-9)


def test_marks_change_what_is_predicted(potential: Potential) -> None:
    atoms = molecule("H2O")
    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    plain = potential(*graph.inputs(), outputs=WITH_VECTOR)
    marks = torch.tensor([0, 1, 0])
    marked = potential(*graph.inputs(), marks=marks, outputs=WITH_VECTOR)
    for key in ("interaction", "forces", "vector"):
        assert float((marked[key] - plain[key]).abs().max()) > 1e-4 * float(plain[key].abs().max())
    none = potential(*graph.inputs(), marks=torch.zeros(3, dtype=torch.int64), outputs=WITH_VECTOR)
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
            out = compute(potential, batch, outputs=WITH_VECTOR)
            assert all(torch.isfinite(value).all() for value in out.values())
            assert_equal(out["forces"], torch.zeros_like(out["forces"]), "forces")
            assert_equal(out["vector"], torch.zeros_like(out["vector"]), "vector")
        stress = compute(potential, atoms[2], outputs=["stress"])["stress"]
        assert_equal(stress, torch.zeros_like(stress), "stress")


def test_edges_beyond_the_cutoff_do_no_harm(potential: Potential, sample: list[Frame]) -> None:
    atoms = SYSTEMS["flattest real cell"](sample)
    expected = compute(potential, atoms, outputs=everything(potential, atoms))
    wide = Graph.from_atoms(atoms, CUTOFF + 0.7, torch.float64)
    assert_same(potential(*wide.inputs(), outputs=everything(potential, atoms)), expected)


def test_inputs_are_left_alone(potential: Potential, sample: list[Frame]) -> None:
    graph = Graph.from_atoms(SYSTEMS["molecule"](sample), CUTOFF, torch.float64)
    before = [tensor.clone() for tensor in graph.inputs()]
    out = potential(*graph.inputs(), outputs=WITH_VECTOR)
    for tensor, old in zip(graph.inputs(), before, strict=True):
        assert torch.equal(tensor, old)
        assert not tensor.requires_grad
    assert not any(value.requires_grad for value in out.values())


def test_every_weight_learns(potential: Potential) -> None:
    """No layer is left out of the energy, the forces or the vector."""
    potential.train()
    graph = Graph.from_atoms(waters(3, np.eye(3) * 4.4, (True,) * 3), CUTOFF, torch.float64)
    marks = (graph.numbers == 8).long()
    out = potential(*graph.inputs(), marks=marks, outputs=WITH_VECTOR)
    torch.cat([out[key].flatten() for key in ("interaction", "forces", "vector")]).square().sum().backward()
    lazy = [name for name, w in potential.named_parameters() if w.numel() and (w.grad is None or not w.grad.any())]
    assert lazy == []


def test_the_wall_is_a_pair_repulsion_inside_its_start() -> None:
    """300 eV (start / d - 1)³, half of it for each atom; nothing at all beyond."""
    plain, walled = (build("egnn", wall=wall) for wall in (False, True))
    walled.pair.zero_()
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


@pytest.mark.parametrize("cutoff", [3.4, 8.0])
@pytest.mark.parametrize("name", MODELS)
def test_matrix_products_meet_no_subnormal_numbers(name: str, cutoff: float, sample: list[Frame]) -> None:
    """A few of them make a product take forty times as long; tails of Gaussians are full of them."""
    torch.manual_seed(0)
    potential = build_potential(name, {"cutoff": cutoff}, ELEMENTS, SHIFT, 0.7)
    graph = Graph.from_atoms(SYSTEMS["water"](sample), cutoff, torch.float32)
    factors: list[torch.Tensor] = []

    def remember(_: torch.nn.Module, inputs: Any, output: Any) -> None:
        factors.extend((inputs[0], output))

    for part in potential.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(remember)
    potential.train()(*graph.inputs(), outputs=["energy", "forces"])
    bent = [factor for factor in factors if factor.requires_grad]
    slopes = torch.autograd.grad(torch.stack([factor.square().sum() for factor in bent]).sum(), bent)
    smallest = torch.finfo(torch.float32).smallest_normal
    for factor in (*factors, *slopes):
        assert not ((factor != 0) & (factor.abs() < smallest)).any()
