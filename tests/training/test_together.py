"""Several processes train as one would: the same steps, the same decisions, one end."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.heads import PropertyModel, build_property
from mdpot.models import MODELS
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.config import FinetuneConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference
from mdpot.training.data.store import Store
from mdpot.training.objectives import Labels, PropertyTarget, pretraining_objective
from mdpot.training.process import Process
from mdpot.training.schema import PretrainConfig
from mdpot.training.together import SOLO, Team, together
from mdpot.training.trainer import Diverged

from .conftest import CUTOFF, STAGE, read_log
from .teams import StopAt, assert_same, new_network, train

RAGGED: dict[str, Any] = {**STAGE, "batch_frames": 7, "energy_weight": 3.0}
"""Eight frames in batches of seven: the second process gets nothing of the batches of one."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Team]:
    """Two processes."""
    with together(2, "cpu") as team:
        yield team


@pytest.fixture(scope="module")
def ragged(frames: list[Frame]) -> list[Frame]:
    """Frames of which some lack energy, forces or stress, with a property of most of them."""
    rng, out = np.random.default_rng(0), []
    for n, frame in enumerate(frames):
        stress = rng.normal(size=(3, 3))
        frame = replace(frame, stress=None if n % 4 else 0.01 * (stress + stress.T), properties={})
        frame = replace(frame, energy=None) if n % 3 == 1 else frame
        frame = replace(frame, forces=None) if n % 5 == 2 else frame
        if n % 7:
            frame.properties["gap"] = float(rng.normal())
        out.append(frame)
    return out


@pytest.fixture(scope="module")
def parts(ragged: list[Frame], frames: list[Frame]) -> tuple[Store, Store]:
    elements, shift = fit_reference(frames)
    table = dict(zip(elements, shift.tolist(), strict=True))
    return Store(ragged[:8], CUTOFF, table, "H2O"), Store(ragged[8:], CUTOFF, table, "H2O")


@pytest.mark.parametrize("model", MODELS)
def test_labels_are_learned_as_by_one_process(pair: Team, frames, parts, tmp_path: Path, model: str) -> None:
    stage = FinetuneConfig(**{**RAGGED, "ema_decay": 0.9, "stress_weight": 0.5 * MODELS[model].conservative})
    start, *networks = (new_network(frames, model) for _ in range(3))
    for team, network, name in zip((SOLO, pair), networks, "ab", strict=True):
        train(team, network, Labels(stage, parts[0].labels), parts, stage, tmp_path / name)
    assert_same(networks[1], networks[0], tmp_path / "b", tmp_path / "a")
    assert not torch.allclose(networks[0].embedding.element.weight, start.embedding.element.weight, atol=1e-2)


def test_soap_learns_as_in_one_process_but_for_its_basis(pair: Team, frames, stores, tmp_path: Path) -> None:
    """The first gradients of a matrix leave a part of its eigenbasis open, which rounding decides."""
    stage = FinetuneConfig(**{**STAGE, "optimizer": "soap", "eval_every": 1, "batch_frames": 4, "max_steps": 20})
    for team, name in ((SOLO, "a"), (pair, "b")):
        train(team, new_network(frames), Labels(stage), stores, stage, tmp_path / name)
    one, two = ([line["train/loss"] for line in read_log(tmp_path / name)] for name in "ab")
    assert two[:2] == pytest.approx(one[:2], rel=1e-9)  # the first step only finds the basis
    assert two == pytest.approx(one, rel=0.2)
    assert one[-1] < 0.8 * one[0]


def test_a_property_is_learned_as_by_one_process(pair: Team, frames, parts, tmp_path: Path) -> None:
    stage = FinetuneConfig(**RAGGED)
    networks: list[PropertyModel] = []
    for team, name in ((SOLO, "a"), (pair, "b")):
        torch.manual_seed(0)
        sizes = {"cutoff": CUTOFF, "width": 8, "layers": 2}
        network = build_property("egnn", sizes, fit_reference(frames)[0], "gap", "eV", "mean", 0.1, 0.9).double()
        train(team, network, PropertyTarget(stage, network), parts, stage, tmp_path / name)
        networks.append(network)
    assert_same(networks[1], networks[0], tmp_path / "b", tmp_path / "a")


@pytest.mark.parametrize("objective", ["mask", "denoise"])
def test_random_objectives_are_validated_alike(pair: Team, frames, stores, tmp_path: Path, objective: Any) -> None:
    """Masks and noise of the training differ; with steps of nothing those of the validation are seen to be the same."""
    stage = PretrainConfig(objective=objective, max_steps=2, batch_frames=4, eval_every=1, lr=1e-30)
    for team, name in ((SOLO, "a"), (pair, "b")):
        network = new_network(frames)
        made = pretraining_objective(stage, CUTOFF, stores[0].labels, network.scale)
        train(team, network, made, stores, stage, tmp_path / name)
    one, two = read_log(tmp_path / "a"), read_log(tmp_path / "b")
    for a, b in zip(one, two, strict=True):
        validation = {key: value for key, value in a.items() if key.startswith("val/")}
        assert "val/loss" in validation
        assert {key: b[key] for key in validation} == pytest.approx(validation, rel=1e-9)
        assert a["train/cosine"] != pytest.approx(b["train/cosine"], rel=1e-9)


def test_normalization_by_the_batch_knows_all_of_it(pair: Team, frames, stores, tmp_path: Path) -> None:
    """The running averages are those of both processes: what is saved validates as it did in training."""
    stage = FinetuneConfig(**{**STAGE, "batch_frames": 4, "max_steps": 4})
    networks = [new_network(frames, "cgcnn", norm="batch") for _ in range(2)]
    for team, network, name in zip((SOLO, pair), networks, "ab", strict=True):
        train(team, network, Labels(stage), stores, stage, tmp_path / name)
    one, two = (dict(network.named_buffers())["backbone.layers.0.norm.running_mean"] for network in networks)
    # The mean of two shares of about equal size is nearly that of the batch.
    torch.testing.assert_close(two, one, rtol=0.2, atol=0.2 * float(one.abs().max()))
    assert not torch.equal(two, torch.zeros_like(two))


@pytest.mark.parametrize("begins", [1, 2])
def test_another_number_of_processes_goes_on(pair: Team, frames, parts, tmp_path: Path, begins: int) -> None:
    stage = FinetuneConfig(**{**RAGGED, "ema_decay": 0.9})
    objective = Labels(stage, parts[0].labels)
    goal, network = new_network(frames), new_network(frames)
    train(SOLO, goal, objective, parts, stage, tmp_path / "goal")
    first, second = (SOLO, pair) if begins == 1 else (pair, SOLO)
    with pytest.raises(Stopped, match="stopped at step 4 of 14"):
        train(first, network, objective, parts, stage, tmp_path / "run", StopAt(2))  # the first is of step 1
    network = new_network(frames)
    train(second, network, objective, parts, stage, tmp_path / "run")
    assert_same(network, goal, tmp_path / "run", tmp_path / "goal")


def test_all_stop_when_one_is_asked_to(pair: Team, frames, parts, tmp_path: Path) -> None:
    stage = FinetuneConfig(**{**RAGGED, "max_steps": 100_000, "eval_every": 2})
    stop = StopAt(3, pid=pair.others[0].pid)
    with pytest.raises(Stopped, match=r"stopped at step \d+ of 100000"):
        train(pair, new_network(frames), Labels(stage), parts, stage, tmp_path, stop)
    assert pair.others[0].poll() is None


def test_all_diverge_together_and_can_train_again(pair: Team, frames, stores, tmp_path: Path) -> None:
    """Only one of them sees the frame that is to blame."""
    bad = copy.deepcopy(stores[0])
    bad.labels["forces"][:10] = 1e300
    stage = FinetuneConfig(**{**STAGE, "loss": "l2"})
    for name in "ab":
        with pytest.raises(Diverged, match="diverged at step"):
            train(pair, new_network(frames), Labels(stage), (bad, stores[1]), stage, tmp_path / name)
    assert train(pair, new_network(frames), Labels(stage), stores, stage, tmp_path / "c").step == 14


def test_each_has_its_share_of_the_threads(pair: Team, frames, stores, tmp_path: Path) -> None:
    before, seen, stage = torch.get_num_threads(), [], FinetuneConfig(**STAGE)
    torch.set_num_threads(6)
    try:
        with together(3, "cpu") as team:
            assert team.threads == 2
        note = lambda report: seen.append(torch.get_num_threads())  # noqa: E731
        train(pair, new_network(frames), Labels(stage), stores, stage, tmp_path, note)
        assert set(seen) == {pair.threads} == {1}  # `pair` began with one
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_a_batch_and_weigh_about_the_same(size: int) -> None:
    rng = np.random.default_rng(size)
    for n in (1, 2, 4, 17):
        frames = torch.from_numpy(rng.permutation(100)[:n])
        work = torch.from_numpy(rng.integers(1, 1000, n))
        shares = [Process(rank, size).share(frames, work) for rank in range(size)]
        assert sorted(torch.cat(shares).tolist()) == sorted(frames.tolist())
        weight = dict(zip(frames.tolist(), work.tolist(), strict=True))
        loads = [sum(weight[f] for f in share.tolist()) for share in shares]
        assert max(loads) - min(loads) <= max(weight.values())


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MdpotError, match="at most the number of GPUs here, 1; got 2"), together(2, "cuda"):
        pass
    with pytest.raises(MdpotError, match="on cpu or cuda; got --device meta"), together(2, "meta"):
        pass
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(MdpotError, match="torchrun has its own"), together(2):
        pass


def test_a_request_to_stop_counts_in_the_blocks_inside() -> None:
    with StopSignal():
        os.kill(os.getpid(), signal.SIGTERM)
        with StopSignal() as inner:
            assert inner.requested
    with StopSignal() as alone:
        assert not alone.requested
