"""Outputs of Gaussian and ORCA: jobs, charges, and positions that do or do not belong to the forces."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree

from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file
from mdpot.training.data.readers.gaussian import _twisted

from .outputs import NEED, ORCA, gaussian

ENDING = " 1\\1\\GINC-NODE\\SP\\RHF\\STO-3G\\H2O1\\USER\n Normal termination of Gaussian 16\n"


def test_the_electrons_of_gaussian(tmp_path: Path) -> None:
    """Those of each job, and of the whole where the layers of ONIOM or fragments have their own."""
    first = gaussian(["Input"])
    said = " Charge =  1 Multiplicity = 2 for low   level calculation on real  system.\n Charge = -2 Multiplicity = 3\n"
    whole = first.replace("g16\n", f"g16\n{said}")
    anion = first.replace("g16\n", "g16\n Charge = -1 Multiplicity = 2\n")
    (tmp_path / "a.log").write_text(whole + ENDING + first + ENDING + anion + ENDING)
    frames = read_file(tmp_path / "a.log").frames
    assert [frame.electrons for frame in frames] == [Electrons(1, 1), Electrons(1, 1), Electrons(-1, 1)]
    (tmp_path / "a.log").write_text(first)
    assert read_file(tmp_path / "a.log").frames[0].electrons == NOTHING_SAID


def test_the_electrons_of_orca(tmp_path: Path) -> None:
    one = ORCA.format(charge=1, multiplicity=2)
    (tmp_path / "a.out").write_text(one + one)
    assert [frame.electrons for frame in read_file(tmp_path / "a.out").frames] == 2 * [Electrons(1, 1)]
    (tmp_path / "a.out").write_text(one + ORCA.format(charge=-1, multiplicity=2))
    assert read_file(tmp_path / "a.out").frames[0].electrons == Electrons(None, 1)


@pytest.mark.parametrize("orientations", [["Input"], ["Input", "Standard"]])
def test_gaussian(tmp_path: Path, orientations: list[str]) -> None:
    (tmp_path / "a.log").write_text(gaussian(orientations))
    (frame,) = read_file(tmp_path / "a.log", need=NEED).frames
    assert frame.energy == pytest.approx(-76 * Hartree)
    np.testing.assert_allclose(frame.positions, molecule("H2O").positions, atol=1e-6)
    assert frame.forces is not None
    assert frame.forces[0, 2] == pytest.approx(0.02 * Hartree / Bohr)


def test_all_jobs_of_gaussian_are_read(tmp_path: Path) -> None:
    """As of files that were joined, and of --Link1--."""
    second = gaussian(["Input"]).replace("-76.0", "-76.1")
    (tmp_path / "a.log").write_text(gaussian(["Input"]) + ENDING + second + ENDING)
    energies = [frame.energy for frame in read_file(tmp_path / "a.log", need=NEED).frames]
    assert energies == pytest.approx([-76.0 * Hartree, -76.1 * Hartree])


def test_gaussian_without_the_positions_of_its_forces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(gaussian(["Standard"]))
    with pytest.raises(MdpotError, match=r"they do not belong together\. Run Gaussian with nosymm"):
        read_file(tmp_path / "a.log")


def test_a_molecule_at_rest_turns_nowhere() -> None:
    """Without a warning of numpy, of a median of nothing."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 1e-4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _twisted([atoms])
