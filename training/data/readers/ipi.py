"""i-PI's trajectories: positions, forces, and the potential energy of each step, in files of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from glob import escape
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError, unknown
from mdpot.packed import head
from mdpot.structures import decode, read_bytes
from mdpot.xyz import blocks

#: What a comment says of a frame: the quantity, its unit, and the step.
_QUANTITY = re.compile(
    r"^\s*#\s*CELL[({](?!.*Properties=).*?\b(positions|forces|velocities|momenta|[xvfp]_centroid)\w*(?:\{([^}]*)\})?"
)
_STEP = re.compile(r"\bStep:\s*(\d+)")
#: PREFIX.NAME_BEAD.xyz
_NAME = re.compile(r"(?P<prefix>.+)\.(?P<name>[^.]+)_(?P<bead>\d+)\.xyz")
_COLUMN = re.compile(r"^#\s*column\s+(\d+)\s*-->\s*(\w+)(.*)", re.M)
#: Of what property a column is, as the input asks for it: potential(0){electronvolt}, potential{electronvolt}(bead=0).
_UNIT, _BEAD = re.compile(r"^[^:]*?\{([^}]*)\}"), re.compile(r"^[^:]*?\(\s*(?:bead\s*=)?\s*(\d+)\s*\)")
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

    The potential of a ring polymer is the mean of its beads; it is not used where there are several.

    Args:
        path: of the positions.
        structures: in it.
        comments: theirs.

    Returns:
        The units of "forces" and "energy", and what is to be said of them; "" for nothing.

    Raises:
        MdpotError: forces of other atoms; a unit that is not known here; frames without a step, or two of one.
    """
    named = _NAME.fullmatch(path.name)
    beside = [] if named is None else _files(path, f"{escape(named['prefix'])}.*_{named['bead']}.xyz")
    forces = next((file for file in beside if quantity_of(_comment(file)) == "forces"), None)
    if named is None or forces is None:
        return {}, (
            "the comments are i-PI's, whose forces are in a file of their own: with one called as that of the "
            "positions, such as simulation.pos_0.xyz and simulation.for_0.xyz, they are read together."
        )
    found, unit = _forces(forces)
    units = {"forces": unit}
    steps = _steps(path, comments)
    for step, atoms in zip(steps, structures, strict=True):
        if step not in found:
            continue
        symbols, vectors = found[step]
        if symbols != [s.lower() for s in atoms.get_chemical_symbols()]:
            raise MdpotError(f"{path}: step {step} has other atoms than in {forces.name}.")
        atoms.arrays["forces"] = vectors
    energies = path.with_name(f"{named['prefix']}.out")
    if not energies.is_file():
        return units, f"there is no {energies.name} beside it, which has the potential energies."
    potentials, unit, is_mean = _potentials(energies, int(named["bead"]))
    note = ""
    if is_mean:
        beads = _files(path, f"{escape(named['prefix'])}.{escape(named['name'])}_*.xyz")
        if len(beads) > 1 or len(named["bead"]) > 1:  # i-PI pads their numbers where they are ten or more
            return units, f"{energies.name} has the mean potential of all beads, which is not used."
        note = f"the potential in {energies.name} is the mean of all beads; it is taken for that of the one here."
    for step, atoms in zip(steps, structures, strict=True):
        if step in potentials:
            atoms.info["energy"] = potentials[step]
    return units | {"energy": unit}, note


def _files(path: Path, pattern: str) -> list[Path]:
    return sorted(path.parent.glob(pattern))


def _comment(path: Path) -> str:
    return next(iter(decode(head(path)).split("\n")[1:]), "")


def _steps(path: Path, comments: Sequence[str]) -> list[int]:
    """The step of each frame."""
    matches = [_STEP.search(comment) for comment in comments]
    steps = [int(match[1]) for match in matches if match is not None]
    if len(steps) < len(matches):
        raise MdpotError(
            f"{path}: the comment of frame {matches.index(None)} has no step, as i-PI writes it ('Step: 0'), by which "
            "positions, forces and energies are brought together."
        )
    return _unique(path, steps)


def _unique(path: Path, steps: list[int]) -> list[int]:
    """The steps, of which none may be there twice."""
    for step, n in Counter(steps).items():
        if n > 1:
            raise MdpotError(f"{path}: step {step} is in it {n} times, as after a restart. Take out all but one.")
    return steps


def _forces(path: Path) -> tuple[dict[int, tuple[list[str], np.ndarray]], str]:
    """Symbols in lower case and forces [n_atoms, 3] by step, and their unit."""
    found, units, comments = [], set(), []
    for first, comment, rows in blocks(path, decode(read_bytes(path))):
        match = _QUANTITY.search(comment)
        units.add((match[2] or "") if match is not None else "")
        comments.append(comment)
        words = [row.split() for row in rows]
        try:
            found.append(([row[0].lower() for row in words], np.array([row[1:4] for row in words], float)))
        except (IndexError, ValueError):
            raise MdpotError(f"{path}: the frame of line {first} has no three numbers for each atom.") from None
    return dict(zip(_steps(path, comments), found, strict=True)), _unit(path, "force", units, _FORCES)


def _potentials(path: Path, bead: int) -> tuple[dict[int, float], str, bool]:
    """Potential energies of a bead by step, their unit, and whether they are the mean of all beads instead.

    Raises:
        MdpotError: no columns of the steps and the potential.
    """
    text = decode(read_bytes(path))
    columns: dict[str, tuple[int, str]] = {}
    for number, name, said in _COLUMN.findall(text):
        unit, of = _UNIT.search(said), _BEAD.search(said)
        columns[name if of is None else f"{name}({int(of[1])})"] = int(number) - 1, "" if unit is None else unit[1]
    potential = f"potential({bead})" if f"potential({bead})" in columns else "potential"
    if not {"step", potential} <= columns.keys():
        raise MdpotError(f"{path}: it must have columns step and potential; it has {', '.join(columns) or 'none'}.")
    step, (at, unit) = columns["step"][0], columns[potential]
    rows = [line.split() for line in text.split("\n") if line.strip() and not line.startswith("#")]
    try:
        steps, energies = [int(float(row[step])) for row in rows], [float(row[at]) for row in rows]
    except (IndexError, ValueError):
        raise MdpotError(f"{path}: a row has no numbers in the columns of step and potential.") from None
    found = dict(zip(_unique(path, steps), energies, strict=True))
    return found, _unit(path, "energy", {unit}, _ENERGIES), potential == "potential"


def _unit(path: Path, quantity: str, stated: set[str], known: dict[str, str]) -> str:
    for unit in stated:
        if unit not in known or len(stated) > 1:
            raise MdpotError(f"{path}: {unknown(f'unit of {quantity} in i-PI', ', '.join(sorted(stated)), known)}")
    return known[next(iter(stated))]
