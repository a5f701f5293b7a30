"""The frames that the benchmarks give to peers are split as mdpot's own trainings split them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from mdpot.training.config import load_recipe
from mdpot.training.prepare import prepare


@pytest.mark.parametrize("most", [None, 20])
def test_peers_get_the_same_frames(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    monkeypatch.syspath_prepend(checkout / "benchmarks")
    from accuracy_data import SEED, Frames  # pyright: ignore[reportMissingImports]

    repeated = []
    for n in range(60):
        atoms = bulk("Cu") * (2, 1, 1)
        atoms.rattle(0.1, seed=n % 30)
        atoms.calc = EMT()
        atoms.get_forces()
        repeated.append(atoms)
    write(tmp_path / "copper.extxyz", repeated)
    frames = Frames(most, tmp_path / "copper.extxyz")
    recipe = load_recipe(frames.recipe, overrides=frames.overrides)
    ours = prepare(recipe, frames.file, SEED, torch.device("cpu")).splits
    assert frames.splits == {name: ours[name].tolist() for name in ("train", "validation", "test")}
