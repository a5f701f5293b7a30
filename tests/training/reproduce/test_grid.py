"""Grids of runs: which are done, in which order, what failures leave, and the processes that do them."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mdpot import MdpotError
from mdpot.stopping import Stopped
from mdpot.training import folder as files
from mdpot.training.config import load_recipe, recipe_to_dict
from mdpot.training.listener import Listener
from mdpot.training.reproduce import Selection, Work, reproduce, worker
from mdpot.training.reproduce.dynamics import time_dynamics
from mdpot.training.reproduce.grid import Run, folder_of, outcome_of, run_grid, state_of, with_parents
from mdpot.training.reproduce.plan import plan
from mdpot.training.reproduce.worker import without_folders
from mdpot.training.trainer import Diverged, Report

from .conftest import ONE, SILENT, Fake, leave, write

# ---- with fake trainings ---------------------------------------------------------------


def test_only_what_is_missing_runs(tmp_path: Path) -> None:
    first = Fake()
    write("table1", tmp_path, fake=first)
    assert len(first.begun) == 2 * 3
    again = Fake()
    write("table1", tmp_path, fake=again)
    assert again.begun == []
    # Experiments share runs: only the longer ones are new.
    more = Fake()
    write("extended-epochs", tmp_path, fake=more)
    assert [folder.split("/")[2] for folder in more.begun] == ["scratch+500steps"] * 2
    write("table1", tmp_path, Selection(seeds=3, models=("egnn",), datasets=("water-rpbe",)), fake=again)
    assert all(folder.endswith("seed2") for folder in again.begun)


def test_jobs_at_a_time(tmp_path: Path) -> None:
    for jobs in (1, 3):
        fake = Fake(turns=2)
        cells = plan("table1", ONE)
        run_grid([run for cell in cells for run in cell.runs], tmp_path / str(jobs), Work(jobs), SILENT, fake)
        assert fake.most == jobs
        assert len(fake.begun) == 6


def test_a_changed_specification_is_refused(tmp_path: Path) -> None:
    write("table1", tmp_path)
    fake = Fake()
    changed = Selection(seeds=2, models=("egnn",), datasets=("water-rpbe",), overrides=("finetune.lr=1e-4",))
    with pytest.raises(MdpotError, match=r"another specification \(finetune.lr: 0.004 there, 0.0001 asked for\)"):
        write("table1", tmp_path, changed, fake)
    assert fake.begun == []
    # A key that did not exist when a run was made had its default.
    path = next(tmp_path.glob("runs/*/egnn/scratch/seed0/run.json"))
    content = json.loads(path.read_text())
    del content["recipe"]["finetune"]["huber_delta"]
    content["recipe"]["description"] = "in other words"
    path.write_text(json.dumps(content))
    write("table1", tmp_path, fake=fake)
    assert fake.begun == []


def test_divergence_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    broken = Fake(status=lambda run: "diverged" if run.kind == "pretrain" and run.seed == 1 else "finished")
    assert write("table1", tmp_path, fake=broken) == []
    text = (tmp_path / "table1.md").read_text()
    assert "1 of 2 (1 diverged)" in text
    states = {run.folder: state_of(run, tmp_path).status for cell in plan("table1", ONE) for run in cell.runs}
    assert states["water-rpbe/egnn/mask-0.25-derivative/seed1"] == "diverged"
    assert list(states.values()).count("finished") == 3
    again = Fake()
    write("table1", tmp_path, fake=again)
    assert again.begun == []
    # Removing the folder of a diverged run, as for a changed specification, does it and what needs it again.
    shutil.rmtree(tmp_path / "runs/water-rpbe/egnn/pretrain-mask-0.25-derivative/seed1")
    write("table1", tmp_path, fake=again)
    assert [Path(folder).parent.name for folder in again.begun] == [
        "pretrain-mask-0.25-derivative",
        "mask-0.25-derivative",
    ]
    assert "diverged" not in (tmp_path / "table1.md").read_text()
    everywhere = tmp_path / "all"
    write("table1", everywhere, fake=Fake(status=lambda run: "diverged" if run.kind == "train" else "finished"))
    row = next(line for line in (everywhere / "table1.md").read_text().splitlines() if line.startswith("| from scr"))
    assert row.split("|")[2].strip() == "diverged"


def test_failures_are_tried_again_and_hold_up_only_what_needs_them(tmp_path: Path) -> None:
    broken = Fake(status=lambda run: "failed" if run.kind == "pretrain" and run.seed == 0 else "finished")
    failed = write("table1", tmp_path, fake=broken)
    assert sorted(run.folder.split("/")[2] for run in failed) == [
        "mask-0.25-derivative",
        "pretrain-mask-0.25-derivative",
    ]
    assert "water-rpbe/egnn/mask-0.25-derivative/seed0" not in broken.begun
    assert "**Unfinished: 3 of 4 runs**" in (tmp_path / "table1.md").read_text()
    again = Fake()
    assert write("table1", tmp_path, fake=again) == []
    assert len(again.begun) == 2


def test_stopping_keeps_everything(tmp_path: Path) -> None:
    class Interrupted(Listener):
        def note(self, text: str) -> None:
            if "[1/" in text:
                os.kill(os.getpid(), signal.SIGINT)

    fake = Fake(turns=3, status=lambda run: "stopped" if fake.stopped else "finished")
    with pytest.raises(Stopped, match="same command goes on"):
        write("table1", tmp_path, fake=fake, work=Work(jobs=1), listener=Interrupted())
    assert fake.begun[0].endswith("seed0")
    assert fake.killed == 0
    assert write("table1", tmp_path, fake=Fake(), tables_only=True)
    assert "**Unfinished: 1 of 4 runs**" in (tmp_path / "table1.md").read_text()
    write("table1", tmp_path)
    assert "Unfinished" not in (tmp_path / "table1.md").read_text()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    class Second(Listener):
        def note(self, text: str) -> None:
            if text.endswith("begins"):
                with pytest.raises(MdpotError, match="another process does runs"):
                    write("table1", tmp_path)
                seen.append(text)

    seen: list[str] = []
    write("table1", tmp_path, listener=Second())
    assert seen


# ---- the processes ---------------------------------------------------------------------


def test_folders_are_left_out_of_messages() -> None:
    assert (
        without_folders("see '/a/b c/d.txt' and /x/y/z.json; eV/Å, -dE/dx")
        == "see 'b c/d.txt' and z.json; eV/Å, -dE/dx"
    )


def task_of(run: Run, out: Path, **more: Any) -> dict[str, Any]:
    return {
        "kind": run.kind, "recipe": recipe_to_dict(run.recipe), "seed": run.seed, "data": None, "from_file": None,
        "out": str(folder_of(run, out)), "outcome": str(outcome_of(run, out)), "device": "cpu", "threads": 1, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (Diverged("training diverged at step 7: the loss is not finite"), "diverged", "training diverged at step 7"),
        (MdpotError("no data in '/somewhere/else/input.data'"), "failed", "no data in 'input.data'"),
        (RuntimeError("out of memory"), "failed", "RuntimeError: out of memory"),
        (Stopped("stopped at step 5"), "stopped", ""),
        (None, "finished", ""),
    ],
)
def test_a_worker_tells_how_a_run_ended(
    error: Exception | None, status: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan("table1", ONE)[0].runs[0]

    def train(recipe: Any, **arguments: Any) -> None:
        assert recipe == run.recipe
        assert (arguments["out"], arguments["seed"], arguments["resume"]) == (folder_of(run, tmp_path), 0, False)
        arguments["out"].mkdir(parents=True)
        begun = {"kind": run.kind, "seed": run.seed, "recipe": recipe_to_dict(run.recipe)}
        (arguments["out"] / "run.json").write_text(json.dumps(begun))
        if error is not None:
            raise error
        leave(run, tmp_path, "finished")

    monkeypatch.setattr("mdpot.training.run.run_train", train)
    worker.do(task_of(run, tmp_path), SILENT)
    state = state_of(run, tmp_path)
    assert state.status == status
    assert state.message.startswith(message)
    assert state.facts["threads"] == 1
    assert state.facts["seconds"] >= 0


def test_the_log_has_a_line_for_each_validation() -> None:
    file = io.StringIO()
    listener = worker.LogListener(file)
    listener.progress("finetune", Report(5, 10, 1.0, {"train/force_rmse": 7.0}))
    listener.progress("finetune", Report(10, 10, 2.0, {"train/force_rmse": 7.0, "val/force_rmse": 8.0}))
    assert file.getvalue() == "finetune 10/10, 2 s: val/force_rmse 8\n"


@pytest.mark.slow
def test_whole_grid_in_real_processes(small_file: Path, tmp_path: Path) -> None:
    """Two seeds of pretraining, finetuning and training from scratch, in processes; stopped once, and gone on with."""
    tiny = (
        *("model.hyperparameters.width=8", "model.hyperparameters.layers=2", "data.max_train_frames=12"),
        *("pretrain.max_steps=6", "pretrain.eval_every=3", "pretrain.batch_frames=4"),
        *("finetune.max_steps=8", "finetune.eval_every=4", "finetune.batch_frames=4"),
    )
    settings = Selection(seeds=2, models=("egnn",), datasets=("water-rpbe",), overrides=tiny)
    work = Work(jobs=2, threads=1, device="cpu", data=small_file)

    class Interrupted(Listener):
        def note(self, text: str) -> None:
            if "[2/" in text:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        reproduce(["table1"], settings, out=tmp_path, work=work, listener=Interrupted())
    assert not (tmp_path / "table1.md").exists()
    assert reproduce(["table1"], settings, out=tmp_path, work=work) == []
    content = json.loads((tmp_path / "table1.json").read_text())
    scratch, masked = content["cells"]
    for cell in (scratch, masked):
        for run in cell["runs"]:
            assert (run["status"], run["finetune_steps"]) == ("finished", 8)
            metrics = json.loads((tmp_path / "runs" / run["folder"] / "metrics.json").read_text())
            for frames, errors in run["errors"].items():
                assert errors["force_rmse"] == pytest.approx(metrics["errors"][frames]["force_rmse"], rel=1e-6)
            assert metrics["pretrained"] == ("mask" if cell is masked else False)
        values = [run["errors"]["test"]["force_rmse"] for run in cell["runs"]]
        assert values[0] != values[1]
        assert cell["test"]["force_rmse"]["mean"] == pytest.approx(sum(values) / 2)
    assert (content["processes"]["runs"], content["processes"]["threads"]) == (6, ["1"])
    logs = list(tmp_path.glob("runs/water-rpbe/egnn/pretrain-*/seed*.log"))
    assert len(logs) == 2
    assert all("pretrain 6/6" in log.read_text() for log in logs)
    # What one process computes does not depend on the grid it was part of.
    alone = tmp_path / "alone"
    run = next(run for run in with_parents(plan("table1", settings)[0].runs) if run.seed == 1)
    worker.do(task_of(run, alone, data=str(small_file)), SILENT)
    assert (folder_of(run, alone) / "metrics.json").read_text().split('"errors"')[1] == (
        folder_of(run, tmp_path) / "metrics.json"
    ).read_text().split('"errors"')[1]


@pytest.mark.parametrize(("kind", "file"), [("pretrain", files.PRETRAINED), ("train", files.POTENTIAL)])
def test_a_finetuning_begins_with_what_its_parent_left(kind, file, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "Worker", lambda task, log: task)
    recipe = load_recipe("rmd17-ethanol")
    child: Any = worker.launch(Run("after", "finetune", recipe, 0, Run("before", kind, recipe, 0)), tmp_path, Work())
    assert child["from_file"] == str(tmp_path / "runs" / "before" / file)


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(small_file: Path, tmp_path: Path) -> None:
    """A closed input, which is what a parent leaves that is killed, ends a run in good order."""
    overrides = ("model.hyperparameters.width=8", "finetune.max_steps=100000", "finetune.eval_every=5")
    run = plan("table1", Selection(seeds=1, models=("egnn",), datasets=("water-rpbe",), overrides=overrides))[0].runs[0]
    job = worker.launch(run, tmp_path, Work(device="cpu", data=small_file))
    try:
        log = folder_of(run, tmp_path) / "finetune" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        job.stop()
        while job.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not job.running()
    finally:
        job.kill()
    assert state_of(run, tmp_path).status == "stopped"
    assert (log.parent / "last.pt").is_file()


def test_dynamics_are_timed() -> None:
    found = time_dynamics(Path("water-rpbe-small"), "cpu", 1, n_blocks=1)
    assert (found["n_atoms"], found["system"], found["threads"]) == (192, "64 waters", 1)
    assert 0 < found["ms_per_step"] < 1e5
