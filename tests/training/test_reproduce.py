"""Grids of runs with fake trainings: which are done, in which order, what failures leave, and what the tables say."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mdpot import MdpotError
from mdpot.training.config import recipe_to_dict
from mdpot.training.listener import Listener
from mdpot.training.reproduce import EXPERIMENTS, Settings, Work, paper, reproduce, worker
from mdpot.training.reproduce.budgets import BUDGETS
from mdpot.training.reproduce.dynamics import time_dynamics
from mdpot.training.reproduce.experiments import plan
from mdpot.training.reproduce.figure import FIGURES
from mdpot.training.reproduce.grid import Run, folder_of, outcome_of, run_grid, state_of, with_parents
from mdpot.training.reproduce.page import NOTES
from mdpot.training.reproduce.results import collect
from mdpot.training.reproduce.table import TABLES
from mdpot.training.reproduce.worker import without_folders
from mdpot.training.stopping import Stopped
from mdpot.training.trainer import Report


@pytest.fixture(autouse=True)
def quick_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second; only the test of whole pages draws them."""
    if "whole" not in request.node.name:
        monkeypatch.setattr("mdpot.training.reproduce.run.draw", lambda *_: None)
        monkeypatch.setattr("mdpot.training.reproduce.page.commit", lambda: "abc")


ONE = Settings(seeds=2, models=("egnn",), datasets=("water-rpbe",))
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
    data = {"labels": "the RPBE-D3 network potential (not DFT)", "n_frames": 6120, "fingerprint": "f" * 64}
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
        line = {"step": 600, "epoch": 1, "seconds": 30.0, "val/cosine": 0.5}
        (folder / "pretrain" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (folder / "pretrained.safetensors").touch()
        return
    if run.kind == "dynamics":
        metrics: dict[str, Any] = {"ms_per_step": 8.0, "n_atoms": 192, "system": "64 waters", "threads": 1}
    else:
        force = ERRORS[run.kind] + 4 * run.seed
        lines = [{"step": s, "seconds": s / 10, "val/force_rmse": force * (1 + 500 / s)} for s in (500, 1000, 1500)]
        (folder / "finetune" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        errors = {
            "n_frames": 100.0, "n_atoms": 8000.0, "force_rmse": force, "force_mae": force / 2, "energy_rmse": 8.0,
            "energy_rmse_structure": 5 * force, "energy_mae_structure": 4 * force,
        }  # fmt: skip
        metrics = {"errors": {"train": errors, "validation": errors, "test": errors}, "finetune_seconds": 150.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def write(name: str, out: Path, settings: Settings = ONE, fake: Fake | None = None, **more: Any) -> list[Run]:
    return reproduce([name], settings, out=out, launch=fake or Fake(), command=f"mdpot reproduce {name}", **more)


def test_names_are_the_same_everywhere() -> None:
    assert EXPERIMENTS.keys() == TABLES.keys() == FIGURES.keys() == NOTES.keys()


def test_papers_tables_agree_with_the_percentages_it_prints() -> None:
    """Each change that table 1 and 2 print follows from their errors, so no number was mistyped."""
    printed = {
        ("water-rpbe", "egnn"): (-58.9, -42.2),
        ("water-rpbe", "gns"): (-51.8, 20.3),
        ("water-tip3p", "egnn"): (-36.1, -64.7),
        ("water-tip3p", "gns"): (-5.6, -15.3),
        ("rmd17-uracil", "egnn"): (-13.6, -9.3),
        ("rmd17-benzene", "egnn"): (-47.3, 14.8),
        ("rmd17-naphthalene", "egnn"): (26.7, -51.5),
        ("rmd17-aspirin", "egnn"): (-36.8, -36.5),
        ("rmd17-malonaldehyde", "egnn"): (-64.4, -42.4),
        ("rmd17-ethanol", "egnn"): (-36.3, -46.6),
        ("rmd17-toluene", "egnn"): (-32.4, -25.5),
        ("rmd17-salicylic", "egnn"): (-36.0, -49.0),
    }
    for (dataset, model), changes in printed.items():
        before, after = (paper.find_row(dataset, model, arm) for arm in ("scratch", "mask"))
        assert before
        assert after
        for of, change in zip(("force", "energy"), changes, strict=True):
            ratio = getattr(after, of).mean / getattr(before, of).mean
            assert 100 * (ratio - 1) == pytest.approx(change, abs=0.11), (dataset, model, of)
    missing = [key for key, row in paper.TABLE_1.items() if key[:2] not in printed and row.energy]
    assert not missing


def test_budgets_mask_at_the_papers_ratios() -> None:
    for (dataset, model), ratio in paper.TABLE_1_RATIOS.items():
        for budget in BUDGETS.values():
            chosen = [text for text in budget.overrides(dataset, model) if text.startswith("pretrain.ratio=")]
            assert chosen[-1] == f"pretrain.ratio={ratio:g}", (dataset, model)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name: str) -> None:
    """Its recipes, networks and keys are all there; each cell has its seeds and a folder of its own."""
    cells = plan(name, Settings())
    assert {len(cell.runs) for cell in cells} == {EXPERIMENTS[name].seeds}
    folders = [run.folder for cell in cells for run in cell.runs]
    assert len(folders) == len(set(folders))
    for cell in cells:
        first = cell.runs[0].parent
        assert (first is None) == (cell.arm.kind in ("scratch", "longer"))
        assert first is None or first.recipe.pretrain.objective == cell.arm.kind


def test_pretrainings_are_shared_and_come_first() -> None:
    settings = Settings(seeds=2, models=("egnn",), frames=(10, 30, None))
    cells = [cell for cell in plan("learning-curve", settings) if cell.arm.kind in ("longer", "mask")]
    runs = with_parents(run for cell in cells for run in cell.runs)
    folders = [run.folder for run in runs]
    assert len(folders) == len(set(folders)) == 2 * (3 + 3 + 1)
    for run in runs:
        if run.parent:
            assert folders.index(run.parent.folder) < folders.index(run.folder)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    pretrainings = [run for run in runs if run.kind == "pretrain"]
    assert [run.seed for run in pretrainings] == [0, 1]
    # All training structures go into the pretraining; the finetuning has the first few.
    assert {run.recipe.data.max_train_frames for run in pretrainings} == {None}
    assert {run.recipe.data.max_train_frames for run in runs if run.kind == "finetune"} == {10, 30, None}


def test_what_scratch_has_in_common_with_the_others() -> None:
    def steps(name: str, equal: Any) -> dict[str, tuple[int | None, int | None]]:
        cells = plan(name, Settings(seeds=1, models=("egnn",), datasets=("water-rpbe",), equal=equal))
        found = {}
        for cell in cells:
            first = cell.runs[0].parent
            found[cell.arm.kind] = (first and first.recipe.pretrain.max_steps, cell.recipe.finetune.max_steps)
        return found

    alike = steps("table1", None)
    first, second = alike["mask"]
    assert first
    assert second
    assert alike == {"scratch": (None, second), "mask": (first, second)}
    assert steps("table1", "total") == {"longer": (None, first + second), "mask": (first, second)}
    assert steps("learning-curve", None)["longer"] == (None, first + second)
    assert steps("learning-curve", "finetune")["scratch"] == (None, second)
    assert steps("extended-epochs", None) == {
        "scratch": (None, second),
        "longer": (None, first + second),
        "mask": (first, second),
    }


def test_all_frames_are_all_of_them() -> None:
    """Also where the recipe finetunes on few."""
    chosen = Settings(seeds=1, datasets=("water-scan",), frames=(10, None))
    found = [cell.recipe.data.max_train_frames for cell in plan("learning-curve", chosen)]
    assert set(found[: len(found) // 2]) == {10}
    assert set(found[len(found) // 2 :]) == {None}
    assert plan("table1", Settings(seeds=1, datasets=("water-scan",)))[0].recipe.data.max_train_frames == 100


def test_molecules_share_the_pretraining_of_all() -> None:
    cells = plan("table2", Settings(seeds=1, datasets=("rmd17-ethanol", "rmd17-aspirin")))
    masked = [cell.runs[0] for cell in cells if cell.arm.kind == "mask"]
    parents = [run.parent for run in masked if run.parent]
    assert [run.recipe.data.source for run in masked] == ["rmd17-ethanol", "rmd17-aspirin"]
    assert [p.recipe.data.source for p in parents] == ["rmd17-all"] * 2
    assert len(with_parents(masked)) == 3


def test_paper_budget_counts_in_epochs() -> None:
    """400 epochs from scratch against 100 + 300, as in figure 2; but epochs over fewer frames are no longer alike."""
    paper_like = Settings(budget="paper", seeds=1, models=("egnn",), datasets=("water-rpbe",))
    longer = plan("extended-epochs", paper_like)[1]
    assert longer.recipe.finetune.epochs == 400
    assert "+100epochs" in longer.runs[0].folder
    with pytest.raises(MdpotError, match="needs both lengths in steps"):
        plan("objectives", paper_like)


def test_refused_settings() -> None:
    with pytest.raises(MdpotError, match=r"unknown experiment 'tabel1'\. Did you mean 'table1'"):
        plan("tabel1", ONE)
    with pytest.raises(MdpotError, match="unknown budget"):
        plan("table1", Settings(budget="huge"))
    with pytest.raises(MdpotError, match="unknown recipe"):
        plan("table1", Settings(datasets=("water",)))
    with pytest.raises(MdpotError, match="--frames is for learning-curve"):
        plan("table1", Settings(frames=(10,)))
    with pytest.raises(MdpotError, match="unknown key"):
        plan("table1", Settings(models=("egnn",), datasets=("water-rpbe",), overrides=("finetune.speed=1",)))


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
    assert [folder.split("/")[2] for folder in more.begun] == ["scratch+600steps"] * 2
    write("table1", tmp_path, Settings(seeds=3, models=("egnn",), datasets=("water-rpbe",)), fake=again)
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
    changed = Settings(seeds=2, models=("egnn",), datasets=("water-rpbe",), overrides=("finetune.lr=1e-4",))
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


def test_tables_only_needs_runs(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="holds no runs"):
        write("table1", tmp_path / "nothing", tables_only=True)


def test_means_errors_and_the_papers_numbers(tmp_path: Path) -> None:
    write("table1", tmp_path)
    text = (tmp_path / "table1.md").read_text()
    scratch, masked = (line for line in text.splitlines() if line.startswith(("| from scratch", "| masked")))
    cells = [cell.strip() for cell in masked.strip("|").split("|")]
    # Two seeds, 100 and 104: a mean of 102 and a standard error of 2; the difference is the same for both.
    assert cells[1:3] == ["102.0 ± 2.0", "90.9 ± 8.3"]
    assert cells[3:5] == ["510.0 ± 10.0", "907.6 ± 96.1"]
    assert cells[5:7] == ["-60.0 ± 0.0 (-37.0 %)", "-58.9 %"]
    assert "162.0 ± 2.0 | 221.0 ± 81.3" in scratch
    assert "labeled by the RPBE-D3 network potential (not DFT)" in text
    assert "6 runs, 0.1 h in all; threads of each: 1; device: default; torch 2; commit abc." in text
    content = json.loads((tmp_path / "table1.json").read_text())
    ours = next(cell for cell in content["cells"] if cell["kind"] == "mask")
    assert ours["test"]["force_rmse"] == {"mean": 102.0, "standard_error": pytest.approx(2.0), "n": 2}
    assert ours["paper"]["force"] == {"mean": 90.9, "standard_error": 8.3}
    assert [run["errors"]["test"]["force_rmse"] for run in ours["runs"]] == [100.0, 104.0]
    assert content["command"] == "mdpot reproduce table1"
    for part in (text, (tmp_path / "table1.json").read_text()):
        assert str(tmp_path) not in part


def test_convergence_finds_the_step(tmp_path: Path) -> None:
    """Scratch ends at 160 · 4/3 = 213; the pretrained one, 100 · (1 + 500/step), is at 200 from step 500 on."""
    write("convergence", tmp_path)
    row = (tmp_path / "convergence.md").read_text().split("---:|\n")[1].splitlines()[0]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["water-rpbe", "egnn"]
    assert cells[2].startswith("216.0 ±")
    assert cells[3:] == ["1,500 ± 0", "500 ± 0", "600", "2 of 2"]


def test_cost_times_dynamics_after_all_else(tmp_path: Path) -> None:
    fake = Fake(turns=2)
    write("cost", tmp_path, Settings(seeds=1, models=("egnn",), datasets=("water-rpbe",)), fake, work=Work(jobs=2))
    kinds = ["dynamics" in folder for folder in fake.begun]
    assert kinds == sorted(kinds)
    assert kinds.count(True) == 2
    text = (tmp_path / "cost.md").read_text()
    # 600 steps in 30 s, 40 steps to an epoch of 8,000 atoms by 200; the paper: 0.57 h for 100 epochs.
    assert "| water-rpbe | egnn | pretraining | 600 | 30.0 | 50 | 2 | 20.5 | 0.57 |" in text
    assert "| water-rpbe | egnn | 64 waters | 192 | 8.00 ± 0.00 | 1 |" in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_page_is_written_whole_and_in_part(name: str, tmp_path: Path) -> None:
    """With all runs, and with only the first: no number, no error."""
    frames = (10, None) if name == "learning-curve" else ()
    settings = Settings(seeds=2, models=("egnn", "tide"), datasets=("water-rpbe",), frames=frames)
    fake = Fake(status=lambda run: "finished" if run.folder.endswith("scratch/seed0") else "failed")
    write(name, tmp_path, settings, fake)
    for whole in (False, True):
        if whole:
            write(name, tmp_path, settings)
        text = (tmp_path / f"{name}.md").read_text()
        assert ("Unfinished" in text) != whole
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
        assert tables
        for block in tables:
            assert len({row.count("|") for row in block.strip().splitlines()}) == 1
        cells = json.loads((tmp_path / f"{name}.json").read_text())["cells"]
        assert {(cell["data"], cell["model"]) for cell in cells} == {("water-rpbe", "egnn"), ("water-rpbe", "tide")}


def test_runs_of_other_data_are_pointed_out(tmp_path: Path) -> None:
    write("table1", tmp_path)
    assert "differ in their data" not in (tmp_path / "table1.md").read_text()
    path = next(tmp_path.glob("runs/*/egnn/scratch/seed0/run.json"))
    path.write_text(path.read_text().replace("f" * 64, "e" * 64))
    write("table1", tmp_path, tables_only=True)
    assert "differ in their data" in (tmp_path / "table1.md").read_text()


def test_errors_that_are_no_numbers_count_as_diverged(tmp_path: Path) -> None:
    write("table1", tmp_path)
    path = next(tmp_path.glob("runs/*/egnn/scratch/seed0/metrics.json"))
    path.write_text(path.read_text().replace("160.0", "NaN"))
    scratch = collect(plan("table1", ONE), tmp_path)[0]
    assert [o.status for o in scratch.outcomes] == ["diverged", "finished"]
    mean = scratch.mean("force_rmse")
    assert mean
    assert (mean.mean, mean.standard_error, mean.n) == (164.0, None, 1)


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
        (MdpotError("training diverged at step 7: the loss is not finite"), "diverged", "training diverged at step 7"),
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
        (arguments["out"] / "run.json").touch()
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
    settings = Settings(seeds=2, models=("egnn",), datasets=("water-rpbe",), overrides=tiny)
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
            assert (run["status"], run["threads"], run["finetune_steps"]) == ("finished", 1, 8)
            metrics = json.loads((tmp_path / "runs" / run["folder"] / "metrics.json").read_text())
            assert run["errors"] == metrics["errors"]
            assert metrics["pretrained"] == ("mask" if cell is masked else False)
        values = [run["errors"]["test"]["force_rmse"] for run in cell["runs"]]
        assert values[0] != values[1]
        assert cell["test"]["force_rmse"]["mean"] == pytest.approx(sum(values) / 2)
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


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(small_file: Path, tmp_path: Path) -> None:
    """A closed input, which is what a parent leaves that is killed, ends a run in good order."""
    overrides = ("model.hyperparameters.width=8", "finetune.max_steps=100000", "finetune.eval_every=5")
    run = plan("table1", Settings(seeds=1, models=("egnn",), datasets=("water-rpbe",), overrides=overrides))[0].runs[0]
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
