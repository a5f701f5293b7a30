"""What the tests of several processes share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.models.hyperparameters import hyperparameters_of
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, rms_force
from mdpot.training.data.store import Store
from mdpot.training.objectives import Objective
from mdpot.training.schema import Stage
from mdpot.training.state import Progress
from mdpot.training.together import Team
from mdpot.training.trainer import Report

from .conftest import CUTOFF, read_log

SIZES = {"width": 8, "layers": 2, "n_radial": 4, "hidden": 16, "channels": 4}


def new_network(frames: list[Frame], name: str = "egnn", **sizes: Any) -> Potential:
    """A network in double precision; the same at every call."""
    elements, shift = fit_reference(frames)
    torch.manual_seed(0)
    takes = {key: value for key, value in {**SIZES, **sizes}.items() if key in hyperparameters_of(MODELS[name])}
    return build_potential(name, {"cutoff": CUTOFF, **takes}, elements, shift.tolist(), rms_force(frames)).double()


def train(
    team: Team,
    network: torch.nn.Module,
    objective: Objective,
    stores: tuple[Store, Store],
    stage: Stage,
    folder: Path,
    listen: Callable[[Report], None] = lambda report: None,
) -> Progress:
    return team.fit(
        potential=network, objective=objective, train=stores[0], validation=stores[1], stage=stage, folder=folder,
        seed=0, listen=listen,
    )  # fmt: skip


def assert_same(a: torch.nn.Module, b: torch.nn.Module, folder: Path, other: Path) -> None:
    """The same weights and the same log, but for rounding in double precision, which Adam's division magnifies."""
    for (name, value), expected in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9, msg=name)
    lines, goal = read_log(folder), read_log(other)
    assert len(lines) == len(goal) > 0
    for line, wanted in zip(lines, goal, strict=True):
        assert line == pytest.approx(wanted, rel=1e-7)


class StopAt:
    """Sends a signal at the nth report."""

    def __init__(self, n: int, number: int = signal.SIGTERM, pid: int | None = None) -> None:
        self.n, self.number, self.pid = n, number, pid or os.getpid()

    def __call__(self, report: Report) -> None:
        self.n -= 1
        if self.n == 0:
            os.kill(self.pid, self.number)
