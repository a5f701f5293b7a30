"""Outputs of ABINIT, by the variables after the computation that they end with.

ASE's reader takes lengths in units of `acell` for Å, and does not know most outputs from inputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mdpot.errors import MdpotError
from mdpot.units import BOHR, HARTREE, HARTREE_PER_BOHR

_VERSION = re.compile(rb"^\.?Version\s+\S+\s+of ABINIT", re.M)
_MARK = "echo values of variables after computation"
#: A name, which a dataset's number may follow, or the numbers of the name before.
_LINE = re.compile(r"^[-P]?\s+(?:([A-Za-z_]\w*)\s)?((?:\s*[-+]?\d\S*)*)")
_NAMES = frozenset(
    {"natom", "typat", "znucl", "acell", "rprim", "xred", "etotal", "fcart", "strten", "jdtset", "optdriver"}
)
_UNCONVERGED = "was not enough scf cycles to converge"


def is_abinit(start: bytes) -> bool:
    """Whether a file that begins so is an output of ABINIT."""
    return _VERSION.search(start) is not None


def read_abinit(path: Path, text: str) -> tuple[list[Atoms], int]:
    """The structures of an output, one a dataset: of a relaxation the last one. Datasets of other drivers than the
    ground state's are left out, for their energies are others, such as the second-order ones of responses.

    Args:
        path: for messages.
        text: of the output (`.abo`, `.out`).

    Returns:
        Structures with energy (eV), forces (eV/Å) and stress (eV/Å^3), as far as they were computed; and how many
        datasets are left out.

    Raises:
        MdpotError: it broke off or did not converge; no dataset is a ground state; a variable does not fit the number
            of atoms.
    """
    if _MARK not in text:
        raise MdpotError(f"{path}: the calculation did not come to its end: no variables after computation.")
    if _UNCONVERGED in text.lower():
        raise MdpotError(f"{path}: its electrons did not converge ({_UNCONVERGED}). Raise nstep, and run it again.")
    try:
        values = _variables(text.rpartition(_MARK)[2])
        datasets = [str(int(n)) for n in values.get("jdtset", [])] or [""]
        found = [values | _of(values, dataset) for dataset in datasets]
        ground = [_structure(dataset) for dataset in found if not np.any(dataset.get("optdriver", 0))]
    except (LookupError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MdpotError(f"{path}: the variables after computation are not complete ({reason}).") from None
    if not ground:
        raise MdpotError(f"{path}: no dataset is a ground state (optdriver 0), whose energy and forces can be learned.")
    return ground, len(found) - len(ground)


def _variables(text: str) -> dict[str, np.ndarray]:
    """The numbers of structures and labels by name, which ends with the number of a dataset where they differ."""
    values: dict[str, list[float]] = {}
    name = ""
    for line in text.partition("=====")[0].split("\n"):
        match = _LINE.match(line)
        if match is None:
            continue
        name = match[1] or name
        if name.rstrip("0123456789") not in _NAMES:
            continue
        values.setdefault(name, []).extend(float(word.replace("D", "E")) for word in match[2].split())
    return {name: np.array(numbers) for name, numbers in values.items()}


def _of(values: Mapping[str, np.ndarray], dataset: str) -> dict[str, np.ndarray]:
    """The variables that a dataset has for itself, by their own names."""
    return {name.removesuffix(dataset): value for name, value in values.items() if dataset and name.endswith(dataset)}


def _structure(values: Mapping[str, np.ndarray]) -> Atoms:
    n_atoms = int(values.get("natom", [1])[0])
    types = values["typat"].astype(int) if "typat" in values else np.ones(n_atoms, int)
    vectors = values["rprim"].reshape(3, 3) if "rprim" in values else np.eye(3)
    places = values["xred"] if "xred" in values else np.zeros(3)
    atoms = Atoms(
        values["znucl"][types - 1].astype(int),
        scaled_positions=places.reshape(n_atoms, 3),
        cell=vectors * values["acell"][:, None] * BOHR,
        pbc=True,
    )
    results: dict[str, float | np.ndarray] = {}
    if "etotal" in values:
        results["energy"] = float(values["etotal"][0]) * HARTREE
        if "fcart" in values:
            results["forces"] = values["fcart"].reshape(n_atoms, 3) * HARTREE_PER_BOHR
        if "strten" in values:
            results["stress"] = values["strten"].reshape(6) * HARTREE / BOHR**3
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
