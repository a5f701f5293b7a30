"""Fake trainings for grids of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mdpot.training.config import recipe_to_dict
from mdpot.training.listener import Listener
from mdpot.training.reproduce import Selection, Work, reproduce
from mdpot.training.reproduce.grid import Run, folder_of, outcome_of


@pytest.fixture(autouse=True)
def quick_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second; only the test of whole pages draws them."""
    if "whole" not in request.node.name:
        monkeypatch.setattr("mdpot.training.reproduce.driver.draw", lambda *_: None)
        monkeypatch.setattr("mdpot.training.reproduce.numbers.commit", lambda: "abc")


ONE = Selection(seeds=2, models=("egnn",), datasets=("water-rpbe",))
SILENT = Listener()


class Fake:
    """Stands in for the processes: a run takes `turns` looks, and leaves the files of a real one with errors that
    depend on how it was trained."""

    def __init__(self, turns: int = 1, status: Callable[[Run], str] = lambda run: "finished") -> None:
        self.turns, self.status = turns, status
        self.begun: list[str] = []
        self.at_work, self.most, self.stopped, self.killed = 0, 0, 0, 0

    def __call__(self, run: Run, out: Path, work: Work) -> Any:
        self.begun.append(run.folder)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        return FakeJob(self, run, out)


class FakeJob:
    def __init__(self, fake: Fake, run: Run, out: Path) -> None:
        self.fake, self.run, self.out, self.turns = fake, run, out, fake.turns

    def running(self) -> bool:
        self.turns -= 1
        if self.turns == 0:
            leave(self.run, self.out, self.fake.status(self.run))
            self.fake.at_work -= 1
        return self.turns > 0

    def stop(self) -> None:
        self.fake.stopped += 1
        self.turns = 1

    def kill(self) -> None:
        self.fake.killed += 1


ERRORS = {"train": 160.0, "finetune": 100.0}


def leave(run: Run, out: Path, status: str) -> None:
    """The files of a run."""
    folder = folder_of(run, out)
    (folder / "pretrain").mkdir(parents=True, exist_ok=True)
    (folder / "finetune").mkdir(exist_ok=True)
    data = {
        "labels": "the RPBE-D3 network potential (not DFT)",
        "n_frames": 6120,
        "fingerprint": "f" * 64,
        "origin": "here",
    }
    content = {"kind": run.kind, "seed": run.seed, "recipe": recipe_to_dict(run.recipe), "data": data}
    if run.kind != "dynamics":
        (folder / "run.json").write_text(json.dumps(content))
    facts = {
        "status": status,
        "seconds": 36.0,
        "threads": 1,
        "device": None,
        "commit": "abc",
        "versions": {"torch": "2"},
    }
    outcome_of(run, out).write_text(json.dumps({**facts, "message": "" if status == "finished" else "so it is"}))
    if status != "finished":
        return
    if run.kind == "pretrain":
        line = {"step": 600, "epoch": 1, "steps_per_epoch": 40, "seconds": 30.0, "val/cosine": 0.5}
        (folder / "pretrain" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (folder / "pretrained.safetensors").touch()
        return
    if run.kind == "dynamics":
        metrics: dict[str, Any] = {"ms_per_step": 8.0, "n_atoms": 192, "system": "64 waters", "threads": 1}
    else:
        force = ERRORS[run.kind] + 4 * run.seed
        lines = [
            {
                "step": s,
                "steps_per_epoch": 40,
                "seconds": s / 10,
                "val/force_rmse": force * (1 + 500 / s),
                "val/force_mae": 0.5 * force * (1 + 500 / s),
                "val/energy_rmse": 8.0 + 500 / s,
            }
            for s in (500, 1000, 1500)
        ]
        (folder / "finetune" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        errors = {
            "n_frames": 100.0, "n_atoms": 8000.0, "force_rmse": force, "force_mae": force / 2, "energy_rmse": 8.0,
            "energy_rmse_structure": 5 * force, "energy_mae_structure": 4 * force,
        }  # fmt: skip
        if run.recipe.property:
            errors = {"n_frames": 100.0, "n_atoms": 800.0, "property_mae": force, "baseline_property_mae": 2 * force}
        metrics = {"errors": {"train": errors, "validation": errors, "test": errors}, "finetune_seconds": 150.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def write(name: str, out: Path, settings: Selection = ONE, fake: Fake | None = None, **more: Any) -> list[Run]:
    return reproduce([name], settings, out=out, launch=fake or Fake(), command=f"mdpot reproduce {name}", **more)
