"""i-PI's trajectories: positions, forces, and the potential energy of each step, in files of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError, unknown
from mdpot.packed import head
from mdpot.structures import decode, read_bytes
from mdpot.xyz import blocks

#: What a comment says of a frame: the quantity, its unit, and the step.
_QUANTITY = re.compile(r"CELL\W.*?\b(positions|forces|velocities|momenta|[xvfp]_centroid)\w*(?:\{([^}]*)\})?")
_STEP = re.compile(r"\bStep:\s*(\d+)")
#: PREFIX.NAME_BEAD.xyz
_NAME = re.compile(r"(?P<prefix>.+)\.(?P<name>[^.]+)_(?P<bead>\d+)\.xyz")
_COLUMN = re.compile(r"^#\s*column\s+(\d+)\s*-->\s*(\w+)(?:\{([^}]*)\})?", re.M)
_ATOMIC = ("", "atomic_unit", "automatic")
_ENERGIES = {**dict.fromkeys(_ATOMIC, "Hartree"), "electronvolt": "eV", "kilocal/mol": "kcal/mol"}
_FORCES = {**dict.fromkeys(_ATOMIC, "Hartree/bohr"), "ev/ang": "eV/Å"}


def quantity_of(comment: str) -> str:
    """What a frame with this comment of i-PI holds, "positions", "forces", ...; "" for a comment that is not i-PI's."""
    match = _QUANTITY.search(comment)
    return match[1] if match is not None else ""


def add_labels(path: Path, structures: Sequence[Atoms], comments: Sequence[str]) -> tuple[dict[str, str], str]:
    """Gives the positions of a file PREFIX.NAME_BEAD.xyz the forces of the file of the same bead beside it, and the
    potential energies of PREFIX.out, by their steps.

    The potential of a ring polymer is that of all its beads; it is not used where there are several.

    Args:
        path: of the positions.
        structures: in it.
        comments: theirs.

    Returns:
        The units of "forces" and "energy", and what is to be said of them; "" for nothing.

    Raises:
        MdpotError: forces of other atoms; a unit that is not known here.
    """
    named = _NAME.fullmatch(path.name)
    beside = [] if named is None else sorted(path.parent.glob(f"{named['prefix']}.*_{named['bead']}.xyz"))
    forces = next((file for file in beside if quantity_of(_comment(file)) == "forces"), None)
    if named is None or forces is None:
        return {}, (
            "the comments are i-PI's, whose forces are in a file of their own: with one called as that of the "
            "positions, such as simulation.pos_0.xyz and simulation.for_0.xyz, they are read together."
        )
    found, unit = _forces(forces)
    units = {"forces": unit}
    steps = [_step(comment) for comment in comments]
    for step, atoms in zip(steps, structures, strict=True):
        if step not in found:
            continue
        symbols, vectors = found[step]
        if symbols != [s.lower() for s in atoms.get_chemical_symbols()]:
            raise MdpotError(f"{path}: step {step} has other atoms than in {forces.name}.")
        atoms.arrays["forces"] = vectors
    energies = path.with_name(f"{named['prefix']}.out")
    beads = list(path.parent.glob(f"{named['prefix']}.{named['name']}_*.xyz"))
    if len(beads) > 1:
        return units, f"{energies.name} has the potential of {len(beads)} beads together, which is not used."
    if not energies.is_file():
        return units, f"there is no {energies.name} beside it, which has the potential energies."
    potentials, units["energy"] = _potentials(energies)
    for step, atoms in zip(steps, structures, strict=True):
        if step in potentials:
            atoms.info["energy"] = potentials[step]
    return units, ""


def _comment(path: Path) -> str:
    return next(iter(decode(head(path)).split("\n")[1:]), "")


def _step(comment: str) -> int:
    match = _STEP.search(comment)
    return int(match[1]) if match is not None else -1


def _forces(path: Path) -> tuple[dict[int, tuple[list[str], np.ndarray]], str]:
    """Symbols in lower case and forces [n_atoms, 3] by step, and their unit."""
    found, units = {}, set()
    for first, comment, rows in blocks(path, decode(read_bytes(path))):
        match = _QUANTITY.search(comment)
        units.add((match[2] or "") if match is not None else "")
        words = [row.split() for row in rows]
        try:
            found[_step(comment)] = ([row[0].lower() for row in words], np.array([row[1:4] for row in words], float))
        except (IndexError, ValueError):
            raise MdpotError(f"{path}: the frame of line {first} has no three numbers for each atom.") from None
    return found, _unit(path, "force", units, _FORCES)


def _potentials(path: Path) -> tuple[dict[int, float], str]:
    """Potential energies by step, and their unit.

    Raises:
        MdpotError: no columns of the steps and the potential.
    """
    text = decode(read_bytes(path))
    columns = {name: (int(number) - 1, unit) for number, name, unit in _COLUMN.findall(text)}
    if not {"step", "potential"} <= columns.keys():
        raise MdpotError(f"{path}: it must have columns step and potential; it has {', '.join(columns) or 'none'}.")
    step, (at, unit) = columns["step"][0], columns["potential"]
    rows = [line.split() for line in text.split("\n") if line.strip() and not line.startswith("#")]
    try:
        found = {int(float(row[step])): float(row[at]) for row in rows}
    except (IndexError, ValueError):
        raise MdpotError(f"{path}: a row has no numbers in the columns of step and potential.") from None
    return found, _unit(path, "energy", {unit}, _ENERGIES)


def _unit(path: Path, quantity: str, stated: set[str], known: dict[str, str]) -> str:
    for unit in stated:
        if unit not in known or len(stated) > 1:
            raise MdpotError(f"{path}: {unknown(f'unit of {quantity} in i-PI', ', '.join(sorted(stated)), known)}")
    return known[next(iter(stated))]
