"""A training names the start of the zoo that knows its elements, where it has few frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mdpot import MaskedGNNCalculator
from mdpot.training.config import load_recipe
from mdpot.training.prepare import prepare
from mdpot.training.run import run_finetune, run_train
from mdpot.training.starts import CRYSTALS, FRAMES_OF_MOLECULES, MANY_ELEMENTS, MOLECULES, suggested_start
from mdpot.zoo import find_model

from .conftest import CPU, Notes

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")


def frames(elements: Sequence[str]) -> list[Atoms]:
    """A dozen rattled alloys."""
    found = []
    for n in range(12):
        atoms = bulk("Cu", a=3.9, cubic=True) * (2, 1, 1)
        atoms.symbols = [elements[(n + i) % len(elements)] for i in range(len(atoms))]
        atoms.rattle(0.1, seed=n)
        atoms.calc = EMT()
        atoms.get_forces()
        found.append(atoms)
    return found


@pytest.mark.parametrize(("n", "named"), [(MANY_ELEMENTS, True), (MANY_ELEMENTS - 1, False)])
def test_many_elements_and_few_frames(n: int, named: bool, tiny_recipe: Callable, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "alloys.xyz", frames(METALS[:n]))
    listener = Notes()
    made = tiny_recipe("pretrain.objective=none", name="custom")
    run_train(made, data=tmp_path / "alloys.xyz", out=tmp_path / "run", listener=listener, **CPU)
    assert any(f"--from {CRYSTALS}" in note for note in listener.notes) == named


@pytest.mark.parametrize(
    ("formula", "n", "changed", "named"),
    [
        ("CH3CH2OH", 30, (), True),
        ("CH3CH2OH", FRAMES_OF_MOLECULES * 2, (), False),  # enough
        ("CH3CH2OH", 30, ("model.baseline=gfn2-xtb",), False),  # which knows molecules already
        ("CH3CH2OH", 30, ("model.name=egnn",), False),
        ("CH3Cl", 30, (), True),
        ("LiF", 30, (), False),  # may be a cluster of a salt
        ("BeF2", 30, (), False),  # has an element that it does not know
    ],
)
def test_few_frames_of_molecules(formula: str, n: int, changed: tuple[str, ...], named: bool, tmp_path: Path) -> None:
    rng, shaken = np.random.default_rng(0), []
    start = Atoms("BeF2", [[0, 0, 0], [0, 0, 1.4], [0, 0, -1.4]]) if formula == "BeF2" else molecule(formula)
    for _ in range(n):
        atoms = start.copy()
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=atoms.positions.shape))
        shaken.append(atoms)
    ase.io.write(tmp_path / "molecules.xyz", shaken)
    made = load_recipe("custom", "quick", ["data.check=off", "pretrain.objective=none", *changed])
    advice = suggested_start(made, prepare(made, tmp_path / "molecules.xyz", 0, torch.device("cpu")))
    assert (f"--from {MOLECULES}" in advice) == named
    assert named or not advice


@pytest.mark.filterwarnings("ignore:.*worse than no force")
@pytest.mark.parametrize("preset", ["after", "quick"])
def test_it_begins_with_the_forces_of_the_start(preset: str, tmp_path: Path) -> None:
    alloys = frames(METALS)
    ase.io.write(tmp_path / "alloys.xyz", alloys)
    changed = ["finetune.max_steps=1", "finetune.lr=1e-9", "finetune.lr_min=1e-9", "model.hyperparameters.size=small"]
    made = load_recipe("custom", preset, changed)
    run_finetune(made, from_file=find_model(CRYSTALS), data=tmp_path / "alloys.xyz", out=tmp_path / "run", **CPU)
    found = []
    for model in (CRYSTALS, tmp_path / "run"):
        alloys[0].calc = MaskedGNNCalculator(model, device="cpu")
        found.append(alloys[0].get_forces())
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(*found, atol=0.01)
