"""Whole runs repeat and go on to the same end, and no folder is taken that holds anything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mdpot import MdpotError
from mdpot.stopping import Stopped
from mdpot.training.run import run_pretrain, run_train

from .conftest import CPU, StopAfter, assert_same_weights, weights_of, without_clock

# ---- it repeats, and goes on -----------------------------------------------------------


def test_the_same_seed_gives_the_same_run(trained, small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    out, metrics, recipe, _ = trained
    again = run_train(recipe, data=small_file, out=tmp_path / "again", **CPU)
    assert without_clock(again) == without_clock(metrics)
    for name in ("potential.safetensors", "pretrained.safetensors"):
        assert_same_weights(tmp_path / "again" / name, out / name)
    other = run_train(recipe, data=small_file, out=tmp_path / "other", seed=1, **CPU)
    assert other["errors"] != metrics["errors"]
    assert (tmp_path / "other" / "splits.json").read_text() != (out / "splits.json").read_text()


@pytest.mark.parametrize(("stage", "n"), [("pretrain", 1), ("finetune", 1)])
def test_a_stopped_run_goes_on_to_the_same_end(trained, small_file, tmp_path: Path, stage: str, n: int) -> None:
    out, metrics, recipe, _ = trained
    with pytest.raises(Stopped):
        run_train(recipe, data=small_file, out=tmp_path / "run", listener=StopAfter(stage, n), **CPU)
    assert not (tmp_path / "run" / "potential.safetensors").exists()
    again = run_train(recipe, data=small_file, out=tmp_path / "run", resume=True, **CPU)
    assert without_clock(again) == without_clock(metrics)
    assert_same_weights(tmp_path / "run" / "potential.safetensors", out / "potential.safetensors")
    for name in ("pretrain/metrics.jsonl", "finetune/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in (tmp_path / "run" / name).read_text().splitlines()]
        assert steps == sorted(set(steps))


def test_a_finished_run_can_be_resumed(trained, small_file: Path) -> None:
    out, metrics, recipe, _ = trained
    before = weights_of(out / "potential.safetensors")
    again = run_train(recipe, data=small_file, out=out, resume=True, **CPU)
    assert without_clock(again) == without_clock(metrics)
    after = weights_of(out / "potential.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_that_died_before_its_data_were_written_down(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, recipe, _ = trained
    run = json.loads((out / "run.json").read_text())
    for left in ({}, {"splits.json": (out / "splits.json").read_text()}):
        folder = tmp_path / f"run{len(left)}"
        folder.mkdir()
        del_data = {key: value for key, value in run.items() if key not in ("data", "device")}
        (folder / "run.json").write_text(json.dumps(del_data))
        for name, text in left.items():
            (folder / name).write_text(text)
        again = run_train(recipe, data=small_file, out=folder, resume=True, **CPU)
        assert without_clock(again) == without_clock(metrics)


def test_a_run_from_before_a_key_came_into_the_schema_goes_on(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, recipe, _ = trained
    older = tmp_path / "older"
    shutil.copytree(out, older)
    run = json.loads((older / "run.json").read_text())
    del run["recipe"]["finetune"]["huber_delta"]
    (older / "run.json").write_text(json.dumps(run))
    assert run_train(recipe, data=small_file, out=older, resume=True, **CPU)["errors"] == metrics["errors"]


# ---- refusals --------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_that_holds_something_else(trained, small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    out, _, recipe, _ = trained
    before = files_in(out)
    with pytest.raises(MdpotError, match=r"already holds a run\. Go on with it by --resume"):
        run_train(recipe, data=small_file, out=out, **CPU)
    with pytest.raises(MdpotError, match="already holds a run"):
        run_pretrain(recipe, data=small_file, out=out, **CPU)
    changed = tiny_recipe("finetune.lr=1e-4")
    with pytest.raises(
        MdpotError, match=r"its recipe differs \(finetune\.lr is 0\.0\d+ there, 0\.0001 was asked for\)\."
    ):
        run_train(changed, data=small_file, out=out, resume=True, **CPU)
    with pytest.raises(MdpotError, match=r"another run: its seed differs \(it is \d+ there, 5 was asked for\)\."):
        run_train(recipe, data=small_file, out=out, seed=5, resume=True, **CPU)
    with pytest.raises(MdpotError, match="another run: its kind differs"):
        run_pretrain(recipe, data=small_file, out=out, resume=True, **CPU)
    assert files_in(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(MdpotError, match="is not empty and holds no run"):
        run_train(recipe, data=small_file, out=tmp_path / "mine", **CPU)
    with pytest.raises(MdpotError, match="must be a folder"):
        run_train(recipe, data=small_file, out=tmp_path / "mine" / "thesis.tex", **CPU)
    with pytest.raises(MdpotError, match="is not empty and holds no run"):
        run_train(recipe, data=small_file, out=tmp_path / "mine", resume=True, **CPU)


def test_resuming_with_other_data(trained, small_file: Path, tmp_path: Path) -> None:
    out, _, recipe, _ = trained
    other = tmp_path / "input.data"
    other.write_text(small_file.read_text().replace("energy -", "energy -1", 1))
    before = files_in(out)
    with pytest.raises(MdpotError, match=r"began with other data .*input\.data"):
        run_train(recipe, data=other, out=out, resume=True, **CPU)
    shorter = tmp_path / "shorter.data"
    shorter.write_text("end\n".join(small_file.read_text().split("end\n")[:12]) + "end\n")
    with pytest.raises(MdpotError, match="began with other data"):
        run_train(recipe, data=shorter, out=out, resume=True, **CPU)
    assert files_in(out) == before


def test_bad_data_leave_no_folder(tiny_recipe, tmp_path: Path) -> None:
    for data in (tmp_path / "nowhere.data", tmp_path / "empty.data"):
        (tmp_path / "empty.data").touch()
        with pytest.raises(MdpotError, match=data.name):
            run_train(tiny_recipe(), data=data, out=tmp_path / "run", **CPU)
        assert not (tmp_path / "run").exists()
