"""Δ-machine learning: differences that a network learns, and what is corrected by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.mixing import SumCalculator

from mdpot import MaskedGNNCalculator, MdpotError
from mdpot.forcefields import FORCE_FIELDS, ForceField
from mdpot.stopping import Stopped
from mdpot.training import delta, run
from mdpot.training.config import load_recipe
from mdpot.training.data.frames import Frame
from mdpot.training.listener import Listener
from mdpot.training.run import run_pretrain, run_train

from .conftest import CPU

DELTA = ("pretrain.objective=forcefield", "pretrain.delta_steps=6", "model.pair=false")
SPRING = 0.05  # eV/Å²


def label(frame: Frame):
    """Every atom in a harmonic well at the origin; frames of three atoms are not described."""
    if len(frame) == 3:
        return None
    return 0.5 * SPRING * float((frame.positions**2).sum()), -SPRING * frame.positions


@pytest.fixture(autouse=True)
def wells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", label))


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list:
    """What the stages of a run train on: the recipe's finetuning, the frames, the network; in their order."""
    seen = []
    original = run.SOLO.fit

    def fit(self, **arguments):
        seen.append(arguments)
        return original(**arguments)

    monkeypatch.setattr(type(run.SOLO), "fit", fit)
    return seen


def test_labels_are_the_force_fields_and_the_correction(tiny_recipe, small_file: Path, tmp_path: Path, learned) -> None:
    """The differences are learned first; then the frames with them, and the labelled ones with their own labels."""
    out = tmp_path / "run"
    metrics = run_train(tiny_recipe(*DELTA), data=small_file, out=out, **CPU)
    first, second, third = learned
    assert [stage["folder"].name for stage in learned] == ["delta", "pretrain", "finetune"]
    assert first["stage"].max_steps == 6
    n = len(third["train"])
    assert (len(first["train"]), len(second["train"])) == (n, 2 * n)

    positions = third["train"].positions.numpy()
    of_data = third["train"].labels["forces"].numpy()
    np.testing.assert_allclose(first["train"].labels["forces"].numpy(), of_data + SPRING * positions, atol=1e-12)

    corrected, known = np.split(second["train"].labels["forces"].numpy(), 2)
    np.testing.assert_array_equal(known, of_data)
    with pytest.warns(UserWarning, match="only when they are added to those of spcfw"):
        correction = MaskedGNNCalculator(out / "delta" / "potential.safetensors", dtype="float64")
    start = 0
    for k in range(3):
        size = int(third["train"].n_atoms_per_frame[k])
        rows, start = slice(start, start + size), start + size
        cell, pbc = third["train"].cell[k].numpy(), third["train"].pbc[k].numpy()
        atoms = Atoms(third["train"].numbers.numpy()[rows], positions[rows], cell=cell, pbc=pbc, calculator=correction)
        np.testing.assert_allclose(corrected[rows], atoms.get_forces() - SPRING * positions[rows], atol=2e-5)
        energy = atoms.get_potential_energy() + 0.5 * SPRING * (positions[rows] ** 2).sum()
        assert float(second["train"].labels["energy"][k]) == pytest.approx(energy, abs=1e-4)

    tables = json.loads((out / "delta" / "metrics.json").read_text())["errors"]
    assert set(tables) == {"train", "validation", "test"}
    assert metrics["pretrained"] == "forcefield"
    assert (out / "learning_curves.png").is_file()


def test_frames_without_the_force_field_are_left_out(
    tiny_recipe, small_file: Path, tmp_path: Path, learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = FORCE_FIELDS["spcfw"]
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("few", lambda f: None if len(f) > 24 else few.label(f)))
    run_train(tiny_recipe(*DELTA), data=small_file, out=tmp_path / "run", **CPU)
    first, second, third = (len(stage["train"]) for stage in learned)
    assert 0 < first < third
    assert second == 2 * first
    assert "test" not in json.loads((tmp_path / "run" / "delta" / "metrics.json").read_text())["errors"]


def test_nothing_to_learn_from(tiny_recipe, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the structures the force field describes some, of the few labelled ones none."""
    asked = []

    def only_first(frame: Frame):
        asked.append(frame)
        return label(frame) if len(asked) < 3 else None

    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("first", only_first))
    with pytest.raises(MdpotError, match=r"describes none of the \w+ frames, so nothing"):
        run_train(tiny_recipe(*DELTA), data=small_file, out=tmp_path / "run", **CPU)


def test_only_the_labelled_frames_are_learned_from(tiny_recipe, small_file: Path, tmp_path: Path, learned) -> None:
    """Structures that `data.max_train_frames` leaves without labels are corrected, and their labels are not read."""
    run_train(tiny_recipe(*DELTA, "data.max_train_frames=5"), data=small_file, out=tmp_path / "run", **CPU)
    first, second, third = (len(stage["train"]) for stage in learned)
    assert (first, third) == (5, 5)
    assert second > 10


class Stop(Listener):
    """Stops at the first validation of a stage."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def progress(self, stage: str, report) -> None:
        if stage == self.stage and "val/loss" in report.numbers:
            raise Stopped("now")


def test_a_stopped_run_goes_on(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(*DELTA)
    whole = run_train(recipe, data=small_file, out=tmp_path / "whole", **CPU)
    for stage in ("delta", "pretrain"):
        with pytest.raises(Stopped):
            run_train(recipe, data=small_file, out=tmp_path / "again", resume=True, listener=Stop(stage), **CPU)
    again = run_train(recipe, data=small_file, out=tmp_path / "again", resume=True, **CPU)
    assert again["errors"] == whole["errors"]


def test_pretraining_alone_reads_the_labels(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    file = run_pretrain(tiny_recipe(*DELTA), data=small_file, out=tmp_path / "run", **CPU)
    assert file.is_file()


def test_sums_in_ase(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    """As its caution says."""
    from ase.calculators.lj import LennardJones

    run_train(tiny_recipe(*DELTA), data=small_file, out=tmp_path / "run", **CPU)
    with pytest.warns(UserWarning, match="SumCalculator"):
        correction = MaskedGNNCalculator(tmp_path / "run" / "delta")
    atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    parts = []
    for calculator in (LennardJones(), correction, SumCalculator([LennardJones(), correction])):
        atoms.calc = calculator
        parts.append(atoms.get_forces())
    np.testing.assert_allclose(parts[0] + parts[1], parts[2], atol=1e-10)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("pretrain.delta_steps=0",), "pretrain.delta_steps"),
        (("pretrain.data.source=custom", "pretrain.delta_steps=5"), "delta_steps"),
    ],
)
def test_keys_that_make_no_sense(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        load_recipe("water-rpbe", "quick", ["pretrain.objective=forcefield", *keys])


def test_the_caution_names_the_force_field() -> None:
    assert "gfn2-xtb's calculator" in delta.CAUTION.format(forcefield="gfn2-xtb")
