"""Outputs of programs: writing them, and whether they are read right."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mdpot.training.data.reading import Reading

NEED = ("energy", "forces")


def bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def assert_right(reading: Reading, frames: list[Atoms], stress: bool = False) -> None:
    assert len(reading.frames) == len(frames)
    for frame, atoms in zip(reading.frames, frames, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert frame.forces is not None
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-5)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-5)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-5)
        if stress:
            assert frame.stress is not None
            np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-5)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def energies(reading: Reading) -> list[float | None]:
    return [frame.energy for frame in reading.frames]


def of(frames: list[Atoms]) -> object:
    return pytest.approx([atoms.get_potential_energy() for atoms in frames], abs=1e-6)


def gaussian(orientations: list[str]) -> str:
    """An output of Gaussian with the forces of the input orientation, and a standard one turned by 90 degrees."""
    text = " Entering Gaussian System, Link 0=g16\n"
    atoms = molecule("H2O")
    ruler = " " + "-" * 69 + "\n"
    forces = np.array([[0.0, 0.0, 0.02], [0.0, -0.01, -0.01], [0.0, 0.01, -0.01]])  # along the bonds
    for name in orientations:
        places = atoms.positions if name == "Input" else atoms.positions[:, [2, 0, 1]]
        text += f"{' ' * 25}{name} orientation:\n{ruler} Center\n Number\n{ruler}"
        for n, (z, row) in enumerate(zip(atoms.numbers, places, strict=True)):
            text += f" {n + 1} {z} 0 " + " ".join(f"{x:.6f}" for x in row) + "\n"
        text += ruler
    text += f" SCF Done:  E(RHF) =  -76.0     A.U. after    9 cycles\n{ruler}"
    text += f" Center Atomic Forces (Hartrees/Bohr)\n Number\n{ruler}"
    for n, (z, row) in enumerate(zip(atoms.numbers, forces, strict=True)):
        text += f" {n + 1} {z} " + " ".join(f"{x:.9f}" for x in row) + "\n"
    return text + ruler


def installed(name: str) -> str:
    """A file that ASE's own tests read."""
    path = Path(ase.__file__).parent / "test" / "testdata" / name
    if not path.is_file():
        pytest.skip(f"this ASE comes without {name}")
    return path.read_text()


ORCA = """
                                 *****************
                                 * O   R   C   A *
                                 *****************
Number of atoms                             ...      3
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.119262
  H      0.000000    0.763239   -0.477047
  H      0.000000   -0.763239   -0.477047

 Total Charge           Charge          ....   {charge}
 Multiplicity           Mult            ....    {multiplicity}
 Number of Electrons    NEL             ....    9
FINAL SINGLE POINT ENERGY       -75.900000000000
------------------
CARTESIAN GRADIENT
------------------

   1   O   :   -0.000000000    0.000000000    0.020000000
   2   H   :   -0.000000000   -0.010000000   -0.010000000
   3   H   :   -0.000000000    0.010000000   -0.010000000
                             ****ORCA TERMINATED NORMALLY****
"""
