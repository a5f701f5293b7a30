"""Frames and recipes small enough to train on within seconds; a whole run and fits of one network that tests share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdpot import load_potential
from mdpot.heads import Potential, build_potential
from mdpot.training import trainer
from mdpot.training.config import FinetuneConfig, Recipe, load_recipe
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner
from mdpot.training.data.reference import fit_reference, rms_force
from mdpot.training.data.store import Store
from mdpot.training.listener import Listener
from mdpot.training.objectives import Labels
from mdpot.training.run import run_train
from mdpot.training.state import LOG
from mdpot.training.trainer import fit


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """With several threads sums may come out in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# A network and batches with which a stage takes a second.
QUICK = (
    "model.hyperparameters.width=8",
    "model.hyperparameters.layers=2",
    "pretrain.max_steps=6",
    "pretrain.eval_every=3",
    "pretrain.batch_frames=4",
    "pretrain.warmup_steps=2",
    "finetune.max_steps=8",
    "finetune.eval_every=4",
    "finetune.batch_frames=4",
    "finetune.warmup_steps=2",
)


# What else makes an architecture small.
SMALL = {"tide": ("channels=4", "n_radial=4", "hidden=16"), "egnn": ()}


@pytest.fixture(scope="session")
def sample() -> list[Frame]:
    """All frames of the sample inside the package."""
    return read_runner(SAMPLE)


@pytest.fixture(scope="session")
def small_frames(sample: list[Frame]) -> list[Frame]:
    """A few frames of many groups, with the flattest and the most slanted cell among them."""
    flattest = min(sample, key=lambda frame: 1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max())
    slanted = max(sample, key=lambda frame: np.abs(frame.cell - np.diag(np.diag(frame.cell))).max())
    small = [frame for frame in sample if len(frame) <= 36]
    return [flattest, slanted, *small[:: len(small) // 22]]


@pytest.fixture(scope="session")
def small_file(small_frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These frames as a RuNNer file, as a user would give one by --data."""
    from mdpot.units import BOHR, HARTREE, HARTREE_PER_BOHR

    lines = []
    for frame in small_frames:
        lines += ["begin", f"comment source_frame {frame.group} T 300.0 step 0"]
        lines += ["lattice " + " ".join(f"{x:.12f}" for x in row / BOHR) for row in frame.cell]
        symbols = {1: "H", 8: "O"}
        assert frame.forces is not None
        assert frame.energy is not None
        for z, x, f in zip(frame.numbers, frame.positions / BOHR, frame.forces / HARTREE_PER_BOHR, strict=True):
            numbers = [*(f"{v:.12f}" for v in x), symbols[int(z)], "0.0", "0.0", *(f"{v:.12f}" for v in f)]
            lines.append("atom " + " ".join(numbers))
        lines += [f"energy {frame.energy / HARTREE:.12f}", "charge 0.0", "end"]
    path = tmp_path_factory.mktemp("frames") / "input.data"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """The recipe water-rpbe, masking, or another as it is, cut down to seconds; further keys as text."""

    def make(*overrides: str, name: str = "water-rpbe", model: str = "tide") -> Recipe:
        small = [f"model.hyperparameters.{text}" for text in SMALL[model]]
        small += ["pretrain.objective=mask"] if name == "water-rpbe" else []
        return load_recipe(name, "plain", [*QUICK, *small, "data.download=false", *overrides], model)

    return make


# ---- whole runs ------------------------------------------------------------------------


CPU: dict[str, Any] = {"device": "cpu"}


class Notes(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, stage, report) -> None:
        self.stages.append(stage)


class StopAfter(Listener):
    """Stops the run as Ctrl-C would, at the nth report of a stage."""

    def __init__(self, stage: str, n: int) -> None:
        self.stage, self.n = stage, n

    def progress(self, stage, report) -> None:
        self.n -= stage == self.stage
        if self.n == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_file: Path, tiny_recipe):
    """A run that pretrained and finetuned: its folder, what it returned, its recipe, and what it said."""
    out, recipe, listener = tmp_path_factory.mktemp("runs") / "first", tiny_recipe(), Notes()
    metrics = run_train(recipe, data=small_file, out=out, listener=listener, **CPU)
    return out, metrics, recipe, listener


def without_clock(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "finetune_seconds"}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_potential(path)[0].state_dict()


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights_of(a), weights_of(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


# ---- the training loop by itself -------------------------------------------------------


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


def validates(generator: torch.Generator) -> bool:
    """Whether a generator is that of a validation."""
    return 0 <= generator.initial_seed() - trainer.EVALUATION_SEED < 1000


class Hooked(Labels):
    """The labels, and something that happens when a batch is prepared for training."""

    def __init__(self, config: FinetuneConfig, happens: Any = None) -> None:
        super().__init__(config)
        self.happens, self.n_prepared, self.seen = happens, 0, []

    def prepare(self, batch, generator):
        if not validates(generator):
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
