"""Outputs of several jobs or stages, of which ASE's readers put the results of one beside the structure of another."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.io.espresso import units as _ESPRESSO

from mdpot.errors import MdpotError
from mdpot.structures import without
from mdpot.units import HARTREE, HARTREE_PER_BOHR

_CONFIGURATION = re.compile(r"Program PWSCF|ATOMIC_POSITIONS")
#: What ASE takes for a result of a configuration of Quantum ESPRESSO; of one without, it gives no structure.
_RESULTS = (
    "!    total energy",
    "Forces acting on atoms",
    "total   stress",
    "Magnetic moment per site",
    "End of self-consistent calculation",
    "End of band structure calculation",
)
_EXACT = re.compile(r"^!! +total energy += +(\S+) Ry", re.M)
_NOT_CONVERGED = ("convergence NOT achieved", "EXX: now go back")
#: Where ASE's reader ends a structure of ORCA.
_ENDS_OF_ORCA = ("ORCA TERMINATED NORMALLY", "ORCA GEOMETRY RELAXATION STEP")
_SEARCH = "BEGINNING GEOMETRY SEARCH POINT NSERCH="
_ROWS = r"\n.*\n *-+\n((?: *{}\S+(?: +-?\d+\.\d+){{4}} *\n)+)"
_COORDINATES = re.compile(r"COORDINATES OF ALL ATOMS ARE \(ANGS\)" + _ROWS.format(""))
_STEP_OF_GAMESS = re.compile(
    r"NSERCH= *\d+ +ENERGY= *(\S+)\s+-+\s+GRADIENT \(HARTREE/BOHR\)\s+-+" + _ROWS.format(r"\d+ +")
)
_PI, _PI_END = re.compile(r"\.\.\. PI ENERGY ANALYSIS"), re.compile("END OF PI ENERGY ANALYSIS")
_GRADIENT_OF_GAMESS = re.compile(r"UNITS ARE HARTREE/BOHR +E'X")


def structures_of(path: Path, kind: str, text: str | None = None, **options: bool) -> list[Atoms]:
    """All structures that ASE reads of a file in a format, or of a part of its text.

    Raises:
        MdpotError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fields that are not used here
            found = read(path if text is None else io.StringIO(text), index=":", format=kind, **options)
    except Exception as error:  # whatever ASE's parsers raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MdpotError(f"{path}: cannot be read ({reason[:200]}). Check the file, or convert it.") from None
    return found if isinstance(found, list) else [found]


def converge_espresso(path: Path, text: str, structures: Sequence[Atoms]) -> list[int]:
    """Gives the structures of pw.x with exact exchange the energy that goes with their forces. ASE takes the first of a
    step, of the functional without exact exchange; the last has two marks before it.

    Returns:
        The steps whose electrons did not converge.

    Raises:
        MdpotError: other steps than those that ASE has read.
    """
    bad = []
    steps = [step for step in _CONFIGURATION.split(text)[1:] if any(word in step for word in _RESULTS)]
    if len(steps) != len(structures):
        raise MdpotError(f"{path}: {len(steps)} steps are in it, and ASE reads {len(structures)}. Check the file.")
    for n, (step, atoms) in enumerate(zip(steps, structures, strict=True)):
        energies = _EXACT.findall(step)
        if energies and atoms.calc is not None:
            energy = float(energies[-1]) * _ESPRESSO["Ry"]
            atoms.calc.results |= {"energy": energy, "free_energy": energy}
        elif any(word in step for word in _NOT_CONVERGED):
            bad.append(n)
    return bad


def jobs_of_orca(path: Path, text: str) -> list[Atoms] | None:
    """The structures of an output of ORCA with several jobs, as of `$new_job`, or several structures, as of a file of
    them in the input. ASE takes these for one: of the forces it has the first, of positions and energies the last.

    Returns:
        None where each structure ends as ASE expects.

    Raises:
        MdpotError: it cannot be read.
    """
    lines, computed = text.splitlines(keepends=True), False
    ended = []
    for n, line in enumerate(lines):
        if "FINAL SINGLE POINT ENERGY" in line:
            computed = True
        elif any(end in line for end in _ENDS_OF_ORCA):
            computed = False
        elif "CARTESIAN COORDINATES (ANGSTROEM)" in line and computed:
            rows = takewhile(str.strip, (lines[k] for k in range(n + 2, len(lines))))
            ended.append(f"{_ENDS_OF_ORCA[0]}\nNumber of atoms ... {sum(1 for _ in rows)}\n")
            computed = False
        ended.append(line)
    return structures_of(path, "orca-output", "".join(ended)) if len(ended) > len(lines) else None


def steps_of_gamess(path: Path, text: str) -> list[Atoms] | None:
    """The steps of a search of a geometry by GAMESS, of which ASE has the first positions beside the last energy; or a
    single point whose energy ASE takes from an analysis of the pi electrons. None of any other.

    Raises:
        MdpotError: gradients of several structures without a search; a search without gradients.
    """
    _, *steps = text.split(_SEARCH)
    if not steps:
        if len(_GRADIENT_OF_GAMESS.findall(text)) > 1:
            raise MdpotError(
                f"{path}: gradients of several structures are in it, and ASE takes the last for that of the first "
                "structure. Single points (RUNTYP=GRADIENT) and searches of a geometry (RUNTYP=OPTIMIZE) are read."
            )
        rest = without(text, _PI, _PI_END)
        return structures_of(path, "gamess-us-out", rest) if rest != text else None
    found = []
    for step in steps:
        places, gradient = _COORDINATES.search(step), _STEP_OF_GAMESS.search(step)
        if places is not None and gradient is not None:
            charges, positions = _columns(places[1], 1)
            atoms = Atoms(charges.round().astype(int), positions)
            results = {
                "energy": float(gradient[1]) * HARTREE,
                "forces": -_columns(gradient[2], 2)[1] * HARTREE_PER_BOHR,
            }
            atoms.calc = SinglePointCalculator(atoms, **results)
            found.append(atoms)
    if not found:
        raise MdpotError(f"{path}: the search of a geometry has no gradient. Raise NPRT in $STATPT.")
    return found


def _columns(table: str, n_before: int) -> tuple[np.ndarray, np.ndarray]:
    """The nuclear charges [n_atoms] and the vectors [n_atoms, 3] of a table, which other columns are before."""
    numbers = np.array([row.split()[n_before:] for row in table.splitlines()], np.float64)
    return numbers[:, 0], numbers[:, 1:]


def drop_trials_of_nwchem(structures: Sequence[Atoms]) -> int:
    """Takes the labels off structures that have an energy and no forces, where others have: in an optimization, these
    energies are those of trial steps, and ASE has the positions of the step after them.

    Returns:
        How many they are.
    """
    computed = [atoms for atoms in structures if atoms.calc is not None]
    bare = [atoms for atoms in computed if atoms.calc is not None and atoms.calc.results.get("forces") is None]
    if len(bare) == len(computed):
        return 0
    for atoms in bare:
        atoms.calc = None
    return len(bare)
