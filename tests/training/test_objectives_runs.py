"""Every pretraining objective through whole runs of seconds: what they leave, that they repeat, what they refuse."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

from mdpot import MdpotError, build_potential, load_potential
from mdpot.forcefields import FORCE_FIELDS, ForceField
from mdpot.modelfile import read_metadata
from mdpot.neighbors import neighbor_list
from mdpot.stopping import Stopped
from mdpot.training.compare import run_compare
from mdpot.training.config import load_recipe, recipe_to_dict, recipe_to_toml
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers import read_frames
from mdpot.training.listener import Listener
from mdpot.training.networks import new_potential
from mdpot.training.prepare import prepare
from mdpot.training.relabel import with_forcefield_labels
from mdpot.training.run import run_finetune, run_pretrain, run_train
from mdpot.training.schema import ModelConfig, PretrainConfig
from mdpot.training.transfer import transfer_backbone

CPU: dict[str, Any] = {"device": "cpu"}
OBJECTIVES = {
    "mask": ("pretrain.objective=mask",),
    "oxygen": ("pretrain.objective=mask", "pretrain.element=O", "pretrain.ratio=0.5"),
    "atoms": ("pretrain.objective=mask", "pretrain.unit=atom", "pretrain.target=farthest", "pretrain.cosine=all"),
    "denoise": ("pretrain.objective=denoise", "pretrain.sigma=0.3"),
    "direct": ("pretrain.objective=denoise", "pretrain.vector=direct"),
    "forcefield": ("pretrain.objective=forcefield", "pretrain.loss=huber", "pretrain.energy_weight=3.0"),
}
"""What each is set by in a recipe."""


class Notes(Listener):
    """Remembers what it hears, and stops the run as Ctrl-C would at the first report of a stage."""

    def __init__(self, stop_at: str = "") -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []
        self.stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, stage, report) -> None:
        self.stages.append(stage)
        if stage == self.stop_at:
            self.stop_at = ""
            os.kill(os.getpid(), signal.SIGTERM)


class Springs:
    """A force field of springs between neighbors, with a zero of energy far from DFT's.

    It refuses frames of more than 30 atoms, and counts how often it was asked.
    """

    def __init__(self) -> None:
        self.n_calls = 0

    def label(self, frame: Frame) -> tuple[float, np.ndarray] | None:
        self.n_calls += 1
        if len(frame) > 30:
            return None
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, 2.5)
        vectors = frame.positions[j] - frame.positions[i] + shifts @ frame.cell
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        forces = np.zeros((len(frame), 3))
        np.add.at(forces, i, 0.4 * (lengths - 2.5) * vectors / lengths)
        return float((0.1 * (lengths - 2.5) ** 2).sum()) + 7.0 * len(frame), forces


@pytest.fixture
def springs(monkeypatch: pytest.MonkeyPatch) -> Springs:
    """Takes the place of every force field."""
    fake = Springs()

    everywhere = ForceField("springs", lambda frame: fake.label(frame))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("mdpot.training.relabel.find_forcefield", lambda name: everywhere)
    return fake


@pytest.fixture(scope="module")
def recipe_of(tiny_recipe) -> Callable[..., Any]:
    """The tiny recipe with one of the objectives; further keys as text."""

    short = ("pretrain.max_steps=4", "pretrain.eval_every=2", "finetune.max_steps=2", "finetune.eval_every=2")

    def make(objective: str, *overrides: str, **options: Any):
        return tiny_recipe(*short, *OBJECTIVES[objective], *overrides, **options)

    return make


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_clock(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "finetune_seconds"}


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = load_potential(a)[0].state_dict(), load_potential(b)[0].state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["atoms", "denoise", "forcefield"])
def test_a_run_with_each_objective(name: str, recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    """Whole; stopped and resumed; and its two stages one by one: the same weights, bit by bit."""
    recipe, objective = recipe_of(name), recipe_of(name).pretrain.objective
    notes = Notes()
    metrics = run_train(recipe, data=small_file, out=tmp_path / "run", listener=notes, **CPU)
    assert metrics["pretrained"] == objective
    assert f"Pretrained by the objective `{objective}`" in (tmp_path / "run" / "report.md").read_text()
    log = log_of(tmp_path / "run" / "pretrain")
    assert len(log) == 2
    expected = {"loss", "energy_mae", "force_mae"} if name == "forcefield" else {"loss", "cosine"}
    assert {f"{split}/{key}" for split in ("train", "val") for key in expected} <= log[0].keys()
    assert all(math.isfinite(value) for line in log for value in line.values())

    with pytest.raises(Stopped):
        run_train(recipe, data=small_file, out=tmp_path / "again", listener=Notes("pretrain"), **CPU)
    again = run_train(recipe, data=small_file, out=tmp_path / "again", resume=True, **CPU)
    assert without_clock(again) == without_clock(metrics)
    assert_same_weights(tmp_path / "again" / "potential.safetensors", tmp_path / "run" / "potential.safetensors")

    file = run_pretrain(recipe, data=small_file, out=tmp_path / "one", **CPU)
    assert_same_weights(file, tmp_path / "run" / "pretrained.safetensors")
    found = run_finetune(recipe, from_file=file, data=small_file, out=tmp_path / "two", **CPU)
    assert without_clock(found) == without_clock(metrics)
    assert_same_weights(tmp_path / "two" / "potential.safetensors", tmp_path / "run" / "potential.safetensors")


def test_no_label_of_the_data_reaches_the_pretraining(recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    """Data with other labels give the same pretrained weights, with every objective."""
    lines = small_file.read_text().splitlines()
    for n, line in enumerate(lines):
        if line.startswith("energy"):
            lines[n] = f"energy {float(line.split()[1]) * 1.01 + n:.6f}"
        if line.startswith("atom"):
            words = line.split()
            lines[n] = " ".join([*words[:-3], *(f"{3 * float(x) + 0.01:.9f}" for x in words[-3:])])
    other = tmp_path / "input.data"
    other.write_text("\n".join(lines) + "\n")
    for name in ("oxygen", "direct", "forcefield"):
        recipe = recipe_of(name, "pretrain.max_steps=2", "data.check=off")
        for data, folder in ((small_file, "a"), (other, "b")):
            run_train(recipe, data=data, out=tmp_path / name / folder, **CPU)
        assert_same_weights(*(tmp_path / name / folder / "pretrained.safetensors" for folder in "ab"))


def test_the_wall_is_left_out_under_noise(recipe_of, small_file: Path, tmp_path: Path) -> None:
    """It would push apart what the noise brought together, harder than any prediction."""
    recipe = recipe_of("denoise", "pretrain.max_steps=1")
    assert recipe.model.repulsion
    run_train(recipe, data=small_file, out=tmp_path / "run", **CPU)
    assert not load_potential(tmp_path / "run" / "pretrained.safetensors")[0].has_wall
    assert load_potential(tmp_path / "run")[0].has_wall
    assert log_of(tmp_path / "run" / "pretrain")[0]["train/loss"] < 10.0


# ---- free labels -----------------------------------------------------------------------


def test_the_labels_are_those_of_the_force_field(recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    recipe, cpu = recipe_of("forcefield", "model.pair=false"), torch.device("cpu")
    prepared = prepare(recipe, small_file, 0, cpu)
    told: list[tuple[int, int]] = []
    data = with_forcefield_labels(recipe, prepared, tmp_path, 0, lambda *done: told.append(done))
    assert told == [(n + 1, springs.n_calls) for n in range(springs.n_calls)]
    assert data.elements == prepared.elements
    left = {}
    for split in ("train", "validation"):
        left[split] = [frame for frame in prepared.frames(split) if len(frame) <= 30]
        assert 0 < len(left[split]) == len(data.stores[split]) < len(prepared.stores[split])
        for n, frame in enumerate(left[split]):
            energy, forces = springs.label(frame)  # type: ignore[misc]
            batch = data.stores[split].batch(torch.tensor([n]), torch.float64)
            assert torch.equal(batch.graph.numbers, torch.from_numpy(frame.numbers))
            assert float(batch.labels["energy"]) == pytest.approx(energy)
            np.testing.assert_allclose(batch.labels["forces"], forces, atol=1e-12)
            shift = sum(data.shift[data.elements.index(z)] for z in frame.numbers)
            assert float(batch.labels["interaction"]) == pytest.approx(energy - shift)
    # Reference and scale are fitted to the force field's labels: its zero is 7 eV an atom, DFT's -156.
    per_atom = [springs.label(f)[0] / len(f) for f in left["train"]]  # type: ignore[index]
    assert np.mean(data.shift @ [2 / 3, 1 / 3]) == pytest.approx(np.mean(per_atom), abs=0.05)
    rms = np.sqrt(np.mean(np.concatenate([springs.label(f)[1] for f in left["train"]]) ** 2))  # type: ignore[index]
    assert data.scale == pytest.approx(rms)
    assert data.scale != pytest.approx(prepared.scale, rel=0.1)

    # A run that goes on reads them back instead of computing them again.
    before = springs.n_calls
    again = with_forcefield_labels(recipe, prepared, tmp_path, 0)
    assert springs.n_calls == before
    for split in left:
        assert torch.equal(again.stores[split].labels["energy"], data.stores[split].labels["energy"])
        assert torch.equal(again.stores[split].labels["forces"], data.stores[split].labels["forces"])


def test_free_labels_have_a_reference_of_their_own(recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    """The isolated atoms of a file have energies of the method that labeled it, not of the force field."""
    recipe = recipe_of("forcefield", "model.pair=false")
    prepared = prepare(recipe, small_file, 0, torch.device("cpu"))
    plain = with_forcefield_labels(recipe, prepared, tmp_path, 0)
    prepared.dataset.isolated, prepared.offset = {1: -13.6, 8: -430.0}, -3.0
    again = with_forcefield_labels(recipe, prepared, tmp_path, 0)
    np.testing.assert_array_equal(again.shift, plain.shift)
    assert again.offset == 0.0


def test_a_copied_readout_starts_from_what_binds_an_atom(recipe_of, small_file: Path) -> None:
    recipe = recipe_of("forcefield", "model.pair=false")
    prepared = prepare(recipe, small_file, 0, torch.device("cpu"))
    source = new_potential(recipe.model, prepared, 0)
    prepared.offset = -3.0
    graph = prepared.train.batch(torch.tensor([0])).graph
    target = new_potential(recipe.model, prepared, 1)
    transfer_backbone(source, target, with_readout=True, offset=prepared.offset)
    before, after = (potential.eval()(*graph.inputs())["interaction"].detach() for potential in (source, target))
    assert float(after - before) == pytest.approx(-3.0 * graph.n_atoms, rel=1e-3)


def test_labels_go_on_where_they_were_stopped(
    recipe_of, springs, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("forcefield", "model.pair=false")
    prepared = prepare(recipe, small_file, 0, torch.device("cpu"))
    whole = with_forcefield_labels(recipe, prepared, tmp_path / "whole", 0)
    n_calls, springs.n_calls = springs.n_calls, 0

    def stop(done: int, n_frames: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="stopped after 3 of"):
        with_forcefield_labels(recipe, prepared, tmp_path, 0, stop)
    assert springs.n_calls == 3
    again = with_forcefield_labels(recipe, prepared, tmp_path, 0)
    assert springs.n_calls == n_calls

    # Nor does a crash lose them.
    monkeypatch.setattr("mdpot.training.relabel.SAVE_EVERY", 0.0)

    def crash(done: int, n_frames: int) -> None:
        if done == 3:
            raise RuntimeError

    springs.n_calls = 0
    with pytest.raises(RuntimeError):
        with_forcefield_labels(recipe, prepared, tmp_path / "crashed", 0, crash)
    with_forcefield_labels(recipe, prepared, tmp_path / "crashed", 0)
    assert springs.n_calls == n_calls + 1
    for split, store in whole.stores.items():
        assert torch.equal(again.stores[split].labels["forces"], store.labels["forces"])


def test_what_a_run_says_of_free_labels(recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    notes = Notes()
    run_train(recipe_of("forcefield"), data=small_file, out=tmp_path / "run", listener=notes, **CPU)
    said = "\n".join(notes.notes)
    n_frames = len(read_frames(small_file))
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    asked = len(splits["train"]) + len(splits["validation"])
    assert asked < n_frames
    described = sum(len(read_frames(small_file)[i]) <= 30 for i in splits["train"] + splits["validation"])
    assert f"labels of the force field spcfw: for {described} of {asked} frames" in said
    assert "transferred every weight of the backbone and the readout" in said
    assert notes.stages[0] == "label"
    # The backbone has the normalization of all frames, which is also that of finetuning.
    files = [tmp_path / "run" / name for name in ("pretrained.safetensors", "potential.safetensors")]
    pretrained, finetuned = (read_metadata(file)["hyperparameters"]["avg_neighbors"] for file in files)
    assert pretrained == finetuned


def test_a_transferred_readout_keeps_the_energy_in_ev() -> None:
    size = {"cutoff": 3.4, "width": 8, "layers": 2}
    torch.manual_seed(0)
    source = build_potential("egnn", size, [1, 8], [1.0, 2.0], 0.5)
    frame = molecule("H2O")
    from mdpot.graph import Graph

    graph = Graph.from_atoms(frame, 3.4)
    found = {}
    for with_readout in (True, False):
        target = build_potential("egnn", size, [1, 8], [-15.0, -430.0], 1.7)
        new = transfer_backbone(source, target, with_readout=with_readout)
        assert (new == []) == with_readout
        found[with_readout] = target.eval()(*graph.inputs())
    expected = source.eval()(*graph.inputs())
    torch.testing.assert_close(found[True]["interaction"], expected["interaction"])
    torch.testing.assert_close(found[True]["forces"], expected["forces"])
    assert float((found[False]["forces"] - expected["forces"]).abs().max()) > 1e-3
    assert float(found[True]["energy"]) == pytest.approx(float(expected["interaction"]) - 460.0)


def test_the_force_fields_of_the_recipe_are_those_there_are() -> None:
    assert set(get_args(PretrainConfig.model_fields["forcefield"].annotation)) == set(FORCE_FIELDS)
    (names, _) = get_args(ModelConfig.model_fields["baseline"].annotation)
    assert set(get_args(names)) == set(FORCE_FIELDS)


# ---- what cannot be ---------------------------------------------------------------------


def test_what_cannot_be_pretrained_leaves_no_folder(
    recipe_of, tiny_recipe, springs, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    for run in (run_train, run_pretrain):
        with pytest.raises(MdpotError, match=r"masking needs molecules CH4 with H.*pretrain\.objective=none"):
            run(recipe_of("mask", "data.molecule=CH4"), data=small_file, out=out, **CPU)
        with pytest.raises(MdpotError, match="needs molecules H2O with N"):
            run(recipe_of("mask", "pretrain.element=N"), data=small_file, out=out, **CPU)
    with pytest.raises(MdpotError, match="nothing to pretrain"):
        run_pretrain(tiny_recipe("pretrain.objective=none"), data=small_file, out=out, **CPU)
    monkeypatch.setattr(springs, "label", lambda frame: None)
    with pytest.raises(MdpotError, match=r"spcfw describes none of the train frames .*pretrain\.forcefield"):
        run_train(recipe_of("forcefield"), data=small_file, out=out, **CPU)
    assert not out.exists()


def test_pretraining_alone_needs_no_labels(recipe_of, springs, tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(0), []
    for _ in range(14):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    for name in ("atoms", "denoise", "forcefield"):
        recipe = recipe_of(name, name="custom")
        file = run_pretrain(recipe, data=tmp_path / "frames.extxyz", out=tmp_path / name, **CPU)
        made_by = read_metadata(file)["provenance"]["recipe"]["pretrain"]
        assert (made_by["objective"], made_by["forcefield"]) == (recipe.pretrain.objective, "gfn2-xtb")


# ---- recipes and comparisons -------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_recipes_keep_the_objective(name: str, recipe_of, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    text = recipe_to_toml(recipe, comments=True)
    for key in ("objective", "unit", "target", "cosine", "sigma", "forcefield", "energy_weight"):
        assert f"\n{key} = " in text
    (tmp_path / "recipe.toml").write_text(text)
    assert recipe_to_dict(load_recipe(tmp_path / "recipe.toml"))["pretrain"] == recipe_to_dict(recipe)["pretrain"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("pretrain.objective=denoising", "pretrain.objective: .*got 'denoising'"),
        ("pretrain.sigma=0.0", r"pretrain\.sigma: .*greater than 0"),
        ("pretrain.unit=molecules", r"pretrain\.unit"),
        ("pretrain.target=next", r"pretrain\.target"),
        ("pretrain.loss=per-atom", r"pretrain\.loss: .*'l1', 'l2' or 'huber'"),
        ("pretrain.forcefield=tip3p", r"pretrain\.forcefield: .*'spcfw' or 'gfn2-xtb'"),
    ],
)
def test_values_that_no_objective_takes(tiny_recipe, key: str, message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        tiny_recipe(key)
    with pytest.raises(MdpotError, match="one of energy_weight, force_weight and stress_weight must be above 0"):
        tiny_recipe("pretrain.energy_weight=0.0", "pretrain.force_weight=0.0")


@pytest.mark.parametrize("name", ["denoise", "forcefield"])
def test_compared_with_scratch(name: str, recipe_of, springs, small_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(name, "pretrain.max_steps=2")
    result = run_compare(recipe, data=small_file, out=tmp_path / "run", seeds=1, **CPU)
    assert result["test"]["force_rmse"]["difference"]["mean"] != 0.0
    for arm, pretrained in (("pretrained", recipe.pretrain.objective), ("scratch", False)):
        metrics = json.loads((tmp_path / "run" / "seed0" / arm / "metrics.json").read_text())
        assert metrics["pretrained"] == pretrained
