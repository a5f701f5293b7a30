"""The steps of the training loop: learning rates, the moving average, the second stage, clipped gradients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mdpot.training.config import FinetuneConfig
from mdpot.training.objectives import Labels
from mdpot.training.state import BEST, LAST
from mdpot.training.trainer import fit, learning_rate, validate

from .conftest import STAGE, Hooked, new_potential, read_log, run


def test_learning_rates() -> None:
    stage = FinetuneConfig(max_steps=110, batch_frames=1, lr=1e-2, lr_min=1e-4, warmup_steps=10)
    found = [learning_rate(step, 110, stage) for step in range(111)]
    assert found[0] == pytest.approx(1e-3)
    assert found[4] == pytest.approx(5e-3)
    assert found[9] == found[10] == pytest.approx(1e-2)
    assert found[35] == pytest.approx(1e-4 + 0.5 * 9.9e-3 * (1 + math.cos(math.pi / 4)))
    assert found[60] == pytest.approx((1e-2 + 1e-4) / 2)
    assert found[110] == pytest.approx(1e-4)
    assert found[10:] == sorted(found[10:], reverse=True)
    plain = FinetuneConfig(max_steps=10, batch_frames=1, lr=1e-2)
    assert learning_rate(0, 10, plain) == 1e-2
    assert 0 < learning_rate(9, 10, plain) < 1e-3
    longer = FinetuneConfig(max_steps=5, batch_frames=1, lr=1e-2, warmup_steps=50)
    assert learning_rate(4, 5, longer) == pytest.approx(1e-3)


def test_learning_rates_reach_the_log(tmp_path: Path, frames, stores) -> None:
    run(tmp_path, frames, stores, lr_min=1e-3)
    stage = FinetuneConfig(**{**STAGE, "lr_min": 1e-3})
    for line in read_log(tmp_path):
        assert line["lr"] == learning_rate(int(line["step"]) - 1, 14, stage)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_moving_average(tmp_path: Path, frames, stores, decay: float) -> None:
    """Against the recurrence with a decay that grows: a ← d a + (1 - d) w, d = min(decay, (1 + n) / (10 + n))."""
    weights: list[dict[str, torch.Tensor]] = []
    potential = new_potential(frames)

    def remember(n: int) -> None:
        weights.append({key: value.clone() for key, value in potential.state_dict().items()})

    stage = FinetuneConfig(**{**STAGE, "ema_decay": decay})
    objective = Hooked(stage, remember)
    fit(potential, objective, stores[0], stores[1], stage, tmp_path, 0)
    state = torch.load(tmp_path / LAST, weights_only=True)
    weights.append(state["potential"])
    expected = dict(weights[1])  # the start is forgotten
    for n, newer in enumerate(weights[2:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        expected = {key: d * value + (1 - d) * newer[key] for key, value in expected.items()}
    for key, value in expected.items():
        torch.testing.assert_close(state["average"][f"module.{key}"], value, rtol=1e-5, atol=1e-6)
    # What is validated and kept is the average.
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert all(torch.equal(best[key], value) for key, value in potential.state_dict().items())
    assert any(not torch.equal(best[key], weights[-1][key]) for key in best)
    best_loss = min(line["val/loss"] for line in read_log(tmp_path))
    assert validate(potential, Labels(stage), stores[1], stage)["loss"] == best_loss


def test_the_energy_counts_more_in_the_second_stage(tmp_path: Path, frames, stores) -> None:
    length = {"max_steps": 8, "eval_every": 2, "energy_weight": 1.0, "ema_decay": None}
    logs = {}
    for name, weight in (("one", None), ("two", 40.0)):
        potential, _, _ = run(tmp_path / name, frames, stores, second_energy_weight=weight, **length)
        logs[name] = read_log(tmp_path / name)
    for one, two in zip(logs["one"][:3], logs["two"][:3], strict=True):
        assert two["train/loss"] == one["train/loss"]
        assert two["val/force_mae"] == one["val/force_mae"]
        assert two["val/loss"] > one["val/loss"]
    assert logs["two"][3]["train/loss"] > logs["one"][3]["train/loss"]
    assert logs["two"][3]["val/force_mae"] != logs["one"][3]["val/force_mae"]
    # What is validated is the loss of the second stage, so that the best state is chosen by one measure.
    stage = FinetuneConfig(**{**STAGE, "energy_weight": 40.0})
    best = min(line["val/loss"] for line in logs["two"])
    assert validate(potential, Labels(stage), stores[1], stage)["loss"] == best


def test_gradients_are_clipped(tmp_path: Path, frames, stores, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[tuple[float, float]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters, limit):
        parameters = list(parameters)
        norm = clip(parameters, limit)
        total = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))
        norms.append((float(norm), total))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    run(tmp_path / "clipped", frames, stores, clip_norm=1e-3, max_steps=2)
    assert all(before > 1e-3 and after == pytest.approx(1e-3, rel=1e-2) for before, after in norms)
    norms.clear()
    run(tmp_path / "free", frames, stores, clip_norm=None, max_steps=2)
    assert all(before == pytest.approx(after, rel=1e-5) for before, after in norms)
