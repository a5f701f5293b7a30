"""CP2K's trajectories: positions with energies (…-pos-1.xyz), forces (…-frc-1.xyz) and cells, in files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.cell import Cell

from mdpot.errors import MdpotError
from mdpot.structures import decode, read_bytes
from mdpot.training.data.unit_statements import canonical
from mdpot.training.data.units import LENGTHS
from mdpot.xyz import blocks

_COMMENT = re.compile(r"\s*i\s*=\s*(\d+)(?:,\s*time\s*=\s*\S+?)?,\s*E\s*=\s*(\S+)")
_POSITIONS = re.compile(r"(?P<project>.*)-pos-(?P<run>[^/]+?)\.xyz(?P<packing>\.\w+)?")
_OTHERS = re.compile(r".*-(?:frc|vel)-[^/]+\.xyz(?:\.\w+)?")
_VARIABLE = re.compile(r"^\s*(?:ENSEMBLE\s+(?:NPT|NPE|NPH)\w*|RUN_TYPE\s+CELL_OPT)", re.I | re.M)
#: The units of the energies and forces.
UNITS = {"E": "Hartree", "energy": "Hartree", "forces": "Hartree/bohr"}


class _Box(NamedTuple):
    """The lattice vectors [3, 3], Å, and the periodic directions."""

    cell: np.ndarray
    pbc: tuple[bool, bool, bool]


def is_cp2k(comment: str) -> bool:
    """Whether the comment of an XYZ frame is CP2K's."""
    return _COMMENT.match(comment) is not None


def is_forces(path: Path) -> bool:
    """Whether a file is named as CP2K's forces or velocities, which look like positions."""
    return _OTHERS.fullmatch(path.name) is not None


def add_forces(path: Path, structures: Sequence[Atoms], comments: Sequence[str]) -> str:
    """Gives the structures of a file of positions the forces and cells of the files beside it.

    Forces are those of the same steps, in Hartree/bohr, under "forces"; energies, in Hartree, are under "energy" then.
    The cell is that of PROJECT-1.cell, a row a step; else the section &CELL in an input or a restart file (.inp,
    .restart) in the same folder, unless that lets the cell change.

    Args:
        path: of the positions.
        structures: in it.
        comments: theirs.

    Returns:
        A note; "" for none. Without a file of forces, it says so, and nothing is changed.

    Raises:
        MdpotError: forces of other atoms or that repeat a step; no cell, or several.
    """
    named = _POSITIONS.fullmatch(path.name)
    if named is None:
        return (
            "the comments are CP2K's, which state no cell, and forces are in a file of their own: name the files as "
            "CP2K does, …-pos-1.xyz and …-frc-1.xyz, and they are read together."
        )
    forces = path.with_name(f"{named['project']}-frc-{named['run']}.xyz")
    forces = next((file for file in (forces, forces.with_name(f"{forces.name}.gz")) if file.is_file()), forces)
    if not forces.is_file():
        return (
            "the comments are CP2K's, which state no cell, and forces are in a file of their own: with "
            f"{forces.name} beside it, they are read together."
        )
    steps = [_step(comment) for comment in comments]
    found = _forces(forces, structures, steps)
    boxes = _boxes(path, path.with_name(f"{named['project']}-{named['run']}.cell"), steps)
    n_bare = 0
    for atoms, vectors, box, comment in zip(structures, found, boxes, comments, strict=True):
        atoms.info["energy"] = _energy(path, comment)
        atoms.set_cell(box.cell)
        atoms.pbc = box.pbc
        if vectors is None:
            n_bare += 1
        else:
            atoms.arrays["forces"] = vectors
    return f"{n_bare} of {len(steps)} steps have no forces in {forces.name}." if n_bare else ""


def _step(comment: str) -> int:
    match = _COMMENT.match(comment)
    return int(match[1]) if match is not None else -1


def _energy(path: Path, comment: str) -> float:
    match = _COMMENT.match(comment)
    try:
        return float(match[2]) if match is not None else np.nan
    except ValueError:
        raise MdpotError(f"{path}: the energy must be a number; got {comment.strip()[:60]!r}.") from None


def _forces(path: Path, structures: Sequence[Atoms], steps: Sequence[int]) -> list[np.ndarray | None]:
    """The forces [n_atoms, 3] of each structure, in the units of the file; None for a step that is not in it.

    Raises:
        MdpotError: of other atoms; not numbers; a step that is there twice, where the steps are not the same in order.
    """
    read: list[tuple[int, list[list[str]]]] = []
    for _, comment, rows in blocks(path, decode(read_bytes(path))):
        read.append((_step(comment), [row.split() for row in rows]))
    there = [step for step, _ in read]
    if there == list(steps):
        taken: list[list[list[str]] | None] = [rows for _, rows in read]
    elif len(set(there)) < len(there) or len(set(steps)) < len(steps):
        raise MdpotError(
            f"{path}: its steps are not those of the positions, and some are there twice, as after a restart, so that "
            "nothing says which forces belong to which positions. Cut both files to the same steps."
        )
    else:
        by_step = dict(read)
        taken = [by_step.get(step) for step in steps]
    found: list[np.ndarray | None] = []
    for rows, atoms, step in zip(taken, structures, steps, strict=True):
        if rows is None:
            found.append(None)
            continue
        if [row[0].capitalize() for row in rows if row] != list(atoms.symbols):
            raise MdpotError(f"{path}: at step {step} its atoms are others than those of the positions.")
        try:
            found.append(np.array([row[1:4] for row in rows], dtype=np.float64).reshape(len(atoms), 3))
        except ValueError:
            raise MdpotError(f"{path}: the forces of step {step} are not three numbers for each atom.") from None
    return found


def _boxes(path: Path, cells: Path, steps: Sequence[int]) -> list[_Box]:
    """The cell of each step.

    Raises:
        MdpotError: there is none, several, or none for some step.
    """
    inputs = _inputs(path, cells.stem)
    pbc = next(iter(inputs.values())).pbc if len({box.pbc for box in inputs.values()}) == 1 else (True, True, True)
    if cells.is_file():
        return [_Box(cell, pbc if cell.any() else (False, False, False)) for cell in _cell_rows(cells, steps)]
    if not inputs:
        raise MdpotError(
            f"{path}: CP2K's trajectories state no cell, and neither {cells.name} nor an input (.inp, .restart) with a "
            f"section &CELL in numbers is beside it. {_how(cells.stem)}"
        )
    first, box = next(iter(inputs.items()))
    for name, other in inputs.items():
        if not _are_same(other, box):
            raise MdpotError(f"{path}: its cell is another one in {first} than in {name}. {_how(cells.stem)}")
        if _VARIABLE.search(decode(read_bytes(path.with_name(name)))):
            raise MdpotError(
                f"{path}: the cell changes from step to step by {name}, and {cells.name}, which would have it, is not "
                "there. CP2K writes it by &MOTION / &PRINT / &CELL."
            )
    return [box] * len(steps)


def _cell_rows(path: Path, steps: Sequence[int]) -> list[np.ndarray]:
    """The lattice vectors [3, 3] of each step: rows of step, time, nine numbers and the volume, or the nine alone."""
    lines = [line.split() for line in decode(read_bytes(path)).splitlines() if line.split("#")[0].strip()]
    try:
        rows = [[float(word) for word in line] for line in lines]
    except ValueError:
        rows = []
    if not rows or any(len(row) not in (9, 11, 12) for row in rows):
        raise MdpotError(
            f"{path}: a file of CP2K's cells has rows of the step, the time, nine numbers in Å and the volume; or "
            "write the nine numbers alone, in one row."
        )
    vectors = [np.array(row if len(row) == 9 else row[2:11]).reshape(3, 3) for row in rows]
    if all(np.array_equal(other, vectors[0]) for other in vectors):
        return [vectors[0]] * len(steps)
    by_step: Mapping[int, np.ndarray] = {int(row[0]): v for row, v in zip(rows, vectors, strict=True) if len(row) > 9}
    for step in steps:
        if step not in by_step:
            raise MdpotError(f"{path}: it has no cell of step {step}, which the positions have.")
    return [by_step[step] for step in steps]


def _inputs(path: Path, run: str) -> dict[str, _Box]:
    """The cells in the inputs and restart files beside a trajectory, by the names of these; those that are called as
    the project, where there are some.

    Raises:
        MdpotError: an input with several.
    """
    found: dict[str, list[_Box | None]] = {}
    for file in sorted(path.parent.iterdir()):
        if file.suffix not in (".inp", ".restart") or not file.is_file() or not file.stat().st_size:
            continue
        boxes = [_box(section) for section in _sections(decode(read_bytes(file)))]
        if any(box is not None for box in boxes):
            found[file.name] = boxes
    own = {name: boxes for name, boxes in found.items() if name.rpartition(".")[0] in (run, run.rpartition("-")[0])}
    taken: dict[str, _Box] = {}
    for name, boxes in (own or found).items():
        first = boxes[0]
        if first is None or not all(box is not None and _are_same(box, first) for box in boxes):
            raise MdpotError(f"{path}: {name} has {len(boxes)} sections &SUBSYS with different cells. {_how(run)}")
        taken[name] = first
    return taken


def _are_same(box: _Box, other: _Box) -> bool:
    return box.pbc == other.pbc and np.allclose(box.cell, other.cell, atol=1e-4)


def _how(run: str) -> str:
    """What to do where no cell is found."""
    return (
        f"Write {run}.cell beside it, a line with the nine numbers of the lattice vectors in Å (zeros for molecules in "
        "no cell)."
    )


def _sections(text: str) -> Iterator[list[list[str]]]:
    """The words of the lines of each section &CELL of a system, without those of the sections in it.

    That is one in &SUBSYS, or at the top of a part of an input; others are those of QM/MM or of what is printed.
    """
    inside: list[list[str]] = []
    around: list[str] = []
    for line in text.splitlines():
        words = re.split(r"[!#]", line)[0].split()
        if not words:
            continue
        if words[0].upper().startswith("&END"):
            if _is_cell(around):
                yield inside
                inside = []
            del around[-1:]
        elif words[0].startswith("&"):
            around.append(words[0].upper())
        elif _is_cell(around):
            inside.append(words)


def _is_cell(around: Sequence[str]) -> bool:
    """Whether the innermost section of some is the cell of a system."""
    return bool(around) and around[-1] == "&CELL" and (len(around) == 1 or around[-2] == "&SUBSYS")


def _box(section: Sequence[Sequence[str]]) -> _Box | None:
    """The cell of a section &CELL; None where it is not given in numbers."""
    words = {key.upper(): rest for key, *rest in section}
    if words.get("MULTIPLE_UNIT_CELL", ["1"] * 3) != ["1"] * 3:
        return None
    periodic = "".join(words.get("PERIODIC", ["XYZ"])).upper()
    pbc = ("X" in periodic, "Y" in periodic, "Z" in periodic)
    if not any(pbc):
        return _Box(np.zeros((3, 3)), pbc)
    try:
        if "ABC" in words:
            angles = words.get("ALPHA_BETA_GAMMA", words.get("ANGLES", ["90"] * 3))
            edges, degrees = _lengths(words["ABC"]), [float(word) for word in angles if not word.startswith("[")]
            return _Box(Cell.fromcellpar([*edges, *degrees]).array, pbc)
        return _Box(np.array([_lengths(words[key]) for key in "ABC"]), pbc)
    except (KeyError, ValueError):  # variables, or a file of its own
        return None


def _lengths(words: Sequence[str]) -> list[float]:
    """Three lengths, Å, the unit of which may stand before them in brackets."""
    units = [word.strip("[]") for word in words if word.startswith("[")]
    factor = LENGTHS[canonical("length", units[0])] if units else 1.0
    numbers = [float(word) * factor for word in words if not word.startswith("[")]
    if len(numbers) != 3:
        raise ValueError(words)
    return numbers
