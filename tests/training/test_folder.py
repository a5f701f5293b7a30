"""What the folder of a run may hold when one begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mdpot import MdpotError
from mdpot.training.folder import open_folder, read_run
from mdpot.training.run import run_train

from .conftest import CPU, StopAfter, assert_same_weights, without_clock


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("left", [(), ("recipe.toml",), ("recipe.toml", "splits.json")], ids=len)
def test_a_run_that_had_saved_nothing_begins_anew(
    trained, small_file: Path, tiny_recipe, tmp_path: Path, resume: bool, left: tuple[str, ...]
) -> None:
    """Killed after run.json, and whatever the settings were."""
    out, metrics, recipe, _ = trained
    folder = tmp_path / "run"
    open_folder(folder, tiny_recipe("finetune.lr=1e-5"), 4, "train", resume=False)
    for path in folder.iterdir():
        if path.name not in ("run.json", *left):
            path.unlink()
    if "splits.json" in left:
        (folder / "splits.json").write_text((out / "splits.json").read_text())
    (folder / ".last.123.part.pt").write_text("half")
    again = run_train(recipe, data=small_file, out=folder, resume=resume, **CPU)
    assert without_clock(again) == without_clock(metrics)
    assert_same_weights(folder / "potential.safetensors", out / "potential.safetensors")
    assert (folder / "recipe.toml").read_text() == (out / "recipe.toml").read_text()
    assert {p.name for p in folder.iterdir()} == {p.name for p in out.iterdir()}


def test_a_run_with_a_state_is_not_begun_anew(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_train(tiny_recipe(), data=small_file, out=folder, listener=StopAfter("finetune", 1), **CPU)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(MdpotError, match=r"already holds a run\. Go on with it by --resume"):
        run_train(tiny_recipe(), data=small_file, out=folder, **CPU)
    with pytest.raises(MdpotError, match="holds another run: its recipe differs"):
        run_train(tiny_recipe("finetune.lr=1e-5"), data=small_file, out=folder, resume=True, **CPU)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_recipe_of_the_user_is_not_taken_for_ours(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("mine")
    with pytest.raises(MdpotError, match="is not empty and holds no run"):
        run_train(tiny_recipe(), data=small_file, out=tmp_path, **CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]
    assert (tmp_path / "recipe.toml").read_text() == "mine"


@pytest.mark.parametrize("file", ["splits.json", "pretrain/last.pt", "pretrain/best.pt", "run.json"])
def test_a_changed_state_is_refused(small_file: Path, tiny_recipe, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_train(tiny_recipe(), data=small_file, out=folder, listener=StopAfter("finetune", 2), **CPU)
    content = bytearray((folder / file).read_bytes())
    if file == "splits.json":
        splits = json.loads(content)
        splits["train"][0], splits["test"][0] = splits["test"][0], splits["train"][0]
        content = json.dumps(splits).encode()
    elif file == "run.json":
        content = b'{"kind": "train"}'
    else:
        content[len(content) // 2] ^= 4
    (folder / file).write_bytes(content)
    with pytest.raises(MdpotError, match=rf"{file}' (is damaged|was changed).*(again|start)") as error:
        run_train(tiny_recipe(), data=small_file, out=folder, resume=True, **CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", [0.5, None, ["cpu"], "none", ""])
def test_a_changed_device_is_refused(small_file: Path, tiny_recipe, tmp_path: Path, device: object) -> None:
    run = {"kind": "train", "seed": 0, "recipe": {}, "device": device}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(MdpotError, match="is damaged") as error:
        run_train(tiny_recipe(), data=small_file, out=tmp_path, resume=True, **CPU)
    assert "\n" not in str(error.value)
    assert read_run(_written(tmp_path / "cuda.json", {**run, "device": "cuda:1"}))["device"] == "cuda:1"


def _written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_autocast_touches_no_training(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, recipe, _ = trained
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = run_train(recipe, data=small_file, out=tmp_path / "run", **CPU)
    assert without_clock(again) == without_clock(metrics)
    assert_same_weights(tmp_path / "run" / "potential.safetensors", out / "potential.safetensors")
