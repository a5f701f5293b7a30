"""The loss on labels, and the table of errors, against sums written out in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.training import evaluate as evaluation
from mdpot.training.config import FinetuneConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Batch, Store
from mdpot.training.evaluate import evaluate
from mdpot.training.metrics import METRICS
from mdpot.training.objectives import Labels, Score
from mdpot.training.trainer import Means

CUTOFF = 3.4
SHIFT = {1: -15.5, 8: -430.25}


@pytest.fixture(scope="module")
def frames(small_frames: list[Frame]) -> list[Frame]:
    """Of several sizes; two of them with a stress, one without a cell."""
    rng = np.random.default_rng(0)
    chosen = [replace(frame) for frame in small_frames[:6]]
    for frame in chosen[1:3]:
        stress = rng.normal(scale=0.05, size=(3, 3))
        frame.stress = stress + stress.T
    alone = Frame(
        numbers=np.array([8, 1, 1]),
        positions=np.array([[0.0, 0, 0], [0.97, 0, 0], [-0.2, 0.95, 0]]),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
        energy=-462.0,
        forces=rng.normal(size=(3, 3)),
    )
    return [*chosen, alone]


@pytest.fixture
def potential() -> Potential:
    torch.manual_seed(0)
    hyperparameters = {"cutoff": CUTOFF, "width": 8, "layers": 2}
    return build_potential("egnn", hyperparameters, list(SHIFT), list(SHIFT.values()), 0.8).double()


def predict_one_by_one(potential: Potential, frames: list[Frame]) -> list[dict[str, np.ndarray]]:
    out = []
    for frame in frames:
        from ase import Atoms

        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        graph = Graph.from_atoms(atoms, CUTOFF, torch.float64)
        found = potential.eval()(*graph.inputs(), outputs=["forces", *(["stress"] if frame.pbc.all() else [])])
        out.append({key: value.numpy() for key, value in found.items()})
    return out


def means_of(score: Score) -> dict[str, float]:
    means = Means()
    means.add(score)
    return means.take()


def penalty(loss: str, error: np.ndarray, delta: float) -> np.ndarray:
    if loss == "l1":
        return np.abs(error)
    if loss == "l2":
        return error**2
    size = np.abs(error)
    return np.where(size < delta, 0.5 * size**2, delta * (size - 0.5 * delta))


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
@pytest.mark.parametrize("per", ["atom", "structure"])
@pytest.mark.parametrize("weights", [(2.0, 3.0, 0.0), (0.5, 1.0, 7.0), (0.0, 0.0, 1.0)])
def test_the_loss(potential: Potential, frames: list[Frame], loss: str, per: str, weights: tuple) -> None:
    energy_weight, force_weight, stress_weight = weights
    config: Any = {
        "loss": loss,
        "energy_per": per,
        "energy_weight": energy_weight,
        "force_weight": force_weight,
        "stress_weight": stress_weight,
        "huber_delta": 0.3,
    }
    objective = Labels(FinetuneConfig(max_steps=1, batch_frames=1, **config), known={"energy", "forces", "stress"})
    assert ("stress" in objective.outputs) == (stress_weight > 0)
    batch = Store(frames, CUTOFF, SHIFT).batch(torch.arange(len(frames)), torch.float64)
    prediction = potential.train()(*batch.graph.inputs(), outputs=objective.outputs)
    score = objective.score(prediction, batch)
    found, means = score.loss(), means_of(score)

    single = predict_one_by_one(potential, frames)
    sizes = np.array([len(frame) for frame in frames])
    energies = np.array([p["energy"][0] - frame.energy for p, frame in zip(single, frames, strict=True)])
    forces = np.concatenate([p["forces"] - frame.forces for p, frame in zip(single, frames, strict=True)])
    scored = energies / sizes if per == "atom" else energies
    expected = energy_weight * penalty(loss, scored, 0.3).mean() + force_weight * penalty(loss, forces, 0.3).mean()
    if "stress" in objective.outputs:
        labelled = [(p["stress"][0], f.stress) for p, f in zip(single, frames, strict=True) if f.stress is not None]
        stress = np.array([a - b for a, b in labelled])
        expected += stress_weight * penalty(loss, stress, 0.3).mean()
        assert means["stress_mae"] == pytest.approx(1e3 * np.abs(stress).mean())
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)
    assert means["loss"] == pytest.approx(expected, rel=1e-9)
    assert means["energy_mae"] == pytest.approx(1e3 * np.abs(energies / sizes).mean())
    assert means["energy_rmse"] == pytest.approx(1e3 * np.sqrt(np.square(energies / sizes).mean()))
    if force_weight == 0:
        assert not {"force_mae", "force_rmse"} & means.keys()
    else:
        assert means["force_mae"] == pytest.approx(1e3 * np.abs(forces).mean())
        assert means["force_rmse"] == pytest.approx(1e3 * np.sqrt((forces**2).mean()))
    found.backward()
    gradients = [w.grad for w in potential.parameters() if w.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize(("weight", "known"), [(0.0, {"energy", "stress"}), (1.0, {"energy"})])
def test_stress_is_computed_only_where_it_counts(weight: float, known: set[str]) -> None:
    config = FinetuneConfig(max_steps=1, batch_frames=1, stress_weight=weight)
    assert "stress" not in Labels(config, known).outputs


def test_a_batch_without_a_stress_label(potential: Potential, frames: list[Frame]) -> None:
    """Others in the data have one, so the stress is computed; here it counts nothing."""
    some = [frames[0], frames[-1]]
    batch = Store(some, CUTOFF, SHIFT).batch(torch.arange(2), torch.float64)
    prediction = potential.train()(*batch.graph.inputs(), outputs=["forces", "stress"])
    results = []
    for weight in (0.0, 5.0):
        config = FinetuneConfig(max_steps=1, batch_frames=1, stress_weight=weight)
        results.append(Labels(config, known={"energy", "forces", "stress"}).score(prediction, batch))
    assert float(results[0].loss().detach()) == float(results[1].loss().detach())
    assert "stress_mae" not in results[1].numbers


def test_labels_leave_the_batch_as_it_is(frames: list[Frame]) -> None:
    batch: Batch = Store(frames, CUTOFF, SHIFT).batch(torch.arange(2))
    seen, target = Labels(FinetuneConfig(max_steps=1, batch_frames=1)).prepare(batch, torch.Generator())
    assert seen is batch
    assert target is batch


# ---- the table of errors ---------------------------------------------------------------


@pytest.mark.parametrize("batch_atoms", [1, 60, 10_000])
def test_metrics(potential: Potential, frames: list[Frame], monkeypatch, batch_atoms: int) -> None:
    monkeypatch.setattr(evaluation, "BATCH_ATOMS", batch_atoms)
    single = predict_one_by_one(potential, frames)
    found = evaluate(potential.float().eval(), Store(frames, CUTOFF, SHIFT)).metrics()
    sizes = np.array([len(frame) for frame in frames])
    energy = 1e3 * np.array([p["energy"][0] - frame.energy for p, frame in zip(single, frames, strict=True)])
    force = 1e3 * np.concatenate([p["forces"] - f.forces for p, f in zip(single, frames, strict=True)])
    stress = [p["stress"][0] - f.stress for p, f in zip(single, frames, strict=True) if f.stress is not None]
    stress = 1e3 * np.array(stress)
    per_atom = energy / sizes
    expected = {
        "n_frames": len(frames),
        "n_atoms": sizes.sum(),
        "energy_rmse": np.sqrt((per_atom**2).mean()),
        "energy_mae": np.abs(per_atom).mean(),
        "energy_rmse_structure": np.sqrt((energy**2).mean()),
        "energy_mae_structure": np.abs(energy).mean(),
        "energy_rmse_shifted": np.sqrt(((per_atom - per_atom.mean()) ** 2).mean()),
        "force_rmse": np.sqrt((force**2).mean()),
        "force_mae": np.abs(force).mean(),
        "force_rms": 1e3 * np.sqrt(np.mean(np.concatenate([f.forces for f in frames]) ** 2)),  # type: ignore
        "stress_rmse": np.sqrt((stress**2).mean()),
        "stress_mae": np.abs(stress).mean(),
    }
    labels = {"force": np.concatenate([1e3 * np.array(f.forces) for f in frames])}
    labels["stress"] = 1e3 * np.array([f.stress for f in frames if f.stress is not None])
    for name, label in labels.items():  # against no force and no stress
        expected |= {f"baseline_{name}_rmse": np.sqrt((label**2).mean()), f"baseline_{name}_mae": np.abs(label).mean()}
    assert (
        set(found)
        == set(expected)
        == {
            key
            for key, metric in METRICS.items()
            if metric.label != "property" and not key.startswith("baseline_energy")
        }
    )
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4), key


def test_metrics_without_a_stress(potential: Potential, frames: list[Frame]) -> None:
    store = Store([frames[0], frames[-1]], CUTOFF, SHIFT)
    found = evaluate(potential.float().eval(), store, SHIFT).metrics()
    assert {key for key in set(METRICS) - set(found) if "stress" not in key and "property" not in key} == set()
    assert not [key for key in found if "stress" in key]
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize(("n_compositions", "weight"), [(1, 0.2), (19, 0.2), (20, 1.0), (500, 1.0)])
def test_many_compositions_make_energies_weigh_more(n_compositions: int, weight: float) -> None:
    stage = FinetuneConfig(max_steps=1, batch_frames=1, energy_weight="auto", second_energy_weight=7.0)
    objective = Labels(stage, n_compositions=n_compositions)
    assert (objective.config.energy_weight, objective.at(0.9).config.energy_weight) == (weight, 7.0)
    asked = Labels(stage.model_copy(update={"energy_weight": 0.3}), n_compositions=n_compositions)
    assert asked.config.energy_weight == 0.3


@pytest.mark.parametrize(
    ("weights", "needed"),
    [
        ({}, {"energy", "forces"}),
        ({"energy_weight": "auto"}, {"energy", "forces"}),
        ({"energy_weight": "auto", "force_weight": 0.0}, {"energy"}),
        ({"force_weight": 0.0}, {"energy"}),
        ({"energy_weight": 0.0}, {"forces"}),
        ({"energy_weight": 0.0, "second_energy_weight": 2.0}, {"energy", "forces"}),
        ({"energy_weight": 0.0, "force_weight": 0.0, "stress_weight": 1.0}, {"stress"}),
    ],
)
def test_labels_of_no_weight_are_not_needed(tiny_recipe, weights: dict[str, Any], needed: set[str]) -> None:
    recipe = tiny_recipe("finetune.second_energy_weight=none", *(f"finetune.{k}={v}" for k, v in weights.items()))
    assert recipe.finetune.needed_labels == needed
