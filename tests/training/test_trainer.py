"""The training loop: it learns, and nothing that stops it changes what comes out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.models import Potential, build_potential
from mdpot.training import trainer
from mdpot.training.config import FinetuneConfig, PretrainConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, rms_force
from mdpot.training.data.store import Store
from mdpot.training.evaluate import evaluate
from mdpot.training.objectives import Labels, MaskedAtoms
from mdpot.training.stopping import Stopped, StopSignal
from mdpot.training.trainer import BEST, LAST, LOG, Means, Progress, Report, fit, learning_rate, validate

CUTOFF = 3.4
STAGE: dict[str, Any] = {
    "max_steps": 14,
    "batch_frames": 3,
    "eval_every": 4,
    "lr": 1e-2,
    "warmup_steps": 2,
    "clip_norm": 5.0,
}


@pytest.fixture(scope="module")
def frames(small_frames: list[Frame]) -> list[Frame]:
    return small_frames[2:15]


@pytest.fixture(scope="module")
def stores(frames: list[Frame]) -> tuple[Store, Store]:
    elements, shift = fit_reference(frames)
    table = dict(zip(elements, shift.tolist(), strict=True))
    return Store(frames[:8], CUTOFF, table, "H2O"), Store(frames[8:], CUTOFF, table, "H2O")


def new_potential(frames: list[Frame], width: int = 8) -> Potential:
    elements, shift = fit_reference(frames)
    torch.manual_seed(0)
    hyperparameters = {"cutoff": CUTOFF, "width": width, "layers": 2}
    return build_potential("egnn", hyperparameters, elements, shift.tolist(), rms_force(frames))


class Hooked(Labels):
    """The labels, and something that happens when a batch is prepared for training."""

    def __init__(self, config: FinetuneConfig, happens: Any = None) -> None:
        super().__init__(config)
        self.happens, self.n_prepared, self.seen = happens, 0, []

    def prepare(self, batch, generator):
        if generator.initial_seed() != trainer.EVALUATION_SEED:
            self.n_prepared += 1
            self.seen.append(batch.graph.positions.sum().item())
            if self.happens is not None:
                self.happens(self.n_prepared)
        return super().prepare(batch, generator)


def run(folder: Path, frames, stores, happens=None, seed: int = 0, listen=lambda report: None, **changes: Any):
    """Fits a new potential in a folder; returns it and the progress."""
    stage = FinetuneConfig(**{**STAGE, **changes})
    potential, objective = new_potential(frames), Hooked(stage, happens)
    progress = fit(potential, objective, stores[0], stores[1], stage, folder, seed, listen)
    return potential, progress, objective


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of the log without the clock."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(
    folder: Path, potential: Potential, progress: Progress, other: Path, expected: Potential, goal: Progress
):
    """Bit for bit."""
    assert read_log(folder) == read_log(other)
    for (name, a), b in zip(potential.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for field in ("step", "epoch", "batch", "best_loss", "best_step", "stale", "finished"):
        assert getattr(progress, field) == getattr(goal, field), field
    last, goal_last = (torch.load(f / LAST, weights_only=True) for f in (folder, other))
    for part in ("potential", "average"):
        if last[part] is not None:
            assert all(torch.equal(last[part][key], goal_last[part][key]) for key in last[part])


def send(number: int, at: int):
    """Sends this process a signal while batch `at` is prepared."""

    def happens(n: int) -> None:
        if n == at:
            os.kill(os.getpid(), number)

    return happens


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
        if generator.initial_seed() != trainer.EVALUATION_SEED:
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
    keys = {f"{split}/{key}" for split in ("train", "val") for key in ("loss", "energy_mae", "force_mae", "force_rmse")}
    assert all(set(line) == {"step", "epoch", "lr", *keys} for line in log)
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


def test_the_seed_is_all_that_is_random(tmp_path: Path, frames, stores) -> None:
    first, goal, _ = run(tmp_path / "a", frames, stores)
    torch.manual_seed(123)
    torch.rand(7)
    again, progress, _ = run(tmp_path / "b", frames, stores)
    assert_same_run(tmp_path / "b", again, progress, tmp_path / "a", first, goal)
    run(tmp_path / "c", frames, stores, seed=1)
    assert read_log(tmp_path / "c") != read_log(tmp_path / "a")


# ---- it stops and goes on --------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, frames, stores):
    """Runs without a stop, by their settings."""
    done: dict[str, Any] = {}

    def get(**changes: Any):
        key = str(sorted(changes.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("uninterrupted")
            potential, progress, _ = run(folder, frames, stores, **changes)
            done[key] = folder, potential, progress
        return done[key]

    return get


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("stops", [[1], [4], [5, 2], [13], [7, 3, 1]], ids=str)
def test_a_stop_changes_nothing(tmp_path, frames, stores, uninterrupted, optimizer, ema, stops: list[int]) -> None:
    changes = {"optimizer": optimizer, "ema_decay": ema}
    goal = uninterrupted(**changes)
    for n in stops:  # in the nth batch of this start
        with pytest.raises(Stopped, match=r"stopped at step \d+ of 14"):
            run(tmp_path, frames, stores, send(signal.SIGTERM, at=n), **changes)
    potential, progress, _ = run(tmp_path, frames, stores, **changes)
    assert_same_run(tmp_path, potential, progress, *goal)


def test_ctrl_c_stops_as_well_and_twice_at_once(tmp_path: Path, frames, stores, uninterrupted) -> None:
    with pytest.raises(Stopped, match="stopped at step 6"):
        run(tmp_path, frames, stores, send(signal.SIGINT, at=6))
    with pytest.raises(KeyboardInterrupt) as error:
        run(tmp_path, frames, stores, lambda n: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert not isinstance(error.value, Stopped)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


def test_a_stop_in_the_last_step_comes_too_late(tmp_path: Path, frames, stores, uninterrupted) -> None:
    potential, progress, _ = run(tmp_path, frames, stores, send(signal.SIGTERM, at=14))
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


def test_signals_work_in_other_threads_as_if_nothing_were(tmp_path: Path) -> None:
    import threading

    seen = []

    def work() -> None:
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_finished_run_stays_as_it_is(tmp_path: Path, frames, stores, uninterrupted) -> None:
    run(tmp_path, frames, stores)
    before = (tmp_path / LAST).read_bytes()
    potential, progress, objective = run(tmp_path, frames, stores)
    assert objective.n_prepared == 0
    assert (tmp_path / LAST).read_bytes() == before
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import importlib.util
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
from mdpot.training import trainer
frames, stores = torch.load(sys.argv[2], weights_only=False)

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

happens = None
if sys.argv[4] == "in a step":
    happens = lambda n: die() if n == 10 else None
elif sys.argv[4] == "before the state is saved":
    keep = trainer._save_state
    trainer._save_state = lambda *a: die() if a[-1].step == 8 else keep(*a)
else:
    write = torch.save
    def half(content, path):
        write(content, path)
        if isinstance(content, dict) and "progress" in content and content["progress"]["step"] == 8:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            die()
    torch.save = half
helpers.run(Path(sys.argv[3]), frames, stores, happens, ema_decay=0.9)
"""


@pytest.mark.parametrize("when", ["in a step", "before the state is saved", "while the state is written"])
def test_kill_9_changes_nothing(tmp_path: Path, frames, stores, uninterrupted, when: str) -> None:
    torch.save((frames, stores), tmp_path / "data.pt")
    folder = tmp_path / "run"
    arguments = [__file__, str(tmp_path / "data.pt"), str(folder), when]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=120, cwd=Path.cwd()
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (folder / LAST).exists()
    potential, progress, objective = run(folder, frames, stores, ema_decay=0.9)
    assert objective.n_prepared == 14 - (8 if when == "in a step" else 4)
    assert_same_run(folder, potential, progress, *uninterrupted(ema_decay=0.9))


@pytest.mark.parametrize("broken", ["_append", "_save_state", "_keep_best"])
def test_any_error_between_two_files_changes_nothing(
    tmp_path, frames, stores, uninterrupted, monkeypatch, broken
) -> None:
    original, calls = getattr(trainer, broken), []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, broken, fail)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, frames, stores)
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


@pytest.mark.parametrize("tail", ['{"step": 8, "ep', '{"step": 8, "epoch": 2}\n{"st', "\0\0\0", '{"no": 1}\n', "[1]\n"])
def test_a_log_that_was_cut_off(tmp_path: Path, frames, stores, uninterrupted, tail: str) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, frames, stores, send(signal.SIGTERM, at=6))
    with (tmp_path / LOG).open("a") as log:
        log.write(tail)
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


@pytest.mark.parametrize("name", [LAST, BEST])
@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_damaged_state_is_refused_in_one_line(tmp_path: Path, frames, stores, name: str, length: int) -> None:
    run(tmp_path, frames, stores)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:length] if length >= 0 else content[: len(content) + length])
    with pytest.raises(MdpotError, match=rf"{name}.*is damaged.*Remove") as error:
        run(tmp_path, frames, stores)
    assert "\n" not in str(error.value)


def test_a_state_of_another_network_is_refused(tmp_path: Path, frames, stores) -> None:
    run(tmp_path, frames, stores)
    stage = FinetuneConfig(**STAGE)  # type: ignore[arg-type]
    with pytest.raises(MdpotError, match=f"{LAST}.*of another network.*mark"):
        fit(new_potential(frames, width=16), Labels(stage), stores[0], stores[1], stage, tmp_path, 0)


# ---- it ends ---------------------------------------------------------------------------


class Scripted(Labels):
    """Labels whose loss is what the test says: the nth of validation, and the nth of training as a factor."""

    def __init__(self, config: FinetuneConfig, validation: list[float], factor=lambda n: 1.0) -> None:
        super().__init__(config)
        self.validation, self.factor, self.n_trained = list(validation), factor, 0

    def loss(self, prediction, target):
        value, logs = super().loss(prediction, target)
        if value.requires_grad:
            self.n_trained += 1
            return value * self.factor(self.n_trained), logs
        logs["loss"] = torch.tensor([self.validation.pop(0), 1.0], dtype=torch.float64)
        return value, logs


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
    with pytest.raises(MdpotError, match=r"diverged at step 5.*Lower lr") as error:
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
        with pytest.raises(MdpotError, match=r"diverged at step 2: the validation loss.*best state so far is kept"):
            fit_scripted(tmp_path / str(bad), frames, stores, [5, bad, 3])
        assert (tmp_path / str(bad) / BEST).exists()


def test_a_first_validation_that_is_no_number(tmp_path: Path, frames, stores) -> None:
    with pytest.raises(MdpotError, match="diverged at step 1") as error:
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


# ---- the parts -------------------------------------------------------------------------


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


def test_means_weigh_batches_by_what_is_in_them() -> None:
    means = Means()
    for total, count in ((10.0, 4.0), (2.0, 1.0), (0.0, 0.0)):
        means.add({"a": torch.tensor([total, count]), "b_mse": torch.tensor([total, count])})
    assert means.peek() == {"a": pytest.approx(12 / 5), "b_rmse": pytest.approx(math.sqrt(12 / 5))}
    assert means.take()["a"] == pytest.approx(12 / 5)
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
