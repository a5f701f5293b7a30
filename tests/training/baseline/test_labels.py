"""What labels have beyond a force field's, and runs that learn it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read, write

from mdpot import MdpotError
from mdpot.forcefields import FORCE_FIELDS, ForceField
from mdpot.modelfile import open_model
from mdpot.training import baseline
from mdpot.training.baseline import less_baseline
from mdpot.training.config import load_recipe, recipe_to_dict, with_network_of
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.evaluate import run_evaluate
from mdpot.training.run import run_finetune, run_pretrain, run_train

from ..conftest import CPU
from .conftest import BASELINE, SPRING, label


def frame(n: int = 4, **values) -> Frame:
    positions = np.random.default_rng(n).normal(size=(n, 3))
    of = {"cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool), "energy": 1.0, "forces": np.ones((n, 3)), **values}
    return Frame(numbers=np.full(n, 8), positions=positions, **of)


def test_the_labels_are_differences() -> None:
    frames = [frame(4), frame(5, energy=None), frame(6, stress=np.ones((3, 3))), frame(3)]
    data = Dataset("d", frames, "DFT", "here", isolated={8: -1.0}, tests={"more": Dataset("t", [frame(4)], "DFT", "t")})
    told = []
    found = less_baseline(data, [0, 1, 2], "spcfw", lambda *done: told.append(done))
    np.testing.assert_allclose(found.frames[0].labels["forces"], 1.0 + SPRING * frames[0].positions, atol=1e-6)
    assert found.frames[0].energy == pytest.approx(1.0 - 0.5 * SPRING * (frames[0].positions ** 2).sum(), abs=1e-6)
    assert found.frames[1].energy is None
    assert found.frames[2].stress is None
    assert found.frames[3] is frames[3]
    assert (found.isolated, told) == ({}, [(3, 3)])
    assert found.labels == "DFT; the network learns what they have beyond spcfw"
    assert found.notes == ("stress is not learned, for the baseline spcfw has none",)
    assert found.tests["more"].frames[0].energy == found.frames[0].energy
    # It is the same data.
    assert found.fingerprint == data.fingerprint
    assert frames[0].energy == 1.0
    with pytest.raises(MdpotError, match=r"spcfw does not describe frame 7, of 3 atoms.*model\.baseline=none"):
        less_baseline(Dataset("d", [frame(3, index=7)], "DFT", "here"), [0], "spcfw")


def test_labels_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdpot.training.data.cache.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("mdpot.training.data.cache.LONG", -1.0)
    monkeypatch.setattr(baseline, "CHUNK", 2)
    asked = []

    def slow(structure):
        asked.append(len(structure))
        return label(structure)

    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("slow", slow))
    data = Dataset("d", [frame(n) for n in (4, 5, 6, 7, 8)], "DFT", "here")
    first = less_baseline(data, range(5), "spcfw")
    again = less_baseline(data, range(5), "spcfw")
    assert asked == [4, 5, 6, 7, 8]
    for one, other in zip(first.frames, again.frames, strict=True):
        np.testing.assert_array_equal(one.labels["forces"], other.labels["forces"])


def test_the_report_says_so(trained: Path) -> None:
    report = (trained / "report.md").read_text()
    assert "together with the force field `spcfw`, which it corrects" in report
    assert "| test: spcfw alone, mean energy |" in report
    assert "no force" not in report


def test_finetuning_goes_on_with_the_same(trained: Path, tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    file = trained / "potential.safetensors"
    run_finetune(tiny_recipe(*BASELINE), from_file=file, data=small_file, out=tmp_path / "with", **CPU)
    assert open_model(tmp_path / "with").baseline == "spcfw"
    with pytest.raises(MdpotError, match=r"trained with model\.baseline=spcfw, and the recipe asks for none"):
        run_finetune(tiny_recipe(), from_file=file, data=small_file, out=tmp_path / "without", **CPU)
    assert not (tmp_path / "without").exists()


def test_the_network_of_a_file_brings_its_baseline(trained: Path) -> None:
    """Into recipes that can be read again; that of a property takes the network alone."""
    header = open_model(trained).header
    recipe = with_network_of(header, load_recipe("custom", "xtb"))
    assert (recipe.model.baseline, recipe.pretrain.objective) == ("spcfw", "none")
    assert recipe == recipe.model_validate(recipe_to_dict(recipe))
    assert with_network_of(header, load_recipe("qmof-bandgap")).model.baseline is None


def test_weights_that_learned_a_force_field_do_not_begin_a_correction(tiny_recipe, small_file, tmp_path: Path) -> None:
    file = run_pretrain(tiny_recipe("pretrain.objective=forcefield"), data=small_file, out=tmp_path / "first", **CPU)
    with pytest.raises(MdpotError, match="has learned a force field"):
        run_finetune(tiny_recipe(*BASELINE), from_file=file, data=small_file, out=tmp_path / "second", **CPU)
    assert not (tmp_path / "second").exists()


def test_a_run_resumes(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(*BASELINE)
    whole = run_train(recipe, data=small_file, out=tmp_path / "run", **CPU)
    again = run_train(recipe, data=small_file, out=tmp_path / "run", resume=True, **CPU)
    assert again["errors"] == whole["errors"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("model.baseline=mopac",), "model.baseline"),
        (("model.baseline=spcfw", "pretrain.objective=forcefield"), "learns what a force field lacks"),
    ],
)
def test_keys_that_make_no_sense(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        load_recipe("water-rpbe", "quick", keys)


@pytest.mark.usefixtures("by_charge")
@pytest.mark.parametrize(
    ("charges", "keys", "header"),
    [
        ((None, None), (), None),
        ((None, None), ("data.charge=-1",), {"charge": -1, "unpaired": None}),
        ((1, 1), (), {"charge": 1, "unpaired": None}),
        ((0, None), ("data.charge=1",), "stated"),
        ((2, None), (), "stated"),
        ((0, None), (), {"charge": 0, "unpaired": None}),
    ],
)
def test_a_run_learns_what_is_beyond_the_force_field_of_the_ion(
    charges, keys, header, tiny_recipe, small_file: Path, tmp_path: Path
) -> None:
    frames: Any = read(small_file, ":")
    for n, atoms in enumerate(frames):
        atoms.info.pop("total_charge", None)  # ASE reads the zero of the file
        if (charge := charges[n % 2]) is not None:
            atoms.info["charge"] = charge
    write(file := tmp_path / "frames.extxyz", frames)
    recipe = tiny_recipe(*BASELINE, "data.source=custom", *keys)
    run_train(recipe, data=file, out=tmp_path / "run", **CPU)
    assert open_model(tmp_path / "run").header["electrons"] == header
    # Frames are taken as they were in the training.
    scored = run_evaluate(tmp_path / "run", file)[file.name]
    # Errors are the same whether the frames state the charge or the potential does.
    if header not in (None, "stated"):
        for atoms in frames:
            atoms.info.pop("charge", None)
            assert "total_charge" not in atoms.info
        write(bare := tmp_path / "bare.extxyz", frames)
        same = run_evaluate(tmp_path / "run", bare)[bare.name]
        assert scored["energy_mae"] == pytest.approx(same["energy_mae"], abs=1e-6)
