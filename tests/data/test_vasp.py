"""Outputs of VASP: steps that did not converge or were learned, and several outputs in one file."""

from __future__ import annotations

import bz2
import re
from pathlib import Path

import pytest
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

from .metals import coppers
from .outputs import NEED, assert_right
from .vasp import outcar, vasprun


def test_steps_of_vasp_without_convergence_have_no_labels(tmp_path: Path) -> None:
    """The free energy is taken, the stress turned into eV/Å³, tension positive."""
    frames = coppers(4)
    (tmp_path / "OUTCAR").write_text(outcar(frames, [3, 5, 4, 2], entropy=0.02))
    reading = read_file(tmp_path / "OUTCAR", need=NEED)
    assert_right(reading, [frames[0], *frames[2:]], stress=True)
    note = "the electrons did not converge within NELM cycles in 1 of 4 steps, the first of them step 1; their labels"
    assert any(note in said for said in reading.notes)
    assert any(said.startswith("1 of 4 frames are left out") for said in reading.notes)
    (tmp_path / "OUTCAR").write_text(outcar(frames, [3, 4, 4, 2], entropy=0.02))
    assert len(read_file(tmp_path / "OUTCAR", need=NEED).frames) == 4


def test_outputs_of_vasp_one_after_the_other(tmp_path: Path) -> None:
    """A restart of the same system is read on; another system would be read as the first."""
    frames = coppers(4)
    first, second = outcar(frames[:2], [3, 3]), outcar(frames[2:], [3, 3])
    (tmp_path / "OUTCAR").write_text(first + second)
    assert_right(read_file(tmp_path / "OUTCAR", need=NEED), frames, stress=True)
    (tmp_path / "OUTCAR").write_text(first + second.replace("PAW_PBE Cu", "PAW_PBE Ag"))
    with pytest.raises(MdpotError, match="outputs of several systems, one after the other"):
        read_file(tmp_path / "OUTCAR")


def learned(atoms: Atoms) -> str:
    """What VASP's machine-learned force field says of a step."""
    text = "  ML FORCE on cell =-STRESS in cart. coord.  units (eV):\n  in kB 9. 9. 9. 9. 9. 9.\n"
    text += "      direct lattice vectors                 reciprocal lattice vectors\n"
    text += "".join(" {:.9f} {:.9f} {:.9f} 0.0 0.0 0.0\n".format(*row) for row in atoms.cell.array)
    text += f" POSITION                                       TOTAL-FORCE (eV/Angst) (ML)\n {'-' * 83}\n"
    text += "".join(" {:.7f} {:.7f} {:.7f} 9. 9. 9.\n".format(*row) for row in atoms.positions)
    return (
        f"{text} {'-' * 83}\n  ML FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 51}\n"
        "  free  energy ML TOTEN  =        -9.00000000 eV\n\n"
        "  ML energy  without entropy=       -9.00000000  ML energy(sigma->0) =       -9.00000000\n\n"
    )


def test_steps_that_vasp_learned_on_the_fly_are_none_of_dft(tmp_path: Path) -> None:
    """Between the steps of DFT, before and behind them, and beside them."""
    frames = coppers(4)
    moved = frames[0].copy()
    moved.rattle(0.1)
    parts = re.split(
        r"(?=^-+ Iteration +\d+\( +1\))|(?=^ POSITION)", outcar(frames, [3, 5, 4, 2], entropy=0.02), flags=re.M
    )
    (tmp_path / "OUTCAR").write_text(learned(moved).join(parts) + learned(moved))
    reading = read_file(tmp_path / "OUTCAR", need=NEED)
    assert_right(reading, [frames[0], *frames[2:]], stress=True)


def test_vasprun_as_outcar(tmp_path: Path) -> None:
    frames = coppers(3)
    (tmp_path / "vasprun.xml").write_text(vasprun(frames, [1e-7, 1e-2, 1e-8], entropy=0.02))
    reading = read_file(tmp_path / "vasprun.xml", need=NEED)
    assert_right(reading, [frames[0], frames[2]], stress=True)
    (tmp_path / "run_vasp.xml.bz2").write_bytes(bz2.compress((tmp_path / "vasprun.xml").read_bytes()))
    assert_right(read_file(tmp_path / "run_vasp.xml.bz2", need=NEED), [frames[0], frames[2]], stress=True)
    assert any("in 1 of 3 steps, the first of them step 1" in said for said in reading.notes)
