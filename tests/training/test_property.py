"""Learning a property: one number a structure, from random or from pretrained weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from click.testing import CliRunner

from mdpot import MdpotError
from mdpot.cli import main
from mdpot.heads import PropertyModel
from mdpot.modelfile import open_model
from mdpot.training.config import load_recipe
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.data.store import Store
from mdpot.training.networks import measured_hyperparameters, new_property
from mdpot.training.objectives import PropertyTarget
from mdpot.training.prepare import prepare
from mdpot.training.run import run_pretrain, run_property, run_train
from mdpot.training.trainer import validate

from .conftest import CPU, read_log

CPU_DEVICE = torch.device("cpu")


def structures(n: int = 50) -> list[Frame]:
    """Triples of atoms whose property is a smooth function of two distances; one in seven has none."""
    rng, frames = np.random.default_rng(1), []
    for k in range(n):
        positions = np.array([[0.0, 0, 0], [rng.uniform(0.8, 1.5), 0, 0], [0, rng.uniform(0.9, 1.5), 0]])
        d = np.linalg.norm(positions[1:], axis=1)
        frame = Frame(np.array([8, 1, 1]), positions, np.zeros((3, 3)), np.zeros(3, bool), group=str(k), index=k)
        if k % 7:
            frame.properties["gap"] = float(5.0 + np.cos(2 * d).sum())
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    frames = [frame for frame in structures() if frame.properties]
    folds = tuple(np.arange(len(frames))[k::5] for k in range(5))
    return Dataset("custom", frames, "made up", "a test", property="gap", unit="eV", folds=folds)


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Any]:
    text = """
[data]
source = "custom"
fractions = [0.6, 0.2, 0.2]
split_by = "frame"
[model]
name = "egnn"
cutoff = 3.4
[model.hyperparameters]
width = 16
layers = 2
[finetune]
max_steps = 40
batch_frames = 8
eval_every = 20
lr = 1e-2
[property]
pooling = "mean"
"""
    file = tmp_path / "gap.toml"
    file.write_text(text)
    return lambda *overrides: load_recipe(file, "plain", overrides)


def test_a_part_of_the_frames_is_drawn_for_each_seed(recipe, dataset: Dataset) -> None:
    def drawn(seed: int, *overrides: str) -> dict[str, set[int]]:
        splits = prepare(recipe("data.max_frames=20", *overrides), dataset, seed, CPU_DEVICE).splits
        return {name: set(indices.tolist()) for name, indices in splits.items()}

    some = drawn(0)
    everyone = set().union(*some.values())
    assert len(everyone) == sum(map(len, some.values())) == 20
    assert 8 <= len(some["train"]) <= 16
    assert drawn(0) == some
    assert set().union(*drawn(1).values()) != everyone
    folded = drawn(0, "data.fold=2")
    assert set().union(*folded.values()) == everyone
    assert folded["test"] == everyone & set(dataset.folds[1].tolist())


def test_a_run_from_random_weights(recipe, dataset: Dataset, tmp_path: Path) -> None:
    made = recipe("finetune.max_steps=100")
    metrics = run_property(made, from_file=None, data=dataset, out=tmp_path / "run", **CPU)
    model = open_model(tmp_path / "run").property()
    assert isinstance(model, PropertyModel)
    assert (model.name, model.unit, model.pooling) == ("gap", "eV", "mean")
    prepared = prepare(made, dataset, 0, CPU_DEVICE)
    targets = {name: np.array([f.properties["gap"] for f in prepared.frames(name)]) for name in prepared.splits}
    assert [len(targets[name]) for name in ("train", "validation", "test")] == [26, 8, 8]
    assert model.mean == pytest.approx(targets["train"].mean())
    assert model.scale == pytest.approx(targets["train"].std())
    for name, table in metrics["errors"].items():
        store = Store(prepared.frames(name), 3.4)
        found = model.eval()(*store.batch(torch.arange(len(store))).graph.inputs())["property"].detach().numpy()
        off = targets["train"].mean() - targets[name]
        assert table["property_mae"] == pytest.approx(np.abs(found - targets[name]).mean(), rel=1e-4)
        assert table["property_rmse"] == pytest.approx(np.sqrt(np.square(found - targets[name]).mean()), rel=1e-4)
        assert table["baseline_property_mae"] == pytest.approx(np.abs(off).mean())
        assert table["baseline_property_rmse"] == pytest.approx(np.sqrt(np.square(off).mean()))
    assert metrics["errors"]["test"]["property_mae"] < 0.5 * metrics["errors"]["test"]["baseline_property_mae"]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| test: the mean of the training targets |" in report
    assert "The property is `gap` in eV." in report
    assert (tmp_path / "run" / "parity.png").stat().st_size > 5000
    assert {"train/property_mae", "val/property_mae"} <= read_log(tmp_path / "run" / "finetune")[-1].keys()
    again = run_property(made, from_file=None, data=dataset, out=tmp_path / "run", resume=True, **CPU)
    assert again["errors"] == metrics["errors"]


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_the_loss_is_that_of_the_scaled_target(recipe, dataset: Dataset, loss: str) -> None:
    made = recipe(f"finetune.loss={loss}", "finetune.huber_delta=0.4")
    assert made.property is not None
    prepared = prepare(made, dataset, 0, CPU_DEVICE)
    model = new_property(made.model, made.property, prepared, 0, measured_hyperparameters(made.model, prepared))
    found = validate(model, PropertyTarget(made.finetune, model), prepared.train, made.finetune)
    store = prepared.train
    with torch.no_grad():
        predicted = model(*store.batch(torch.arange(len(store))).graph.inputs())["property"]
    error = (predicted - store.labels["gap"]).numpy() / model.scale
    size = np.abs(error)
    expected = {
        "l1": size,
        "l2": error**2,
        "huber": np.where(size < 0.4, 0.5 * size**2, 0.4 * (size - 0.2)),
    }[loss]
    assert found["loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_pretrained_weights_are_taken_over_frozen_or_slowed(recipe, dataset: Dataset, tmp_path: Path) -> None:
    made = recipe("pretrain.objective=denoise", "pretrain.sigma=0.1", "pretrain.max_steps=5", "pretrain.batch_frames=8")
    file = run_pretrain(made, data=dataset, out=tmp_path / "pretrain", **CPU)
    before = open_model(file).potential().state_dict()
    for rate in (0.0, 0.01, 1.0):
        out = tmp_path / f"rate{rate}"
        once = recipe(f"finetune.transferred_rate={rate}", "finetune.max_steps=1", "finetune.eval_every=1")
        run_property(once, from_file=file, data=dataset, out=out, **CPU)
        after = open_model(out).property().state_dict()
        moved = max(float((after[k] - before[k]).abs().max()) for k in before if k.startswith("backbone."))
        assert moved == 0.0 if rate == 0.0 else 0.0 < moved <= 1.01e-2 * rate, rate
        assert any(k.startswith("readout.") for k in after)
    whole = run_train(made, data=dataset, out=tmp_path / "train", **CPU)
    apart = run_property(made, from_file=file, data=dataset, out=tmp_path / "apart", **CPU)
    assert whole["errors"] == apart["errors"]
    assert whole["pretrained"] == apart["pretrained"] == "denoise"


def test_official_folds(recipe, dataset: Dataset) -> None:
    tests = []
    for fold in range(1, 6):
        splits = prepare(recipe(f"data.fold={fold}"), dataset, 0, CPU_DEVICE).splits
        tests.append(splits["test"])
        np.testing.assert_array_equal(splits["test"], dataset.folds[fold - 1])
        every = np.concatenate([splits[name] for name in ("train", "validation", "test")])
        np.testing.assert_array_equal(np.sort(every), np.arange(len(dataset)))
        assert len(splits["validation"]) == pytest.approx(0.25 * (len(dataset) - len(splits["test"])), abs=1.5)
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(len(dataset)))
    with pytest.raises(MdpotError, match=r"official folds, which custom does not have; got 1"):
        prepare(recipe("data.fold=1"), replace(dataset, folds=()), 0, CPU_DEVICE)
    with pytest.raises(MdpotError, match="one of the 5 official folds"):
        prepare(recipe("data.fold=6"), dataset, 0, CPU_DEVICE)


def test_a_file_of_ones_own_and_its_command(recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames without the property are left out."""
    atoms = [Atoms(f.numbers, f.positions, info=dict(f.properties)) for f in structures()]
    write(tmp_path / "gaps.extxyz", atoms)
    recipe()  # writes gap.toml
    monkeypatch.chdir(tmp_path)
    arguments = ["finetune-property", "gap.toml", "--preset", "plain", "--data", "gaps.extxyz", "--out", "run"]
    done = CliRunner().invoke(main, [*arguments, "--set", "data.property_key=gap", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "property MAE" in done.output
    assert "mean of the training targets:" in done.output
    assert open_model(tmp_path / "run").property().name == "gap"


def test_the_key_chooses_among_the_properties_of_a_dataset(recipe, dataset: Dataset) -> None:
    frames = [replace(frame, properties={**frame.properties, "size": 2.0}) for frame in dataset.frames]
    both = replace(dataset, frames=frames)
    for overrides, name, unit in (([], "gap", "eV"), (["data.property_key=size"], "size", "")):
        made = prepare(recipe(*overrides), both, 0, CPU_DEVICE).dataset
        assert (made.property, made.unit) == (name, unit)


def test_elements_that_training_does_not_see_are_told(recipe, dataset: Dataset, tmp_path: Path) -> None:
    made = recipe("finetune.max_steps=20")
    tested = int(prepare(made, dataset, 0, CPU_DEVICE).splits["test"][0])
    frames = [replace(f, numbers=np.array([16, 1, 1])) if n == tested else f for n, f in enumerate(dataset.frames)]
    with_sulfur = replace(dataset, frames=frames)
    metrics = run_property(made, from_file=None, data=with_sulfur, out=tmp_path / "run", **CPU)
    said = "No training frame holds S: what is predicted of structures that do is a guess."
    assert metrics["notes"] == [said]
    assert f"- note: {said}" in (tmp_path / "run" / "report.md").read_text()
    assert said in " ".join(open_model(tmp_path / "run").cautions)


def test_a_recipe_without_a_property(tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"learns no property.*Take custom-property"):
        run_property(tiny_recipe(), from_file=None, data=None, out=tmp_path, **CPU)
    with pytest.raises(MdpotError, match=r"data\.property_key is for recipes with a table .* 'custom' has none"):
        load_recipe("custom", None, ["data.property_key=gap"])


def test_a_table_of_ones_own_needs_its_own_recipe_and_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.xyz", [Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])])
    Path("t.csv").write_text("file,gap,metal\na.xyz,1.0,True\n", encoding="utf-8")
    for recipe, settings, said in (
        ("matbench-jdft2d", [], r"t\.csv: no json, .* Your own data: the recipe custom-property"),
        ("custom-property", [], r"data\.property_key must be the key of the property to learn"),
        ("custom-property", ["data.property_key=stress"], r"must be the key of a number; stress are labels of another"),
        ("custom-property", ["data.property_key=metal"], r"no frame has the property 'metal'.*numbers under gap"),
    ):
        with pytest.raises(MdpotError, match=said):
            run_property(
                load_recipe(recipe, "quick", settings), from_file=None, data=Path("t.csv"), out=Path("run"), **CPU
            )


def test_data_to_pretrain_on_that_are_not_there(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MDPOT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = load_recipe("custom-property", "quick", ["data.property_key=gap"])
    with pytest.raises(
        MdpotError, match=r"crystals-mattersim: not found.*pretrain\.data\.path.*pretrain\.objective=none"
    ):
        run_train(made, data=dataset, out=tmp_path / "run", **CPU)
