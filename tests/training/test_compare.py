"""Pretrained against scratch: the same seeds in both arms, and a difference that is computed right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot import MdpotError, load_potential
from mdpot.training import compare as comparison
from mdpot.training.compare import compare, run_compare

CPU: dict[str, Any] = {"device": "cpu"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory, small_file: Path, tiny_recipe):
    out, recipe = (
        tmp_path_factory.mktemp("compare") / "run",
        tiny_recipe("finetune.max_steps=4", "pretrain.max_steps=3"),
    )
    return out, run_compare(recipe, data=small_file, out=out, seed=3, seeds=2, **CPU), recipe


def metrics_of(out: Path, seed: int, arm: str) -> dict[str, Any]:
    return json.loads((out / f"seed{seed}" / arm / "metrics.json").read_text())


def test_both_arms_differ_in_the_pretraining_alone(compared) -> None:
    out, _, _ = compared
    for seed in (3, 4):
        with_, without = (metrics_of(out, seed, arm) for arm in ("pretrained", "scratch"))
        assert (with_["pretrained"], without["pretrained"]) == ("mask", False)
        assert with_["seed"] == without["seed"] == seed
        assert with_["finetune_steps"] == without["finetune_steps"] == 4
        folders = [out / f"seed{seed}" / arm for arm in ("pretrained", "scratch")]
        assert len({(folder / "splits.json").read_text() for folder in folders}) == 1
        recipes = [json.loads((folder / "run.json").read_text())["recipe"] for folder in folders]
        assert recipes[0].pop("pretrain") != recipes[1].pop("pretrain")
        assert recipes[0] == recipes[1]
        assert (folders[0] / "pretrained.safetensors").exists()
        assert not (folders[1] / "pretrained.safetensors").exists()
        header = [load_potential(folder)[1] for folder in folders]
        assert header[0]["hyperparameters"] == header[1]["hyperparameters"]
        assert header[0]["scale"] == header[1]["scale"]
    splits = {(out / f"seed{seed}" / "scratch" / "splits.json").read_text() for seed in (3, 4)}
    assert len(splits) == 2


def test_the_table_is_that_of_the_runs(compared) -> None:
    out, result, _ = compared
    assert json.loads((out / "comparison.json").read_text()) == result
    assert result["seeds"] == [3, 4]
    for key in ("force_rmse", "force_mae", "energy_rmse", "energy_mae"):
        arms = {}
        for arm in ("pretrained", "scratch"):
            arms[arm] = np.array([metrics_of(out, seed, arm)["errors"]["test"][key] for seed in (3, 4)])
            assert result["test"][key][arm]["values"] == arms[arm].tolist()
        difference = arms["pretrained"] - arms["scratch"]
        found = result["test"][key]["difference"]
        assert found["mean"] == pytest.approx(difference.mean())
        # Of two numbers the standard error is half their distance.
        assert found["standard_error"] == pytest.approx(abs(difference[0] - difference[1]) / 2)
    report = (out / "report.md").read_text()
    assert f"{result['test']['force_rmse']['difference']['mean']:.2f} ±" in report
    assert "RPBE-D3" in report
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_one_seed_has_no_standard_error() -> None:
    found = compare([3.0], [5.0])
    assert found["difference"] == {"values": [-2.0], "mean": -2.0, "standard_error": None}
    found = compare([1.0, 2.0, 6.0], [2.0, 2.0, 2.0])["difference"]
    assert found["mean"] == 1.0
    assert found["standard_error"] == pytest.approx(np.std([-1, 0, 4], ddof=1) / np.sqrt(3))


def test_resuming_runs_only_what_is_missing(compared, small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, result, recipe = compared
    steps = []
    fit = comparison.run_train
    monkeypatch.setattr(comparison, "run_train", lambda *a, **k: (steps.append(k["resume"]), fit(*a, **k))[1])
    again = run_compare(recipe, data=small_file, out=out, seed=3, seeds=2, resume=True, **CPU)
    assert again == result
    assert steps == [True] * 4


def test_refusals(compared, small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    out, _, recipe = compared
    with pytest.raises(MdpotError, match="already holds a run"):
        run_compare(recipe, data=small_file, out=out, seed=3, seeds=2, **CPU)
    with pytest.raises(MdpotError, match="needs pretraining"):
        run_compare(tiny_recipe("pretrain.objective=none"), data=small_file, out=tmp_path / "run", **CPU)
    assert not (tmp_path / "run").exists()


def test_labels_that_frames_lack_are_left_out(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    steps = ("finetune.max_steps=2", "pretrain.max_steps=1")
    weights = ("finetune.energy_weight=0", "finetune.second_energy_weight=none")
    recipe = tiny_recipe(*steps, *weights, 'data.energy_key="ignore"')
    result = run_compare(recipe, data=small_file, out=tmp_path / "run", seeds=1, **CPU)
    assert set(result["test"]) == {"force_rmse", "force_mae"}
    report = (tmp_path / "run" / "report.md").read_text()
    assert "force RMSE" in report
    assert "energy" not in report
