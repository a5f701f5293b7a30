"""Training by the kernels is training by torch: which of them is chosen, and that they end alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.heads import Potential, build_potential, build_property
from mdpot.kernels import NoKernel, TrainingKernel, library
from mdpot.training import engine as engines
from mdpot.training.config import FinetuneConfig, PretrainConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, rms_force
from mdpot.training.data.store import Store
from mdpot.training.engine import choose_engine
from mdpot.training.evaluate import evaluate
from mdpot.training.objectives import Denoising, Labels, MaskedAtoms, Objective
from mdpot.training.trainer import Diverged, fit

from .conftest import CUTOFF, STAGE, read_log

needs_kernels = pytest.mark.skipif(not library.supported(), reason="the kernels are not compiled")
FORCES = ["interaction", "forces"]


def new_tide(frames: list[Frame], dtype: torch.dtype = torch.float32) -> Potential:
    elements, shift = fit_reference(frames)
    torch.manual_seed(0)
    hyperparameters = {"cutoff": CUTOFF, "width": 16, "layers": 2}
    return build_potential("tide", hyperparameters, elements, shift.tolist(), rms_force(frames)).to(dtype)


def objectives() -> dict[str, tuple[Any, Objective]]:
    """Stages whose objective the kernels compute, and these."""
    labels = {**STAGE, "ema_decay": 0.9, "energy_weight": 0.5}
    denoise = PretrainConfig(objective="denoise", sigma=0.1, **STAGE)
    mask = PretrainConfig(objective="mask", ratio=0.5, **STAGE)
    finetune = FinetuneConfig(**labels)
    return {
        "labels": (finetune, Labels(finetune)),
        "denoise": (denoise, Denoising(denoise, CUTOFF)),
        "mask": (mask, MaskedAtoms(mask)),
    }


@needs_kernels
@pytest.mark.parametrize("name", objectives())
def test_either_engine_ends_alike(tmp_path, frames, stores: tuple[Store, Store], name) -> None:
    """In float64 and with AdamW: SOAP's first basis is of few gradients, and where these say nothing, of rounding."""
    stage, objective = objectives()[name]
    logs, networks = [], []
    for asked in ("kernels", "torch"):
        network = new_tide(frames, torch.float64)
        fit(network, objective, *stores, stage.model_copy(update={"engine": asked}), tmp_path / asked, 0)
        logs.append(read_log(tmp_path / asked))
        networks.append(network)
    for ours, theirs in zip(*logs, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(*(network.state_dict().values() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert logs[0][-1]["val/loss"] < logs[0][0]["val/loss"]


@needs_kernels
@pytest.mark.parametrize("asked", ["kernels", "torch"])
def test_weights_that_diverge_are_called_that(tmp_path, frames, stores: tuple[Store, Store], asked: str) -> None:
    stage, objective = objectives()["labels"]
    stage = stage.model_copy(update={"engine": asked, "optimizer": "adamw", "lr": 1e6, "warmup_steps": 0})
    with pytest.raises(Diverged, match="Lower lr"):
        fit(new_tide(frames), objective, *stores, stage, tmp_path, 0)


@needs_kernels
def test_too_many_weights_for_the_kernels_are_trained_by_torch(monkeypatch, frames) -> None:
    monkeypatch.setattr("mdpot.kernels.training.MOST_WEIGHTS", 100)
    network = new_tide(frames)
    assert choose_engine(network, FORCES) is network
    with pytest.raises(NoKernel, match="less than 100 weights in float32"):
        choose_engine(network, FORCES, "kernels")


@needs_kernels
def test_a_run_is_repeated_to_the_bit(tmp_path, frames, stores: tuple[Store, Store]) -> None:
    stage, objective = objectives()["labels"]
    stage = stage.model_copy(update={"optimizer": "soap"})
    first, second = new_tide(frames), new_tide(frames)
    for network, folder in ((first, "first"), (second, "second")):
        fit(network, objective, *stores, stage, tmp_path / folder, 0)
    assert read_log(tmp_path / "first") == read_log(tmp_path / "second")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@needs_kernels
def test_errors_of_either_engine_are_the_same(monkeypatch, frames, stores: tuple[Store, Store]) -> None:
    network = new_tide(frames).double().eval()
    found = evaluate(network, stores[1]).metrics()
    monkeypatch.setenv(library.VARIABLE, "off")
    assert evaluate(network, stores[1]).metrics() == pytest.approx(found, rel=1e-6)


@needs_kernels
def test_the_kernels_where_they_can(frames) -> None:
    tide = new_tide(frames)
    assert isinstance(choose_engine(tide, FORCES), TrainingKernel)
    assert tide.training
    assert choose_engine(tide, FORCES, "torch") is tide
    assert choose_engine(tide, ["interaction", "vector"]) is tide
    with pytest.raises(MdpotError, match=r'engine: "kernels" is not possible: .*learned here: vector'):
        choose_engine(tide, ["interaction", "vector"], "kernels")
    half = new_tide(frames, torch.float16)
    assert choose_engine(half, FORCES) is half


def test_torch_where_they_cannot() -> None:
    egnn = build_potential("egnn", {"width": 8}, [1, 8], [0.0, 0.0], 1.0)
    assert choose_engine(egnn, FORCES) is egnn
    with pytest.raises(NoKernel, match='engine: "kernels" is not possible: only Tide'):
        choose_engine(egnn, FORCES, "kernels")
    model = build_property("tide", {}, [1, 8], "gap")
    assert choose_engine(model, []) is model


def test_missing_kernels_are_told_once(monkeypatch, caplog, frames) -> None:
    monkeypatch.setattr(engines, "_told", set())
    monkeypatch.setattr(library, "instruction_sets", lambda: [])
    library.of.cache_clear()
    tide = new_tide(frames)
    try:
        with caplog.at_level("WARNING", "mdpot.training"):
            assert choose_engine(tide, FORCES) is tide
            assert choose_engine(tide, FORCES) is tide
    finally:
        library.of.cache_clear()
    assert caplog.text.count("torch computes this network, not the kernels: there are no kernels for") == 1
