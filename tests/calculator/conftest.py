"""Potentials in files, a liquid, and what the tests of the calculator do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mdpot import MaskedGNNCalculator, build_potential, save_potential

CUTOFF = 3.4


def save(
    path: Path, model: str = "egnn", seed: int = 0, elements: tuple[int, ...] = (1, 6, 8), **metadata: Any
) -> Path:
    torch.manual_seed(seed)
    sizes = {} if model in ("tide", "direct") else {"width": 16, "layers": 2}
    shift = [-100.0 * z for z in elements]
    potential = build_potential(model, {"cutoff": CUTOFF, **sizes}, elements, shift, 1.0)
    save_potential(path, potential, {"provenance": {"seed": seed}, **metadata})
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("potential") / "potential.safetensors")


@pytest.fixture
def liquid() -> Atoms:
    """Four molecules in a slanted cell whose heights are near the cutoff."""
    rng = np.random.default_rng(3)
    cell = np.array([[5.5, 0, 0], [1.6, 5.1, 0], [-0.8, 1.2, 4.9]])
    atoms = Atoms(cell=cell, pbc=True)
    for place in ((0.1, 0.1, 0.1), (0.6, 0.5, 0.1), (0.1, 0.6, 0.6), (0.6, 0.05, 0.6)):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += np.array(place) @ cell
        atoms += water
    return atoms


def attach(structure: Atoms, file: Path, **settings: Any) -> Any:
    atoms = structure.copy()
    atoms.calc = MaskedGNNCalculator(file, device="cpu", **settings)
    return atoms


def results(atoms: Atoms) -> np.ndarray:
    """Energy, forces and, where there is one, stress, in one row."""
    stress = atoms.get_stress() if atoms.pbc.all() else []
    return np.concatenate([[atoms.get_potential_energy()], atoms.get_forces().ravel(), stress])
