"""A force field of harmonic wells, one that sees charges, and a potential that corrects the wells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from mdpot.forcefields import FORCE_FIELDS, ForceField
from mdpot.modelfile import open_model
from mdpot.modelformat import pack
from mdpot.training.run import run_train

from ..conftest import CPU

BASELINE = ("model.baseline=spcfw", "pretrain.objective=none")
SPRING = 0.05  # eV/Å²


def label(structure):
    """Every atom in a harmonic well at the origin; three atoms are not described."""
    if len(structure) == 3:
        return None
    return 0.5 * SPRING * float((structure.positions**2).sum()), -SPRING * structure.positions


@pytest.fixture(autouse=True)
def wells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", label))


def charged(structure: Any) -> tuple[float, Any]:
    """As `label`, and 1 eV for each charge, 100 eV for each unpaired electron."""
    found: Any = label(structure)
    energy, forces = found
    charge, unpaired = structure.electrons.settled(structure.numbers)
    return energy + charge + 100 * (unpaired or 0), forces


@pytest.fixture
def by_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("charges", charged))


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_recipe, small_file: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", label))
        out = tmp_path_factory.mktemp("baseline") / "run"
        run_train(tiny_recipe(*BASELINE), data=small_file, out=out, **CPU)
    return out


def atoms_of(pbc: bool = False) -> Atoms:
    positions = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [3, 0, 0], [3.96, 0, 0], [2.76, 0.93, 0]]
    return Atoms("OH2OH2", positions, cell=[8, 8, 8] if pbc else None, pbc=pbc)


def with_electrons(trained: Path, electrons, file: Path) -> Path:
    model = open_model(trained)
    file.write_bytes(pack({**model.header, "electrons": electrons}, model.tensors))
    return file
