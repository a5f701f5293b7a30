"""The training loop: it learns, writes down what it reaches, and ends in good order."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.stopping import Stopped
from mdpot.training.config import FinetuneConfig, PretrainConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference
from mdpot.training.data.store import Store
from mdpot.training.evaluate import evaluate
from mdpot.training.objectives import Labels, MaskedAtoms, Score
from mdpot.training.state import BEST, LAST, LOG
from mdpot.training.trainer import Diverged, Means, Report, fit, validate

from .conftest import CUTOFF, STAGE, new_potential, read_log, run, validates

# ---- it learns -------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
def test_one_frame_is_learned_by_heart(tmp_path: Path, frames: list[Frame], optimizer: str) -> None:
    one = frames[:1]
    table = dict(zip(*fit_reference(one), strict=True))
    store = Store(one, CUTOFF, table)
    stage = FinetuneConfig(max_steps=250, batch_frames=1, eval_every=50, lr=1e-2, optimizer=optimizer)  # type: ignore
    potential = new_potential(one, width=16)
    before = evaluate(potential.eval(), store).metrics()
    fit(potential, Labels(stage), store, store, stage, tmp_path, 0)
    after = evaluate(potential, store).metrics()
    assert after["force_rmse"] < 0.2 * before["force_rmse"]
    assert after["energy_mae"] < 20
    losses = [line["val/loss"] for line in read_log(tmp_path)]
    assert losses == sorted(losses, reverse=True)


def test_masked_pretraining_learns(tmp_path: Path, frames, stores) -> None:
    stage = PretrainConfig(objective="mask", max_steps=60, batch_frames=4, eval_every=20, lr=1e-2, ratio=0.5)
    fit(new_potential(frames, width=16), MaskedAtoms(stage), stores[0], stores[1], stage, tmp_path, 0)
    log = read_log(tmp_path)
    assert log[-1]["val/cosine"] > 0.5
    assert log[-1]["val/cosine"] > log[0]["val/cosine"]
    assert log[-1]["val/loss"] == pytest.approx(1 - log[-1]["val/cosine"], abs=1e-6)
    assert 0.35 < log[-1]["train/share_masked"] < 0.65


class RememberingMasks(MaskedAtoms):
    """Remembers the masks of training, and can be stopped."""

    def __init__(self, config: PretrainConfig, stop_at: int = 0) -> None:
        super().__init__(config)
        self.masks, self.stop_at = [], stop_at

    def prepare(self, batch, generator):
        prepared, target = super().prepare(batch, generator)
        if not validates(generator):
            self.masks.append(target.displacements)
            if len(self.masks) == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        return prepared, target


def test_masks_differ_from_epoch_to_epoch_and_survive_a_stop(tmp_path: Path, frames, stores) -> None:
    stage = PretrainConfig(objective="mask", max_steps=6, batch_frames=1, eval_every=2, ratio=0.5)
    objective, potential = RememberingMasks(stage), new_potential(frames)
    one = Store([max(frames, key=len)], CUTOFF, molecule="H2O")
    fit(potential, objective, one, stores[1], stage, tmp_path / "a", 0)
    assert len(objective.masks) == 6  # one frame, once an epoch
    sizes = {(len(mask), round(float(mask.square().sum()), 4)) for mask in objective.masks}
    assert len(sizes) == 6
    first, second, again = RememberingMasks(stage, stop_at=3), RememberingMasks(stage), new_potential(frames)
    with pytest.raises(Stopped):
        fit(again, first, one, stores[1], stage, tmp_path / "b", 0)
    again = new_potential(frames)
    fit(again, second, one, stores[1], stage, tmp_path / "b", 0)
    assert len(second.masks) == 4
    assert all(torch.equal(a, b) for a, b in zip(objective.masks[2:], second.masks, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(potential.parameters(), again.parameters(), strict=True))
    assert read_log(tmp_path / "a") == read_log(tmp_path / "b")


def test_the_best_weights_are_left_in_the_potential(tmp_path: Path, frames, stores) -> None:
    potential, progress, _ = run(tmp_path, frames, stores, lr=0.05)
    log = read_log(tmp_path)
    losses = [line["val/loss"] for line in log]
    assert progress.best_loss == min(losses)
    assert progress.best_step == log[int(np.argmin(losses))]["step"]
    found = validate(potential, Labels(FinetuneConfig(**STAGE)), stores[1], FinetuneConfig(**STAGE))
    assert found["loss"] == progress.best_loss
    assert not potential.training


def test_the_log(tmp_path: Path, frames, stores) -> None:
    reports: list[Report] = []
    _, progress, _ = run(tmp_path, frames, stores, listen=reports.append)
    log = read_log(tmp_path)
    assert [line["step"] for line in log] == [4, 8, 12, 14]
    assert progress.step == 14
    numbers = ("loss", "energy_mae", "energy_rmse", "force_mae", "force_rmse")
    keys = {f"{split}/{key}" for split in ("train", "val") for key in numbers}
    assert all(set(line) == {"step", "epoch", "steps_per_epoch", "lr", *keys} for line in log)
    for line in log:
        done = line["step"] - line["epoch"] * line["steps_per_epoch"]
        assert 0 < done <= line["steps_per_epoch"]
    validations = [r for r in reports if "val/loss" in r.numbers]
    assert [(r.step, r.n_steps) for r in validations] == [(4, 14), (8, 14), (12, 14), (14, 14)]
    assert {key: value for key, value in reports[-1].numbers.items() if key != "seconds"} == log[-1]
    assert reports[-1].seconds >= reports[0].seconds > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([LAST, BEST, LOG])


def test_an_epoch_sees_every_frame_once(tmp_path: Path, frames, stores) -> None:
    _, progress, objective = run(tmp_path, frames, stores, max_steps=None, epochs=3, eval_every=None)
    assert objective.n_prepared == 9  # 8 frames in batches of 3
    assert [line["step"] for line in read_log(tmp_path)] == [3, 6, 9]
    sums = np.array(objective.seen).reshape(3, 3)
    np.testing.assert_allclose(sums.sum(1), sums.sum(1)[0], rtol=1e-5)
    assert len({tuple(np.round(np.sort(row), 3)) for row in sums}) == 3, "batches differ from epoch to epoch"
    assert progress.step == 9


# ---- it ends ---------------------------------------------------------------------------


class Scripted(Labels):
    """Labels whose loss is what the test says: the nth of validation, and the nth of training as a factor."""

    def __init__(self, config: FinetuneConfig, validation: list[float], factor=lambda n: 1.0) -> None:
        super().__init__(config)
        self.validation, self.factor, self.n_trained = list(validation), factor, 0

    def score(self, prediction, target):
        score = super().score(prediction, target)
        if prediction["interaction"].requires_grad:
            self.n_trained += 1
            factor = self.factor(self.n_trained)
            return replace(score, terms={name: (factor * total, n) for name, (total, n) in score.terms.items()})
        said = torch.tensor(self.validation.pop(0), dtype=torch.float64)
        return replace(score, terms={"said": (said, torch.ones_like(said))})


def fit_scripted(folder: Path, frames, stores, validation: list[float], factor=lambda n: 1.0, **changes: Any):
    stage = FinetuneConfig(**{**STAGE, "batch_frames": 20, "eval_every": 1, "max_steps": 8, **changes})
    potential, objective = new_potential(frames), Scripted(stage, validation, factor)
    return fit(potential, objective, stores[0], stores[1], stage, folder, 0), potential, objective


def test_early_stop(tmp_path: Path, frames, stores) -> None:
    progress, potential, objective = fit_scripted(tmp_path, frames, stores, [5, 3, 4, 2, 2, 2.5, 9, 9], patience=3)
    assert (progress.best_loss, progress.best_step, progress.stale, progress.step) == (2, 4, 3, 7)
    assert progress.finished
    assert objective.n_trained == 7
    # It stays stopped.
    again, same, objective = fit_scripted(tmp_path, frames, stores, [0] * 9, patience=3)
    assert (again.step, objective.n_trained) == (7, 0)
    assert all(torch.equal(a, b) for a, b in zip(potential.parameters(), same.parameters(), strict=True))
    progress, _, _ = fit_scripted(tmp_path / "patient", frames, stores, [5, 3, 4, 2, 2, 2.5, 9, 9])
    assert (progress.step, progress.stale) == (8, 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number(tmp_path: Path, frames, stores, bad: float) -> None:
    with pytest.raises(Diverged, match=r"diverged at step 5.*Lower lr") as error:
        fit_scripted(tmp_path, frames, stores, [5, 4, 3, 2, 1], lambda n: bad if n == 6 else 1.0)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    # What was reached is kept, and can be gone on with.
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4, 5]
    state = torch.load(tmp_path / LAST, weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state["potential"].values())
    assert (tmp_path / BEST).exists()
    progress, potential, _ = fit_scripted(tmp_path, frames, stores, [1, 1, 1])
    _, goal, _ = fit_scripted(tmp_path / "goal", frames, stores, [5, 4, 3, 2, 1, 1, 1, 1])
    assert progress.step == 8
    assert all(torch.equal(a, b) for a, b in zip(potential.parameters(), goal.parameters(), strict=True))


def test_a_validation_that_is_no_number(tmp_path: Path, frames, stores) -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(Diverged, match=r"diverged at step 2: the validation loss.*best state so far is kept"):
            fit_scripted(tmp_path / str(bad), frames, stores, [5, bad, 3])
        assert (tmp_path / str(bad) / BEST).exists()


def test_a_first_validation_that_is_no_number(tmp_path: Path, frames, stores) -> None:
    with pytest.raises(Diverged, match="diverged at step 1") as error:
        fit_scripted(tmp_path, frames, stores, [math.nan] * 9)
    assert "kept" not in str(error.value)


def test_a_validation_without_a_mask_keeps_the_newest_weights(tmp_path: Path, frames, stores) -> None:
    """With few molecules it may happen that none of the validation is masked."""
    table = dict(zip(*fit_reference(frames), strict=True))
    empty = Store(frames[:1], CUTOFF, table, "CH4")
    stage = PretrainConfig(objective="mask", max_steps=4, batch_frames=4, eval_every=2, lr=1e-2)
    potential = new_potential(frames)
    progress = fit(potential, MaskedAtoms(stage), stores[0], empty, stage, tmp_path, 0)
    assert (progress.step, progress.best_step) == (4, 4)
    newest = torch.load(tmp_path / LAST, weights_only=True)["potential"]
    assert all(torch.equal(value, newest[key]) for key, value in potential.state_dict().items())
    for line in (tmp_path / LOG).read_text().splitlines():
        json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    from mdpot.training.report import draw_curves, read_log

    draw_curves(tmp_path / "curves.png", {"pretrain": read_log(tmp_path), "finetune": {}})


# ---- the numbers -----------------------------------------------------------------------


def test_means_weigh_batches_by_what_is_in_them() -> None:
    means = Means()
    for total, count in ((10.0, 4.0), (2.0, 1.0), (0.0, 0.0)):
        pair = torch.tensor(total), torch.tensor(count)
        means.add(Score({"one": pair, "other": pair}, {"cosine": pair, "force_rmse": pair}))
    assert means.peek()["loss"] == pytest.approx(24 / 5)
    assert means.peek() | {"loss": None} == {
        "loss": None,
        "cosine": pytest.approx(12 / 5),
        "force_rmse": pytest.approx(math.sqrt(12 / 5)),
    }
    assert means.take()["cosine"] == pytest.approx(12 / 5)
    assert means.take() == {}


def test_validation_does_not_depend_on_the_batches(frames, stores) -> None:
    potential = new_potential(frames)
    several = [
        validate(potential.train(), Labels(stage), stores[1], stage)
        for stage in (FinetuneConfig(max_steps=1, batch_frames=n) for n in (1, 2, 100))
    ]
    assert potential.training
    for other in several[1:]:
        for key in ("energy_mae", "force_mae", "force_rmse"):
            assert other[key] == pytest.approx(several[0][key], rel=1e-4)
