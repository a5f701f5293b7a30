"""Small labeled structures, and how they are read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.reading import ENERGY_AND_FORCES, Reading

WATER = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def labeled(**keys: float) -> Atoms:
    """Water with an energy under each key that ends so, and forces of that size under each other key."""
    atoms = WATER.copy()
    for key, value in keys.items():
        if "energy" in key.lower():
            atoms.info[key] = value
        else:
            atoms.arrays[key] = np.full((3, 3), value)
    return atoms


def results_of(atoms: Atoms) -> dict[str, Any]:
    """What the calculator of a structure holds; may be changed in place."""
    assert atoms.calc is not None
    return atoms.calc.results


def copper(n_frames: int = 40, strain: float = 0.03) -> list[Atoms]:
    """Rattled, strained copper with the energies, forces and stress of EMT; eV, eV/Å, eV/Å^3."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=strain, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def read(
    tmp_path: Path, frames: list[Atoms] | Atoms, need: Collection[str] | None = ENERGY_AND_FORCES, **asked: Any
) -> Reading:
    write(tmp_path / "frames.extxyz", frames)
    return read_file(tmp_path / "frames.extxyz", Asked(**asked), need)
