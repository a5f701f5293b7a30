"""CGCNN beside PyTorch Geometric's convolution, and its batch normalization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mdpot import MODELS, Graph, build_potential
from mdpot.heads import Potential

from .conftest import WITH_VECTOR, assert_equal

CUTOFF = 4.0
ELEMENTS = [6, 14]


def plain(**hyperparameters) -> Potential:
    """The published network: sums over neighbors as they are, no envelope."""
    torch.manual_seed(3)
    given = {"cutoff": CUTOFF, "width": 12, "layers": 3, "n_basis": 20, "smooth": False, "avg_neighbors": 1.0}
    return build_potential("cgcnn", {**given, **hyperparameters}, ELEMENTS, [0.0, 0.0], 1.0).double().eval()


def crystals() -> list[Atoms]:
    found = [bulk("SiC", "zincblende", a=4.36, cubic=True), bulk("Si", "diamond", a=5.43)]
    for n, atoms in enumerate(found):
        atoms.rattle(0.1, seed=n)
    return found


def features(potential: Potential, graph: Graph) -> torch.Tensor:
    seen = []
    hook = potential.backbone.register_forward_hook(lambda module, inputs, results: seen.append(results[0]))
    potential(*graph.inputs(), outputs=["energy"])
    hook.remove()
    return seen[0].detach()


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("layers", [1, 4])
def test_the_published_network_is_that_of_pytorch_geometric(layers: int, norm: str, training: bool) -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn import CGConv

    potential = plain(layers=layers, norm=norm)
    graph = Graph.from_atoms(crystals(), CUTOFF, torch.float64)
    i, j = graph.edge_index
    with torch.no_grad():
        for part in potential.modules():
            if isinstance(part, torch.nn.BatchNorm1d):
                for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                    tensor.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    offset = torch.einsum("ea,eab->eb", graph.shifts, graph.cell[graph.system[i]])
    distance = (graph.positions[j] + offset - graph.positions[i]).norm(dim=1)
    centers = np.linspace(0.0, CUTOFF, 20)
    basis = torch.tensor(np.exp(-0.5 * ((distance.numpy()[:, None] - centers) / (centers[1] - centers[0])) ** 2))
    h = potential.embedding.element.weight[potential.lookup[graph.numbers]].detach()
    for layer in potential.backbone.layers:  # type: ignore[union-attr]
        conv = CGConv(12, dim=20, batch_norm=norm == "batch").double().train(training)
        parts = (layer.gates.center, layer.gates.neighbor, layer.gates.radial)
        filters, values = torch.cat([part.weight for part in parts], 1).chunk(2)
        biases = layer.gates.center.bias.chunk(2)
        state = {"lin_f.weight": filters, "lin_s.weight": values, "lin_f.bias": biases[0], "lin_s.bias": biases[1]}
        if norm == "batch":
            state |= {f"bn.{name}": value for name, value in layer.norm.state_dict().items()}
        conv.load_state_dict(state)
        h = conv(h, torch.stack([j, i]), basis).detach()
    assert_equal(features(potential.train(training), graph), h, "features", 1e-12)


def test_with_batch_normalization_each_structure_stands_for_itself() -> None:
    """After training; in it the statistics are those of the batch, which the running averages follow."""
    potential = plain(norm="batch", smooth=True).train()
    graph = Graph.from_atoms(crystals(), CUTOFF, torch.float64)
    alone = [Graph.from_atoms(atoms, CUTOFF, torch.float64) for atoms in crystals()]
    together = potential(*graph.inputs(), outputs=["energy"])["interaction"].detach()
    by_itself = potential(*alone[1].inputs(), outputs=["energy"])["interaction"].detach()
    assert abs(float(by_itself - together[1])) > 1e-3
    for _ in range(60):
        potential(*graph.inputs(), outputs=["energy"])
    potential.eval()
    found = potential(*graph.inputs(), outputs=WITH_VECTOR)
    assert_equal(found["interaction"].detach(), together, "running averages", 0.1)
    parts = [potential(*one.inputs(), outputs=WITH_VECTOR) for one in alone]
    for key in ("interaction", "forces", "vector"):
        assert_equal(found[key], torch.cat([part[key] for part in parts]), key, 1e-12)


def test_a_single_atom_can_be_trained_on_with_batch_normalization() -> None:
    potential = plain(norm="batch").train()
    out = potential(*Graph.from_atoms(Atoms("Si"), CUTOFF, torch.float64).inputs(), outputs=["energy"])
    assert bool(torch.isfinite(out["energy"]))


@pytest.mark.parametrize("name", ["cgcnn", "et"])
def test_only_the_published_network_jumps_at_the_cutoff(name: str) -> None:
    """The key `smooth` does what it says, and edges of a list with a skin do no harm without it either."""
    jumps = {}
    for smooth in (True, False):
        torch.manual_seed(0)
        sizes = {"cutoff": CUTOFF, "width": 16, "layers": 2, "smooth": smooth}
        potential = build_potential(name, sizes, ELEMENTS, [0.0, 0.0], 1.0).double().eval()
        for key, weight in potential.backbone.named_parameters():
            if key.endswith("bias"):  # the way that the cutoff leaks through
                weight.data += 0.3 * torch.randn_like(weight)
        x = CUTOFF + np.array([-1e-7, 1e-7])
        pairs = [Atoms("CSiC", [[0, 0, 0], [d, 0, 0], [1.3, 0.9, 0]]) for d in x]
        energy = potential(*Graph.from_atoms(pairs, CUTOFF, torch.float64).inputs())["interaction"]
        wide = potential(*Graph.from_atoms(pairs, CUTOFF + 1.0, torch.float64).inputs())["interaction"]
        assert_equal(wide, energy, "skin", 1e-12)
        jumps[smooth] = float(energy.diff().abs())
    assert jumps[True] < 1e-6
    assert jumps[False] > 1e-5
    assert MODELS[name].conservative
