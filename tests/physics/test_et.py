"""The equivariant transformer beside TorchMD-Net's own (`pip install torchmd-net`), and beside its equations."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch.nn.functional import layer_norm, silu

from mdpot import Graph, MdpotError, build_potential
from mdpot.heads import Potential

from .conftest import ELEMENTS, assert_equal

CUTOFF = 3.0
WIDTH, HEADS, N_BASIS = 16, 4, 10


def published(**changes) -> Potential:
    torch.manual_seed(5)
    sizes = {"cutoff": CUTOFF, "width": WIDTH, "layers": 3, "heads": HEADS, "n_basis": N_BASIS, "smooth": False}
    potential = build_potential("et", {**sizes, **changes}, ELEMENTS, [0.0] * 3, 1.0).double().eval()
    with torch.no_grad():
        for name, weight in potential.backbone.named_parameters():
            if name not in ("means", "betas"):
                weight.add_(0.2 * torch.randn_like(weight))  # biases and norms that are not zero and one
    return potential


def features(potential: Potential, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor]:
    """Scalars [n_atoms, width] and vectors [n_atoms, 3, width] of the last layer."""
    seen = []
    potential.backbone.layers[-1].register_forward_hook(lambda module, inputs, results: seen.append(results))  # type: ignore
    potential(*Graph.from_atoms(atoms, CUTOFF, torch.float64).inputs(), outputs=["energy"])
    return potential.backbone.norm(seen[0][0]), seen[0][1]  # type: ignore[operator]


def by_the_equations(potential: Potential, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair by pair, head by head (Thölke and De Fabritiis, eqs. 1 to 12)."""
    net: Any = potential.backbone
    n = len(atoms)
    x = torch.tensor(atoms.positions)
    species = [ELEMENTS.index(z) for z in atoms.numbers]
    pairs = {}
    for i in range(n):
        for j in range(n):
            d = (x[j] - x[i]).norm()
            if d < CUTOFF:
                c = 0.5 * (1 + torch.cos(torch.pi * d / CUTOFF))
                e = c * torch.exp(-net.betas * (torch.exp(-5 / CUTOFF * d) - net.means) ** 2)
                pairs[i, j] = c, e, (x[j] - x[i]) / d if i != j else torch.zeros(3, dtype=torch.float64)
    embedded = potential.embedding.element.weight[species]
    around = torch.zeros_like(embedded)
    for (i, j), (c, e, _) in pairs.items():
        if i != j:
            around[i] += c * net.neighbor_filter(e) * net.neighbor_embedding.weight[species[j]]
    h = net.combine(torch.cat([embedded, around], 1))
    v = torch.zeros(n, 3, WIDTH, dtype=torch.float64)
    size = WIDTH // HEADS
    for layer in net.layers:
        normed = layer_norm(h, [WIDTH], layer.norm.weight, layer.norm.bias)
        q, k, value = layer.query(normed), layer.key(normed), layer.value(normed)
        total, moved = torch.zeros_like(h), torch.zeros_like(v)
        for (i, j), (c, e, u) in pairs.items():
            dk, dv = silu(layer.key_filter(e)), silu(layer.value_filter(e))
            for head in range(HEADS):
                own = slice(head * size, (head + 1) * size)
                a = c * silu((q[i, own] * k[j, own] * dk[own]).sum())
                s, y, w = (value[j] * dv)[3 * head * size : 3 * (head + 1) * size].split(size)
                total[i, own] += a * s
                moved[i, :, own] += y * v[j, :, own] + w * u[:, None]
        o1, o2, o3 = layer.out(total).split(WIDTH, 1)
        h = h + o3
        if layer.vectors is not None:
            u1, u2, u3 = layer.vectors(v).split(WIDTH, 2)
            h, moved = h + (u1 * u2).sum(1) * o2, moved + u3 * o1.unsqueeze(1)
        v = v + moved
    return layer_norm(h, [WIDTH], net.norm.weight, net.norm.bias), v


def test_the_published_network_follows_its_equations() -> None:
    potential, atoms = published(), molecule("CH3CHO")
    for found, expected, name in zip(features(potential, atoms), by_the_equations(potential, atoms), "hx", strict=True):
        assert_equal(found.detach(), expected.detach(), name, 1e-11)


@pytest.mark.filterwarnings("ignore")  # whatever TorchMD-Net and what it brings along deprecate
def test_the_published_network_is_that_of_torchmd_net() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchmd_et = pytest.importorskip("torchmdnet.models.torchmd_et")
    potential, atoms = published(), molecule("CH3CHO")
    net: Any = potential.backbone
    other = torchmd_et.TorchMD_ET(WIDTH, 3, N_BASIS, num_heads=HEADS, cutoff_upper=CUTOFF, max_z=3, dtype=torch.float64)
    state = {
        "embedding.weight": potential.embedding.element.weight,
        "distance_expansion.means": net.means,
        "distance_expansion.betas": net.betas,
        "neighbor_embedding.embedding.weight": net.neighbor_embedding.weight,
        "neighbor_embedding.distance_proj": net.neighbor_filter,
        "neighbor_embedding.combine": net.combine,
        "out_norm": net.norm,
    }
    names = {"layernorm": "norm", "q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}
    names |= {"dk_proj": "key_filter", "dv_proj": "value_filter", "vec_proj": "vectors"}
    for n, layer in enumerate(net.layers):
        for theirs, ours in names.items():
            # Theirs multiplies vectors of zero in the first layer.
            state[f"attention_layers.{n}.{theirs}"] = getattr(layer, ours) or torch.nn.Linear(WIDTH, 3 * WIDTH, False)
    weights = {}
    for name, part in state.items():
        several = part.state_dict() if isinstance(part, torch.nn.Module) else {"": part}
        weights |= {f"{name}.{key}".rstrip("."): value for key, value in several.items()}
    other.load_state_dict({"distance.box": other.distance.box, **weights})
    species = torch.tensor([ELEMENTS.index(z) for z in atoms.numbers])
    x, v, *_ = other.double()(species, torch.tensor(atoms.positions), torch.zeros(len(atoms), dtype=torch.int64))
    found = features(potential, atoms)
    assert_equal(found[0].detach(), x.detach(), "scalars", 1e-10)
    assert_equal(found[1].detach(), v.detach(), "vectors", 1e-10)


def test_heads_share_the_width_evenly() -> None:
    with pytest.raises(MdpotError, match="width must be a multiple of heads, 4; got 18"):
        published(width=18)
