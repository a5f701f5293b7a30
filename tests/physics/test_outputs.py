"""What a potential computes is asked for by name, and nothing else is computed."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mdpot import MdpotError
from mdpot.graph import Graph
from mdpot.heads import Potential
from mdpot.heads.potential import OUTPUTS

from .conftest import CUTOFF, WITH_VECTOR, assert_equal, compute

FREE = {"energy", "energies", "interaction"}


@pytest.fixture
def structures() -> list[Atoms]:
    rattled = bulk("C", "diamond", cubic=True)
    rattled.rattle(0.1, seed=1)
    return [rattled, Atoms("OHH", [[0, 0, 0], [0.9, 0.3, 0], [-0.3, 0.9, 0.1]])]


@pytest.fixture
def derivatives(monkeypatch) -> list[int]:
    """Grows by one with every derivative that is taken."""
    taken, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: (taken.append(1), grad(*args, **options))[1])
    return taken


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_output_is_the_same_asked_for_alone(potential: Potential, structures: list[Atoms], name: str) -> None:
    everything = compute(potential, structures, outputs=list(OUTPUTS))
    assert everything.keys() == set(OUTPUTS)
    found = compute(potential, structures, outputs=[name])
    for key in FREE | {name}:
        assert_equal(found[key], everything[key], key, 1e-12)


def test_energy_alone_takes_no_derivative(
    potential: Potential, structures: list[Atoms], derivatives: list[int]
) -> None:
    features = []
    potential.backbone.register_forward_hook(lambda module, inputs, results: features.append((inputs, results)))
    with torch.no_grad():
        out = compute(potential, structures, outputs=["energy"])
    assert out.keys() == FREE
    assert_equal(out["energy"], compute(potential, structures, outputs=["energy"])["energy"], "energy", 1e-14)
    for inputs, (h, _) in features:  # although the weights require a gradient: no graph is kept
        assert not h.requires_grad
        assert not any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs)
    # In training the graph reaches the weights, but not the edges.
    potential.train()
    compute(potential, structures, outputs=["energy"])["energy"].sum().backward()
    assert float(potential.readout[0].weight.grad.abs().max()) > 0  # type: ignore[union-attr]
    assert not derivatives


def test_one_derivative_for_everything_that_needs_one(
    potential: Potential, structures: list[Atoms], derivatives: list[int]
) -> None:
    compute(potential, structures, outputs=["vector"])
    assert not derivatives
    compute(potential, structures, outputs=WITH_VECTOR)
    assert len(derivatives) == potential.conservative  # the forces of a force-centric model are none
    derivatives.clear()
    out = compute(potential, structures, outputs=["forces", "stress", "derivative"])
    assert len(derivatives) == 1
    assert torch.equal(out["forces"], out["derivative"]) == potential.conservative


def test_unknown_outputs_are_refused(potential: Potential, structures: list[Atoms]) -> None:
    with pytest.raises(MdpotError, match=r"unknown output force\. Known: .*forces, stress"):
        compute(potential, structures, outputs=["energy", "force"])


def test_derivatives_without_gradients_are_refused(conservative: Potential, structures: list[Atoms]) -> None:
    graph = Graph.from_atoms(structures, CUTOFF)
    with torch.no_grad(), pytest.raises(MdpotError, match=r"outside of torch\.no_grad"):
        conservative(*graph.inputs())
