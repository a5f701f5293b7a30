"""Frames of metals that cost nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator


def coppers(n: int = 3, seed: int = 0) -> list[Atoms]:
    """Strained and shaken cells of copper, with EMT."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def alloys(n: int = 3, seed: int = 0, sizes: Sequence[int] = (1,)) -> list[Atoms]:
    """Strained and shaken cells of copper and gold, with EMT; of so many cubes of four atoms each, in turn."""
    rng, frames = np.random.default_rng(seed), []
    for k in range(n):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True) * (1, 1, sizes[k % len(sizes)])
        atoms.symbols[[1, 2]] = "Au"
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        frames.append(atoms)
    return frames
