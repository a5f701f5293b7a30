"""Denoising: the noise, the neighbor lists under it, the sign, and that a network learns it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list

from mdpot import MaskedGNNCalculator, build_potential, save_potential
from mdpot.training.config import PretrainConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Batch, Store
from mdpot.training.objectives import Denoising
from mdpot.training.objectives.denoising import add_noise
from mdpot.training.trainer import fit, validate

CUTOFF, SIGMA = 3.4, 0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**fields: Any) -> PretrainConfig:
    return PretrainConfig(**{"objective": "denoise", "max_steps": 1, "batch_frames": 4, **fields})


def small_potential(model: str = "egnn", dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    size = {"tide": {"width": 8, "channels": 4, "n_radial": 4}, "egnn": {"width": 8, "layers": 2}}[model]
    return build_potential(model, {"cutoff": CUTOFF, **size}, [1, 8], [0.0, 0.0], 1.0).to(dtype)


@pytest.fixture(scope="module")
def store(small_frames: list[Frame]) -> Store:
    return Store(small_frames, CUTOFF)


def whole_batch(store: Store) -> Batch:
    return store.batch(torch.arange(len(store)), torch.float64)


def test_the_noise_is_gaussian_of_width_sigma(store: Store) -> None:
    batch, moved, source = whole_batch(store), [], generator(3)
    for _ in range(20):
        noisy, noise = add_noise(batch, SIGMA, CUTOFF, source)
        moved.append((noisy.graph.positions - batch.graph.positions) / SIGMA)
        torch.testing.assert_close(moved[-1], noise)
        torch.testing.assert_close((noisy.whole - batch.whole) / SIGMA, noise)
    found = torch.cat(moved).flatten()
    n = len(found)
    assert abs(float(found.mean())) < 4 / math.sqrt(n)
    assert float(found.var()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / n))
    assert float((found**4).mean()) == pytest.approx(3.0, abs=4 * math.sqrt(96 / n))
    # Atoms and directions are independent, and so are the draws.
    assert abs(float(torch.corrcoef(torch.cat(moved).T).triu(1).abs().max())) < 5 / math.sqrt(n / 3)
    assert abs(float((moved[0] * moved[1]).mean())) < 5 / math.sqrt(moved[0].numel())


def test_the_same_generator_gives_the_same_noise(store: Store) -> None:
    (a, x), (b, y), (_, z) = (add_noise(whole_batch(store), SIGMA, CUTOFF, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(x, y)
    assert torch.equal(a.graph.edge_index, b.graph.edge_index)
    assert not torch.equal(x, z)


def test_the_edges_are_those_of_the_moved_atoms(store: Store, small_frames: list[Frame]) -> None:
    """In every cell, the flattest of 3.6 Å and the most slanted among them, against ASE's search."""
    heights = [1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max() for frame in small_frames]
    assert min(heights) < 4.0
    before = whole_batch(store)
    after, _ = add_noise(before, SIGMA, CUTOFF, generator(1))
    assert torch.equal(after.graph.numbers, before.graph.numbers)
    assert torch.equal(after.graph.cell, before.graph.cell)
    changed = 0
    for k, frame in enumerate(small_frames):
        mine = after.graph.system == k
        first = int(mine.nonzero()[0])
        positions = after.graph.positions[mine].numpy()
        i, j, shifts = primitive_neighbor_list("ijS", frame.pbc, frame.cell, positions, CUTOFF)
        expected = sorted(zip(i.tolist(), j.tolist(), *shifts.T.tolist(), strict=True))
        assert edges_of(after, k, first) == expected
        changed += edges_of(before, k, first) != expected
    assert changed == len(small_frames)


def edges_of(batch: Batch, system: int, first: int) -> list[tuple[int, ...]]:
    own = (batch.graph.system[batch.graph.edge_index[0]] == system).nonzero().squeeze(1)
    edges = (batch.graph.edge_index[:, own] - first).T.tolist()
    return sorted((*e, *s) for e, s in zip(edges, batch.graph.shifts[own].int().tolist(), strict=True))


def test_energy_and_forces_are_those_of_the_calculator(store: Store, small_frames, tmp_path: Path) -> None:
    """Of the moved atoms in the small cells; with the edges of the undisturbed ones they are not."""
    potential = small_potential().eval()
    save_potential(tmp_path / "potential.safetensors", potential)
    calculator = MaskedGNNCalculator(tmp_path / "potential.safetensors", device="cpu", dtype="float64")
    before = whole_batch(store)
    after, _ = add_noise(before, SIGMA, CUTOFF, generator(2))
    stale = before.graph.replace(positions=after.graph.positions)
    found, wrong = potential(*after.graph.inputs()), potential(*stale.inputs())
    for k in (0, 1, 5):
        frame, mine = small_frames[k], after.graph.system == k
        atoms = Atoms(frame.numbers, after.graph.positions[mine].numpy(), cell=frame.cell, pbc=frame.pbc)
        atoms.calc = calculator
        assert float(found["energy"][k]) == pytest.approx(atoms.get_potential_energy(), rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(found["forces"][mine], atoms.get_forces(), atol=1e-9)
        assert abs(float(wrong["energy"][k]) - atoms.get_potential_energy()) > 1e-6


# ---- the objective ---------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("vector", ["derivative", "direct"])
def test_the_force_of_a_spring_to_the_old_place_is_the_perfect_prediction(store: Store, sigma, vector: str) -> None:
    """E = Σ |x - x0|² / (2 σ²) in eV: its force on atom i is (x0 - x) / σ², the best estimate of the score."""
    task = Denoising(config(sigma=sigma, vector=vector), CUTOFF)
    assert task.outputs == ["interaction", "vector" if vector == "direct" else "derivative"]
    before = whole_batch(store)
    batch, target = task.prepare(before, generator())
    positions = batch.graph.positions.clone().requires_grad_()
    energy = (positions - before.graph.positions).square().sum() / (2 * sigma**2)
    force = -torch.autograd.grad(energy, positions)[0]
    key = "vector" if vector == "direct" else "derivative"
    interaction = torch.zeros(len(store))

    def score(prediction: torch.Tensor) -> tuple[float, float]:
        found = task.score({key: prediction, "interaction": interaction}, target)
        total, count = found.numbers["cosine"]
        return float(found.loss()), float(total / count)

    assert score(force * sigma) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert score(-force * sigma)[1] == pytest.approx(-1.0)
    assert score(-force * sigma)[0] == pytest.approx(4.0, rel=0.1)
    assert score(0 * force)[0] == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("vector", ["derivative", "direct"])
def test_gamma_multiplies_what_is_predicted(store: Store, vector: str) -> None:
    """Eq. 5 of the paper on derivative-based pretraining: -γ ∂U/∂x fits the way back."""
    batch = whole_batch(store)
    key = "vector" if vector == "direct" else "derivative"
    predicted = torch.randn(batch.graph.positions.shape, dtype=torch.float64, generator=generator())
    interaction = torch.zeros(len(store))
    losses = []
    for gamma, factor in ((4.0, 1.0), (1.0, 4.0)):
        task = Denoising(config(vector=vector, gamma=gamma), CUTOFF)
        target = task.prepare(batch, generator())[1]
        found = task.score({key: factor * predicted, "interaction": interaction}, target)
        losses.append(float(found.loss()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert losses[0] == pytest.approx(float((4.0 * predicted - target).square().mean()))


@pytest.mark.parametrize(("model", "vector"), [("egnn", "derivative"), ("egnn", "direct"), ("tide", "derivative")])
def test_a_network_learns_it(small_frames: list[Frame], tmp_path: Path, model: str, vector: str) -> None:
    train, held_out = Store(small_frames[2:20], CUTOFF), Store(small_frames[20:], CUTOFF)
    stage = config(vector=vector, max_steps=80, eval_every=80, lr=2e-2, sigma=0.1, clip_norm=10.0)
    potential, task = small_potential(model, torch.float32), Denoising(stage, CUTOFF)
    before = validate(potential, task, held_out, stage)
    assert validate(potential, task, held_out, stage) == before, "the noise of validation must not change"
    fit(potential, task, train, held_out, stage, tmp_path, seed=0)
    after = validate(potential, task, held_out, stage)
    assert after["loss"] < 0.92 < before["loss"]
    assert after["cosine"] > 0.25 > before["cosine"]


def test_atoms_without_neighbors(small_frames: list[Frame]) -> None:
    """Their noise cannot be predicted: it costs what it costs, and the step goes through."""
    potential = small_potential(dtype=torch.float32)
    frame = Frame(np.array([8]), np.zeros((1, 3)), np.eye(3) * 20, np.ones(3, dtype=bool))
    task = Denoising(config(), CUTOFF)
    batch, target = task.prepare(Store([frame], CUTOFF).batch(torch.tensor([0])), generator())
    assert batch.graph.n_edges == 0
    loss = task.score(potential.train()(*batch.graph.inputs(), outputs=["derivative"]), target).loss()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(target.square().mean()))
    assert all(w.grad is None or not w.grad.any() for w in potential.parameters())
