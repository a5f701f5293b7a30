"""Pretraining and finetuning by themselves, and which weights go from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

from mdpot import MdpotError, build_potential, load_potential, save_potential
from mdpot.modelfile import read_metadata
from mdpot.stopping import Stopped
from mdpot.training.run import run_finetune, run_pretrain, run_train
from mdpot.training.transfer import transfer_backbone

from .conftest import CPU, Notes, StopAfter, assert_same_weights, weights_of, without_clock

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
        potential.embedding.mark.add_(1.0)
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


def test_masking_without_molecules(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"masking needs molecules CH4.*pretrain\.objective=none"):
        run_train(tiny_recipe("data.molecule=CH4"), data=small_file, out=tmp_path / "run", **CPU)
    with pytest.raises(MdpotError, match=r"needs molecules|nothing to pretrain"):
        run_pretrain(tiny_recipe("data.molecule=CH4"), data=small_file, out=tmp_path / "other", **CPU)
    with pytest.raises(MdpotError, match="nothing to pretrain"):
        run_pretrain(tiny_recipe("pretrain.objective=none"), data=small_file, out=tmp_path / "none", **CPU)


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
    finetune(
        file,
        "finetune.readout=new",
        "finetune.lr=1e-9",
        "finetune.lr_min=0.0",
        "finetune.ema_decay=none",
        listener=notes,
    )
    before, after = weights_of(file), weights_of(tmp_path / "run" / "potential.safetensors")
    key = "embedding.element.weight"
    torch.testing.assert_close(after[key], before[key][[0, 2]], rtol=0, atol=1e-6)
    for other in before:
        if other.startswith(("embedding", "backbone")) and other != key:
            torch.testing.assert_close(after[other], before[other], rtol=0, atol=1e-6)
    # The normalization belongs to the weights.
    assert read_metadata(tmp_path / "run" / "potential.safetensors")["hyperparameters"]["avg_neighbors"] == 21.0
    assert any("new: readout" in note for note in notes.notes)


def test_elements_that_were_not_pretrained_stay_new(finetune, tmp_path: Path) -> None:
    notes = Notes()
    finetune(make(tmp_path / "pretrained.safetensors", elements=(8,)), listener=notes)
    assert any("embedding.element.weight of H" in note for note in notes.notes)
