"""Outputs of Gaussian: all jobs, the state that the forces are of, the orientation that they are in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.training.data.comparisons import push_and_turn
from mdpot.training.data.frames import Frame
from mdpot.training.data.physics import TURNING
from mdpot.training.data.readers.jobs import structures_of

_ELECTRONS = re.compile(r"^ *Charge = *(-?\d+) +Multiplicity = *(\d+)", re.M)
_ARCHIVE = re.compile(r"^ 1\\1\\GINC", re.M)
_FORCES = "Forces (Hartrees/Bohr)"
#: Of several parts of a system, each with an energy of its own.
_OF_PARTS = ("ONIOM: extrapolated energy", "Counterpoise corrected energy")
_EXCITED = re.compile(r"^ *Total Energy, E\((?:TD|CIS|EOM)[^)\n]*\) *= *(\S+)", re.M)


def jobs_of_gaussian(path: Path, printed: str, structures: list[Atoms]) -> list[Atoms]:
    """The structures of all jobs of an output, with charge and multiplicity. ASE's reader stops where a job ends.

    Gaussian turns a molecule to its standard orientation, and prints the forces in that of the input.

    Args:
        path: for messages.
        printed: the output.
        structures: what ASE reads of it.

    Raises:
        MdpotError: forces without the positions that they belong to, or a system in parts.
    """
    jobs = _ARCHIVE.split(printed)
    first, *others = (_excited(path, job) for job in jobs)
    found = structures if first == jobs[0] else structures_of(path, "gaussian-out", first)
    said = _add_electrons(found, first, {})
    for job in others:
        if "orientation:" in job and "SCF Done:" in job:
            more = structures_of(path, "gaussian-out", job)
            said = _add_electrons(more, job, said)
            found = [*found, *more]
    orientation, energy = "", False
    for line in printed.split("\n"):
        words = line.split()
        if len(words) == 2 and words[1] == "orientation:":
            # The first of several prints between two energies counts, as in ASE's reader.
            if not orientation or energy:
                orientation, energy = words[0], False
        elif line.lstrip().startswith(("SCF Done:", "Energy=")):
            energy = True
        elif _FORCES in line and orientation == "Standard" and _twisted(found):
            raise MdpotError(
                f"{path}: its forces are in the input orientation, but its positions are printed in the standard "
                "orientation alone, so that they do not belong together. Run Gaussian with nosymm, or with #P."
            )
    return found


def _excited(path: Path, job: str) -> str:
    """A job in which the energy of an excited state, of which its forces are the derivative, goes for that of the
    ground state, which ASE takes.

    Raises:
        MdpotError: a system in parts (ONIOM, counterpoise), of which ASE takes the energy of one.
    """
    for mark in _OF_PARTS:
        if mark in job:
            raise MdpotError(
                f"{path}: it has energies of several parts of the system ({mark}), of which ASE takes one. Write the "
                "energy and the forces of the whole as extended XYZ."
            )
    return _EXCITED.sub(r" SCF Done:  E(excited) = \1", job) if _FORCES in job else job


def _add_electrons(structures: Sequence[Atoms], job: str, before: dict[str, int]) -> dict[str, int]:
    """Gives the structures of a job its charge and multiplicity, or those of the job before. Where there
    are several, as of ONIOM's layers or of fragments, the first are those of the whole."""
    match = _ELECTRONS.search(job)
    said = before if match is None else {"charge": int(match[1]), "multiplicity": int(match[2])}
    for atoms in structures:
        atoms.info |= said
    return said


def _twisted(structures: Sequence[Atoms]) -> bool:
    """Whether the forces of a structure turn it as a whole, so that they are those of another orientation."""
    frames = [
        Frame(
            atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, forces=np.asarray(atoms.calc.results["forces"])
        )
        for atoms in structures
        if atoms.calc is not None and "forces" in atoms.calc.results
    ]
    found = push_and_turn(frames)  # nothing of molecules at rest
    return len(found) > 0 and bool(np.median(found[:, 1]) > TURNING)
