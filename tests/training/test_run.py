"""Whole runs, cut down to seconds: what they leave, that they repeat, and what they refuse."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mdpot import MaskedGNNCalculator, MdpotError, build_potential, load_potential, save_potential
from mdpot.checkpoint import read_metadata
from mdpot.neighbors import neighbor_list
from mdpot.training import run as runs
from mdpot.training.config import load_recipe, recipe_to_dict
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers import read_frames
from mdpot.training.data.splits import split_by_group
from mdpot.training.data.store import Store
from mdpot.training.evaluate import METRICS
from mdpot.training.listener import Listener
from mdpot.training.pair import evaluate_pair_energy, fit_pair_energy
from mdpot.training.prepare import smallest_distances
from mdpot.training.run import run_evaluate, run_finetune, run_pretrain, run_train
from mdpot.training.stopping import Stopped
from mdpot.training.transfer import transfer_backbone

CPU: dict[str, Any] = {"device": "cpu"}


class Notes(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, stage, report) -> None:
        self.stages.append(stage)


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


# ---- what a run leaves -----------------------------------------------------------------


def test_the_folder_of_a_run(trained) -> None:
    out, metrics, recipe, _ = trained
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    stages = {
        f"{stage}/{name}" for stage in ("pretrain", "finetune") for name in ("last.pt", "best.pt", "metrics.jsonl")
    }
    assert found == stages | {
        "run.json",
        "recipe.toml",
        "splits.json",
        "metrics.json",
        "report.md",
        "learning_curves.png",
        "parity.png",
        "potential.safetensors",
        "pretrained.safetensors",
    }
    assert json.loads((out / "metrics.json").read_text()) == metrics
    again = load_recipe(out / "recipe.toml")
    assert recipe_to_dict(again) == recipe_to_dict(recipe)
    for name in ("learning_curves.png", "parity.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_metrics_of_a_run(trained, small_file: Path) -> None:
    _, metrics, _, _ = trained
    assert set(metrics["errors"]) == {"train", "validation", "test"}
    for table in metrics["errors"].values():
        assert set(table) == set(METRICS) - {"stress_rmse", "stress_mae"}
        assert all(math.isfinite(value) for value in table.values())
    assert sum(table["n_frames"] for table in metrics["errors"].values()) == len(read_frames(small_file))
    assert metrics["recipe"] == "water-rpbe"
    assert metrics["pretrained"] == "mask"
    assert metrics["finetune_steps"] == 8
    assert metrics["best_step"] in (4, 8)
    assert metrics["seed"] == 0


def test_the_report_says_what_was_done(trained, small_file: Path) -> None:
    out, metrics, _, listener = trained
    report = (out / "report.md").read_text()
    assert str(small_file) in report
    assert metrics["labels"] in report
    assert "RPBE-D3" in metrics["labels"]
    assert "Pretrained by the objective `mask`" in report
    for name, table in metrics["errors"].items():
        row = next(line for line in report.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells[0] == f"{table['n_frames']:.0f}"
        assert float(cells[5]) == pytest.approx(table["force_rmse"], rel=6e-3)
    said = "\n".join(listener.notes)
    assert str(small_file) in said
    assert metrics["labels"] in said
    assert "transferred every weight of the backbone" in said
    assert "readout" in said
    assert listener.stages == sorted(listener.stages, reverse=True)  # pretrain before finetune


def test_the_splits_of_a_run(trained, small_file: Path) -> None:
    out, _, _, _ = trained
    splits = json.loads((out / "splits.json").read_text())
    frames = read_frames(small_file)
    assert sorted(index for indices in splits.values() for index in indices) == list(range(len(frames)))
    groups = {name: {frames[i].group for i in indices} for name, indices in splits.items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_the_potential_of_a_run(trained, small_file: Path) -> None:
    out, metrics, recipe, _ = trained
    potential, header = load_potential(out / "potential.safetensors")
    provenance = header["provenance"]
    assert provenance["recipe"] == recipe_to_dict(recipe)
    assert provenance["seed"] == 0
    assert provenance["metrics"] == metrics["errors"]
    assert provenance["data"]["origin"] == str(small_file)
    assert provenance["data"]["labels"] == metrics["labels"]
    assert len(provenance["data"]["fingerprint"]) == 64
    assert provenance["versions"]["torch"] == torch.__version__
    assert header["elements"] == potential.elements == [1, 8]
    assert header["dtype"] == "float32"

    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    training = [frames[i] for i in splits["train"]]
    assert header["min_distances"] == smallest(training, recipe.model.cutoff)
    # The wall stands inside, and touches no training frame.
    assert potential.has_wall
    starts = potential.wall.tolist()
    for key, start in {"H-H": starts[0][0], "H-O": starts[0][1], "O-O": starts[1][1]}.items():
        assert 0.8 < start / header["min_distances"][key] < 1.0001
    # Energies without the pair energy and the elements' share: least squares on the training frames.
    assert potential.has_pair
    store = Store(training, recipe.model.cutoff)
    pair = fit_pair_energy(store, [1, 8], recipe.model.cutoff, smallest_distances(store))
    np.testing.assert_allclose(potential.pair.numpy(), pair, rtol=1e-5, atol=1e-3)
    energies, forces = evaluate_pair_energy(store, [1, 8], pair, recipe.model.cutoff)
    x = np.array([[(f.numbers == 1).mean(), (f.numbers == 8).mean()] for f in training])
    y = np.array([(f.energy - e) / len(f) for f, e in zip(training, energies, strict=True)])  # type: ignore[operator]
    expected = np.linalg.lstsq(x, y, rcond=1e-10)[0]
    np.testing.assert_allclose(potential.shift.tolist(), expected, rtol=1e-9)
    rms = np.sqrt(np.mean((np.concatenate([f.forces for f in training]) - forces) ** 2))  # type: ignore[arg-type]
    assert potential.scale == pytest.approx(rms)
    pairs = sum(neighbor_list(f.positions, f.cell, f.pbc, recipe.model.cutoff)[0].shape[1] for f in training)
    atoms = sum(len(f) for f in training)
    assert potential.hyperparameters["avg_neighbors"] == pytest.approx(pairs / atoms, abs=0.01)

    held_out = [frames[i] for i in splits["test"]]
    for structure in header["structures"]:
        matches = [f for f in held_out if f.numbers.tolist() == structure["numbers"]]
        assert any(np.allclose(f.positions, structure["positions"], atol=1e-5) for f in matches)


def smallest(frames: list[Frame], cutoff: float) -> dict[str, Any]:
    """The smallest distance of every pair of elements, frame by frame."""
    names, found = {1: "H", 8: "O"}, {}
    for frame in frames:
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff)
        distances = np.linalg.norm(frame.positions[j] - frame.positions[i] + shifts @ frame.cell, axis=1)
        for a, b, d in zip(frame.numbers[i], frame.numbers[j], distances, strict=True):
            key = "-".join(names[z] for z in sorted((int(a), int(b))))
            found[key] = min(found.get(key, np.inf), d)
    return {key: pytest.approx(value, abs=1e-4) for key, value in found.items()}


def test_the_metrics_are_those_of_the_ase_calculator(trained, small_file: Path) -> None:
    out, metrics, _, _ = trained
    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    calculator = MaskedGNNCalculator(out, device="cpu")
    force, energy = [], []
    for frame in (frames[i] for i in splits["test"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=calculator)
        force.append(atoms.get_forces() - frame.forces)
        energy.append((atoms.get_potential_energy() - frame.energy) / len(frame))  # type: ignore[operator]
    table = metrics["errors"]["test"]
    assert 1e3 * np.sqrt(np.mean(np.concatenate(force) ** 2)) == pytest.approx(table["force_rmse"], rel=1e-4)
    assert 1e3 * np.abs(energy).mean() == pytest.approx(table["energy_mae"], rel=1e-3)


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


class StopAfter(Listener):
    """Stops the run as Ctrl-C would, at the nth report of a stage."""

    def __init__(self, stage: str, n: int) -> None:
        self.stage, self.n = stage, n

    def progress(self, stage, report) -> None:
        self.n -= stage == self.stage
        if self.n == 0:
            os.kill(os.getpid(), signal.SIGTERM)


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


# ---- refusals --------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_from_before_a_key_came_into_the_schema_goes_on(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, recipe, _ = trained
    older = tmp_path / "older"
    shutil.copytree(out, older)
    run = json.loads((older / "run.json").read_text())
    del run["recipe"]["finetune"]["second_energy_weight"]
    (older / "run.json").write_text(json.dumps(run))
    assert run_train(recipe, data=small_file, out=older, resume=True, **CPU)["errors"] == metrics["errors"]


def test_a_folder_that_holds_something_else(trained, small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    out, _, recipe, _ = trained
    before = files_in(out)
    with pytest.raises(MdpotError, match=r"already holds a run\. Go on with it by --resume"):
        run_train(recipe, data=small_file, out=out, **CPU)
    with pytest.raises(MdpotError, match="already holds a run"):
        run_pretrain(recipe, data=small_file, out=out, **CPU)
    changed = tiny_recipe("finetune.lr=1e-4")
    with pytest.raises(MdpotError, match="holds another run: its recipe differs"):
        run_train(changed, data=small_file, out=out, resume=True, **CPU)
    with pytest.raises(MdpotError, match="another run: its seed differs"):
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
    with pytest.raises(MdpotError, match="nothing to resume"):
        run_train(recipe, data=small_file, out=tmp_path / "nowhere", resume=True, **CPU)
    assert not (tmp_path / "nowhere").exists()


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


def test_masking_without_molecules(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"masking needs molecules CH4.*pretrain\.objective=none"):
        run_train(tiny_recipe("data.molecule=CH4"), data=small_file, out=tmp_path / "run", **CPU)
    with pytest.raises(MdpotError, match=r"needs molecules|nothing to pretrain"):
        run_pretrain(tiny_recipe("data.molecule=CH4"), data=small_file, out=tmp_path / "other", **CPU)
    with pytest.raises(MdpotError, match="nothing to pretrain"):
        run_pretrain(tiny_recipe("pretrain.objective=none"), data=small_file, out=tmp_path / "none", **CPU)


# ---- the stages by themselves ----------------------------------------------------------


def test_pretraining_and_finetuning_are_the_same_as_training(
    trained, small_file: Path, tmp_path: Path, tiny_recipe
) -> None:
    out, metrics, recipe, _ = trained
    file = run_pretrain(recipe, data=small_file, out=tmp_path / "pretrain", **CPU)
    assert file == tmp_path / "pretrain" / "pretrained.safetensors"
    assert_same_weights(file, out / "pretrained.safetensors")
    found = run_finetune(recipe, from_file=file, data=small_file, out=tmp_path / "finetune", **CPU)
    assert without_clock(found) == without_clock(metrics)
    assert_same_weights(tmp_path / "finetune" / "potential.safetensors", out / "potential.safetensors")
    header = read_metadata(tmp_path / "finetune" / "potential.safetensors")
    assert header["provenance"]["pretrained_from"] == str(file)
    scratch = run_train(tiny_recipe("pretrain.objective=none"), data=small_file, out=tmp_path / "scratch", **CPU)
    assert scratch["errors"] != metrics["errors"]
    assert scratch["pretrained"] is False
    assert not (tmp_path / "scratch" / "pretrained.safetensors").exists()
    assert "Not pretrained." in (tmp_path / "scratch" / "report.md").read_text()


def test_a_finetuned_potential_says_that_it_was_pretrained(
    trained, small_file: Path, tmp_path: Path, tiny_recipe
) -> None:
    out, _, recipe, _ = trained
    file = out / "pretrained.safetensors"
    metrics = run_finetune(recipe, from_file=file, data=small_file, out=tmp_path / "run", **CPU)
    assert metrics["pretrained"] == "mask"
    report = (tmp_path / "run" / "report.md").read_text()
    assert "Not pretrained." not in report


def test_resuming_from_another_pretrained_file(trained, small_file: Path, tmp_path: Path) -> None:
    out, _, recipe, _ = trained
    file = out / "pretrained.safetensors"
    with pytest.raises(Stopped):
        run_finetune(
            recipe, from_file=file, data=small_file, out=tmp_path / "run", listener=StopAfter("finetune", 1), **CPU
        )
    other = tmp_path / "other.safetensors"
    potential, header = load_potential(file)
    with torch.no_grad():
        potential.backbone.mark += 1.0  # type: ignore[operator]
    save_potential(other, potential, {"provenance": header["provenance"]})
    with pytest.raises(MdpotError, match="other pretrained weights"):
        run_finetune(recipe, from_file=other, data=small_file, out=tmp_path / "run", resume=True, **CPU)
    # The same weights under another name are the same run.
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    run_finetune(recipe, from_file=moved, data=small_file, out=tmp_path / "run", resume=True, **CPU)


def test_pretraining_needs_no_labels(tiny_recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(14):
        atoms = molecule("H2O")
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        atoms.set_cell(np.eye(3) * 5)
        atoms.pbc = True
        atoms.rattle(0.05, rng=rng)
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    recipe = tiny_recipe("pretrain.max_steps=6", "pretrain.warmup_steps=2", name="custom")
    file = run_pretrain(recipe, data=tmp_path / "frames.extxyz", out=tmp_path / "run", **CPU)
    assert read_metadata(file)["provenance"]["stage"] == "pretrain"
    with pytest.raises(MdpotError, match="no energy"):
        run_train(recipe, data=tmp_path / "frames.extxyz", out=tmp_path / "labels", **CPU)
    assert not (tmp_path / "labels").exists()


# ---- transfer --------------------------------------------------------------------------


def make(path: Path, elements=(1, 8), name: str = "egnn", **hyperparameters: Any) -> Path:
    torch.manual_seed(9)
    chosen = {"cutoff": 3.4, "width": 8, "layers": 2, **hyperparameters}
    potential = build_potential(name, chosen, elements, [0.0] * len(elements), 1.0)
    save_potential(path, potential)
    return path


@pytest.fixture
def finetune(tiny_recipe, small_file: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Finetunes a small EGNN from a file; further keys of the recipe as text."""

    def run(file: Path, *overrides: str, **options: Any) -> dict[str, Any]:
        recipe = tiny_recipe("model.cutoff=3.4", "finetune.max_steps=1", *overrides, model="egnn")
        return run_finetune(recipe, from_file=file, data=small_file, out=tmp_path / "run", **CPU, **options)

    return run


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"width": 16}, r"was made with width = 16; the recipe asks for 8.*--set model\.hyperparameters\.width"),
        ({"layers": 3}, "was made with layers = 3; the recipe asks for 2"),
        ({"cutoff": 4.0}, r"was made with cutoff = 4\.0; the recipe asks for 3\.4.*--set model\.cutoff="),
        ({"n_basis": 5}, "n_basis = 5; the recipe asks for 12"),
        ({"name": "tide"}, "is a 'tide' network; the recipe asks for 'egnn'"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused(finetune, tmp_path: Path, made: dict, message: str) -> None:
    file = make(tmp_path / "pretrained.safetensors", **made)
    with pytest.raises(MdpotError, match=message) as error:
        finetune(file)
    assert str(file) in str(error.value)
    assert not (tmp_path / "run" / "finetune").exists(), "nothing may train on weights that were not transferred"


def test_a_pretrained_file_that_is_not_there_or_damaged(finetune, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="is not there"):
        finetune(tmp_path / "nowhere.safetensors")
    file = make(tmp_path / "pretrained.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(MdpotError, match="damaged"):
        finetune(file)
    assert not (tmp_path / "run").exists()


def test_defaults_count_as_what_they_are(finetune, tmp_path: Path) -> None:
    """A network made with a value written out is the same as one that has it by default."""
    finetune(make(tmp_path / "a.safetensors", n_basis=12, avg_neighbors=16.0))


def test_written_out_values_fit_defaults(finetune, tmp_path: Path) -> None:
    finetune(make(tmp_path / "a.safetensors"), "model.hyperparameters.n_basis=12")


def test_sizes_that_follow_from_others(tmp_path: Path) -> None:
    """Tide's width follows from its size where it is not given."""
    tides = {
        "small": {},
        "written out": {"width": 32, "channels": 8, "layers": 2, "order": 2, "n_radial": 6},
        "wide": {"width": 48},
        "deep": {"layers": 3},
        "medium": {"size": "medium"},
    }
    made = {name: build_potential("tide", chosen, [1, 8], [0.0, 0.0], 1.0) for name, chosen in tides.items()}
    transfer_backbone(made["small"], made["written out"])
    transfer_backbone(made["written out"], made["small"])
    for name in ("wide", "deep", "medium"):
        with pytest.raises(MdpotError, match=r"does not fit the network of the recipe|was made with"):
            transfer_backbone(made["small"], made[name])


def test_rows_of_the_embedding_go_by_element(finetune, tmp_path: Path) -> None:
    """Pretrained on N, O and H; finetuned on H and O."""
    file = make(tmp_path / "pretrained.safetensors", elements=(1, 7, 8), avg_neighbors=21.0)
    notes = Notes()
    finetune(file, "finetune.lr=1e-9", "finetune.lr_min=0.0", "finetune.ema_decay=none", listener=notes)
    before, after = weights_of(file), weights_of(tmp_path / "run" / "potential.safetensors")
    key = "backbone.embedding.weight"
    torch.testing.assert_close(after[key], before[key][[0, 2]], rtol=0, atol=1e-6)
    for other in before:
        if other.startswith("backbone") and other != key:
            torch.testing.assert_close(after[other], before[other], rtol=0, atol=1e-6)
    # The normalization belongs to the weights.
    assert read_metadata(tmp_path / "run" / "potential.safetensors")["hyperparameters"]["avg_neighbors"] == 21.0
    assert any("new: readout" in note for note in notes.notes)


def test_elements_that_were_not_pretrained_stay_new(finetune, tmp_path: Path) -> None:
    notes = Notes()
    finetune(make(tmp_path / "pretrained.safetensors", elements=(8,)), listener=notes)
    assert any("embedding.weight of Z = 1" in note for note in notes.notes)


# ---- own data --------------------------------------------------------------------------


def labelled(atoms: Atoms, rng: np.random.Generator, stress: bool = True) -> Atoms:
    """With labels from springs between neighbors, the same in every frame, and their exact stress."""
    (i, j), shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
    vectors = atoms.positions[j] - atoms.positions[i] + shifts @ atoms.cell.array
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    energy = 0.5 * float((0.1 * (lengths - 3.0) ** 2).sum()) - 3.0 * len(atoms)
    pull = 0.2 * (lengths - 3.0) * vectors / lengths
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pull)
    results: dict[str, Any] = {"energy": energy, "forces": forces}
    if stress and atoms.pbc.all():
        full = 0.5 * (pull[:, :, None] * vectors[:, None]).sum(0) / atoms.get_volume()
        results["stress"] = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    """Fourteen frames of a metal with stress, two of them clusters without a cell."""
    from ase.build import bulk

    rng = np.random.default_rng(1)
    frames = []
    for n in range(14):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * (1 + 0.02 * rng.normal()), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        if n % 7 == 3:
            atoms.pbc = False
            atoms.set_cell(np.zeros((3, 3)))
        frames.append(labelled(atoms, rng))
    write(tmp_path / "copper.extxyz", frames)
    return tmp_path / "copper.extxyz"


def test_own_data_with_stress(tiny_recipe, copper: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        "finetune.stress_weight=10.0", "finetune.max_steps=60", "finetune.eval_every=30", "finetune.lr=1e-2",
        "data.split_by=frame", "data.fractions=[0.7, 0.15, 0.15]", name="custom"
    )  # fmt: skip
    notes = Notes()
    metrics = run_train(recipe, data=copper, out=tmp_path / "run", listener=notes, **CPU)
    assert "no pretraining: the frames hold no molecules to mask." in notes.notes
    assert metrics["pretrained"] is False
    assert "stress_rmse" in metrics["errors"]["train"]
    assert str(copper) in metrics["data"]
    assert "copper.extxyz" in metrics["labels"]
    log = [json.loads(line) for line in (tmp_path / "run" / "finetune" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for line in log for value in line.values())
    assert log[-1]["train/stress_mae"] < log[0]["train/stress_mae"]
    assert "stress RMSE" in (tmp_path / "run" / "report.md").read_text()
    # Against ASE's own reading of the file: the sign and the order of the components.
    frames = read(copper, ":")
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    calculator = MaskedGNNCalculator(tmp_path / "run", device="cpu")
    errors = []
    for index in splits["train"]:
        atoms = frames[index]
        if atoms.pbc.all():
            mine = atoms.copy()
            mine.calc = calculator
            errors.append(mine.get_stress(voigt=False) - atoms.get_stress(voigt=False))
    assert 1e3 * np.sqrt(np.mean(np.square(errors))) == pytest.approx(
        metrics["errors"]["train"]["stress_rmse"], rel=1e-3
    )


def test_stress_that_is_not_trained_is_still_tested(tiny_recipe, copper: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("data.split_by=frame", "data.fractions=[0.7, 0.15, 0.15]", name="custom")
    metrics = run_train(recipe, data=copper, out=tmp_path / "run", **CPU)
    assert math.isfinite(metrics["errors"]["train"]["stress_mae"])


def test_too_few_frames(tiny_recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "few.extxyz", [labelled(molecule("H2O"), rng) for _ in range(2)])
    with pytest.raises(MdpotError, match=r"need at least 3 groups of frames; got 2 .*Give more frames"):
        run_train(tiny_recipe(name="custom"), data=tmp_path / "few.extxyz", out=tmp_path / "run", **CPU)


def test_an_element_that_only_the_test_split_holds(tiny_recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for n in range(20):
        atoms = molecule("CO2" if n == 0 else "H2O")
        atoms.rattle(0.05, rng=rng)
        atoms.info["group"] = f"g{n}"
        frames.append(labelled(atoms, rng))
    write(tmp_path / "mixed.extxyz", frames)
    recipe = tiny_recipe("pretrain.objective=none", "finetune.max_steps=1", name="custom")
    names = [frame.group for frame in read_frames(tmp_path / "mixed.extxyz")]
    seeds = range(100)
    seed = next(seed for seed in seeds if 0 in split_by_group(names, recipe.data.fractions, seed)["test"])
    metrics = run_train(recipe, data=tmp_path / "mixed.extxyz", out=tmp_path / "run", seed=seed, **CPU)
    assert 0 in json.loads((tmp_path / "run" / "splits.json").read_text())["test"]
    assert all(math.isfinite(v) for table in metrics["errors"].values() for v in table.values())
    potential, header = load_potential(tmp_path / "run")
    assert potential.elements == [1, 6, 8]
    assert header["reference_energies"]["6"] == 0.0


# ---- evaluation ------------------------------------------------------------------------


def test_evaluate(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, _, _ = trained
    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    chosen = []
    for frame in (frames[i] for i in splits["test"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        chosen.append(atoms)
    write(tmp_path / "test.extxyz", chosen)
    for file in (out, out / "potential.safetensors"):
        result = run_evaluate(file, tmp_path / "test.extxyz", device="cpu")
        assert set(result) == {"file", "data", "labels", "test.extxyz"}
        assert result["test.extxyz"] == pytest.approx(metrics["errors"]["test"], rel=1e-3)


def test_evaluate_refuses(trained, tmp_path: Path) -> None:
    out, _, _, _ = trained
    rng = np.random.default_rng(0)
    write(tmp_path / "methane.extxyz", [labelled(molecule("CH4"), rng)])
    with pytest.raises(
        MdpotError, match=r"elements Z = \[6\] that the potential was not trained for; it knows Z = \[1, 8\]"
    ):
        run_evaluate(out, tmp_path / "methane.extxyz", device="cpu")
    with pytest.raises(MdpotError, match="no such file"):
        run_evaluate(out, tmp_path / "nowhere.extxyz", device="cpu")
    with pytest.raises(MdpotError, match="is not there"):
        run_evaluate(tmp_path / "nowhere.safetensors", tmp_path / "methane.extxyz", device="cpu")
    write(tmp_path / "bare.extxyz", molecule("H2O"))
    with pytest.raises(MdpotError, match="no energy"):
        run_evaluate(out, tmp_path / "bare.extxyz", device="cpu")


def test_the_public_names_of_the_module() -> None:
    assert {"run_train", "run_pretrain", "run_finetune", "run_evaluate"} <= set(runs.__all__)
