"""GNS and ForceNet: their equations, what they cannot do, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from torch.nn.functional import layer_norm, linear, silu

from mdpot import MaskedGNNCalculator, save_potential
from mdpot.export import export_torchscript
from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, rms_force

from .conftest import CUTOFF, ELEMENTS, WALL, WITH_VECTOR, assert_equal, build, compute, energies_along, slope

NAMES = [name for name, model in MODELS.items() if not model.conservative]
NO_GRADIENT = "not the gradient of its energy"


# ---- equations -------------------------------------------------------------------------


def pairs(atoms: Atoms):
    """Atom i, its neighbor j, vector, distance and envelope, of every pair inside the cutoff."""
    x = torch.tensor(atoms.positions)
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            v = x[j] - x[i]
            t = v.norm() / CUTOFF
            if i != j and t < 1:
                yield i, j, v, v.norm(), 1 - 28 * t**6 + 48 * t**7 - 21 * t**8


def perceptron(parts, x: torch.Tensor) -> torch.Tensor:
    """Linear maps with SiLU between them; the last one is followed by a LayerNorm where there is one."""
    linears = [part for part in parts if isinstance(part, torch.nn.Linear)]
    for n, part in enumerate(linears):
        x = linear(x if n == 0 else silu(x), part.weight, part.bias)
    return normalized(parts[-1], x) if isinstance(parts[-1], torch.nn.LayerNorm) else x


def normalized(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, x.shape, norm.weight, norm.bias)


def embedded(potential: Potential, atoms: Atoms) -> list[torch.Tensor]:
    h = [potential.embedding.element.weight[ELEMENTS.index(z)] for z in atoms.numbers]
    h[2] = h[2] + potential.embedding.mark
    return h


def check_equations(potential: Potential, atoms: Atoms, h: list[torch.Tensor], n_neighbors: torch.Tensor) -> None:
    vector = [perceptron(potential.backbone.decoder, x) for x in h]  # type: ignore[arg-type]
    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    marks = torch.tensor([0, 0, 1, 0, 0, 0, 0])
    out = potential(*graph.inputs(), marks=marks, outputs=WITH_VECTOR)
    expected = torch.stack(vector) * n_neighbors.tanh().unsqueeze(1)
    assert_equal(out["vector"], expected.detach(), "vector")
    assert torch.equal(out["forces"], 0.7 * out["vector"])
    energies = 0.7 * potential.readout(torch.stack(h))
    assert_equal(out["interaction"][0], energies.sum().detach(), "energy", 1e-9)


def test_gns_follows_its_equations() -> None:
    potential, atoms = build("gns"), molecule("CH3CHO")
    gns = potential.backbone
    h, e, found = embedded(potential, atoms), {}, torch.zeros(len(atoms), dtype=torch.float64)
    for i, j, v, d, c in pairs(atoms):
        waves = (2 * CUTOFF) ** 0.5 * (d * torch.arange(1.0, 13, dtype=torch.float64) * torch.pi / CUTOFF).sin() / d
        angular = torch.cat([torch.ones(1), 3**0.5 * v / d])
        e[i, j] = perceptron(gns.encoder, torch.outer(waves, angular).flatten())  # type: ignore[arg-type]
        found[i] += c
    for layer in gns.layers:  # type: ignore[union-attr]
        total = torch.zeros(len(atoms), 24, dtype=torch.float64)
        for i, j, _, _, c in pairs(atoms):
            first = layer.edge(e[i, j]) + layer.center(h[i]) + layer.neighbor(h[j])
            m = perceptron(layer.message, silu(first))
            e[i, j] = e[i, j] + m
            total[i] += c * m / 16**0.5
        h = [x + perceptron(layer.update, torch.cat([x, t])) for x, t in zip(h, total, strict=True)]
    check_equations(potential, atoms, h, found)


def real_harmonics(u: torch.Tensor) -> torch.Tensor:
    """Y of l = 0, 1, 2; the squares of each l add up to 1."""
    x, y, z = u
    second = [3**0.5 * x * y, 3**0.5 * y * z, 1.5 * z * z - 0.5, 3**0.5 * x * z, 0.75**0.5 * (x * x - y * y)]
    return torch.stack([torch.ones_like(x), x, y, z, *second])


def test_forcenet_follows_its_equations() -> None:
    potential, atoms = build("forcenet"), molecule("CH3CHO")
    network = potential.backbone
    h, b, found = embedded(potential, atoms), {}, torch.zeros(len(atoms), dtype=torch.float64)
    radius = [network.radius_embedding.weight[ELEMENTS.index(z), 0] for z in atoms.numbers]  # type: ignore
    for i, j, v, d, c in pairs(atoms):
        distances = torch.stack([d, d - radius[i], d - radius[j], d - radius[i] - radius[j]])
        waves = torch.outer(distances, 1.1 ** torch.arange(40, dtype=torch.float64) / CUTOFF).sin()
        b[i, j] = torch.outer(real_harmonics(v / d), network.radial(waves.flatten())).flatten()  # type: ignore
        found[i] += c
    for layer in network.layers:  # type: ignore[union-attr]
        value = [layer.value(x) for x in h]
        total = [layer.own * x for x in value]
        for i, j, _, _, c in pairs(atoms):
            first = layer.edge(b[i, j]) + layer.center(h[i]) + layer.neighbor(h[j])
            total[i] = total[i] + c * perceptron(layer.filter, silu(first)) * value[j] / 16**0.5
        first, norm, _, last = layer.update
        h = [x + last(silu(normalized(norm, first(t)))) for x, t in zip(h, total, strict=True)]
    check_equations(potential, atoms, h, found)


# ---- what they are and are not ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_of_elements_is_told_apart(name: str) -> None:
    potential = build(name)
    forces = [
        compute(potential, Atoms([a, b], [[0, 0, 0], [1.1, 0, 0]]))["forces"].flatten()
        for a in ELEMENTS
        for b in ELEMENTS
    ]
    distances = torch.cdist(torch.stack(forces), torch.stack(forces)) + torch.eye(9)
    assert float(distances.min()) > 1e-3 * float(torch.stack(forces).abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_wall(name: str) -> None:
    """The recipes ask for one; it would be in the energy alone."""
    plain, walled = (build_potential(name, {"width": 8}, ELEMENTS, [0.0] * 3, 1.0, wall) for wall in (None, WALL))
    assert not walled.has_wall
    walled.load_state_dict({**plain.state_dict(), "wall": walled.wall})
    atoms = Atoms("OH", [[0, 0, 0], [0.6, 0, 0]])
    graph = Graph.from_atoms(atoms, CUTOFF)
    expected, found = plain.eval()(*graph.inputs()), walled.eval()(*graph.inputs())
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", NAMES)
def test_whoever_uses_one_is_told(name: str, tmp_path) -> None:
    potential = build(name, dtype=torch.float32)
    file, exported = tmp_path / "potential.safetensors", tmp_path / "model.pt"
    save_potential(file, potential)
    with pytest.warns(UserWarning, match=NO_GRADIENT):
        report = export_torchscript(file, exported, units="ase")
    assert report.gradient_error is None
    atoms = Atoms("OHH", molecule("H2O").positions, cell=[5, 5, 5], pbc=True)
    for path in (file, exported):
        with pytest.warns(UserWarning, match=NO_GRADIENT):
            atoms.calc = MaskedGNNCalculator(path, device="cpu")
        assert np.isfinite(atoms.get_forces()).all()
        with pytest.raises(PropertyNotImplementedError, match="stress: this potential is force-centric"):
            atoms.get_stress()


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_of_the_energy_can_be_had(name: str) -> None:
    """For pretraining by derivatives; in training mode it has a derivative of its own."""
    potential, atoms = build(name), molecule("CH3CHO")
    graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
    out = potential(*graph.inputs(), outputs=["forces", "derivative"])
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))

    def move(copy: Atoms, t: float) -> None:
        copy.positions += t * direction

    expected = -slope(energies_along(potential, atoms, move), 3e-4)
    assert float((out["derivative"].numpy() * direction).sum()) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(out["forces"], potential(*graph.inputs())["forces"])
    potential.train()(*graph.inputs(), outputs=["derivative"])["derivative"].square().sum().backward()
    assert potential.readout[0].weight.grad.abs().max() > 0  # type: ignore[union-attr]


# ---- learning --------------------------------------------------------------------------


def water(sample: list[Frame], n_frames: int) -> tuple[Graph, torch.Tensor, list[float], float]:
    """A batch of small frames, its forces [n_atoms, 3], and reference energies and scale of its potential."""
    frames = [frame for frame in sample if len(frame) == 24][:n_frames]
    atoms = [Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc) for frame in frames]
    forces = torch.tensor(np.concatenate([frame.forces for frame in frames]), dtype=torch.float32)  # type: ignore
    return Graph.from_atoms(atoms, CUTOFF), forces, fit_reference(frames, [1, 8])[1].tolist(), rms_force(frames)


@pytest.mark.parametrize("name", NAMES)
def test_training_starts_calmly_at_full_size(name: str, sample: list[Frame]) -> None:
    """Forces of the order of those to be learned, and gradients that no step needs to clip away."""
    graph, target, shift, scale = water(sample, 2)
    for seed in range(2):
        torch.manual_seed(seed)
        potential = build_potential(name, {"cutoff": CUTOFF}, [1, 8], shift, scale).train()
        forces = potential(*graph.inputs())["forces"] / scale
        assert 0.1 < float(forces.detach().square().mean().sqrt()) < 3
        (forces - target / scale).abs().mean().backward()
        gradients = [w.grad for w in potential.parameters() if w.grad is not None]
        assert 0.1 < float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt()) < 20


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_few_frames_by_heart(name: str, sample: list[Frame]) -> None:
    graph, target, shift, scale = water(sample, 2)
    torch.manual_seed(0)
    potential = build_potential(name, {"cutoff": CUTOFF, "width": 32, "layers": 3}, [1, 8], shift, scale).train()
    optimizer = torch.optim.AdamW(potential.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=150)
    errors = []
    for _ in range(150):
        error = potential(*graph.inputs())["forces"] - target
        optimizer.zero_grad()
        error.abs().mean().backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        errors.append(float(error.detach().square().mean().sqrt()))
    assert errors[-1] < 0.3 * scale, errors[::10]
