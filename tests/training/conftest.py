"""Frames and recipes small enough to train on within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mdpot.training.config import Recipe, load_recipe
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.runner import read_runner


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
    """The recipe water-rpbe (or another) cut down to seconds; further keys as text."""

    def make(*overrides: str, name: str = "water-rpbe", model: str = "tide") -> Recipe:
        small = [f"model.hyperparameters.{text}" for text in SMALL[model]]
        return load_recipe(name, "plain", [*QUICK, *small, "data.download=false", *overrides], model)

    return make
