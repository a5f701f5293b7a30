"""RuNNer and n2p2 `input.data` files, plain or packed: Hartree, bohr, Hartree/bohr."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mdpot.electrons import Electrons
from mdpot.errors import MdpotError, unknown
from mdpot.structures import decode, read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw, finish
from mdpot.training.data.units import ATOMIC, Units
from mdpot.xyz import ISOTOPES

KEYWORDS = ("begin", "comment", "lattice", "atom", "energy", "charge", "end")

_SYMBOL_COLUMN = 4
_NUMBER_COLUMNS = (1, 2, 3, 7, 8, 9)  # x y z, fx fy fz of `atom x y z element charge unused fx fy fz`
_N_COLUMNS = 10
_SOURCE_FRAME = re.compile(r"source_frame\s+(\S+)")


def read_runner(path: Path | str) -> list[Frame]:
    """All frames of a RuNNer `input.data` file in eV and Å, labeled or not; see `parse_runner`."""
    return finish(parse_runner(path), (), Path(path)).frames


def parse_runner(path: Path | str, units: Units = ATOMIC) -> Raw:
    """What a RuNNer `input.data` file holds.

    Words are separated by any white space, keywords are in any case, and lines that begin with "#" are left out. A
    frame is periodic where it has three `lattice` lines. Its group is N where its comment says `source_frame N` (the
    form that mdpot's own files have).

    Args:
        path: the file, plain or packed.
        units: of the file.

    Raises:
        MdpotError: no such file, empty, truncated, not of this format, an unknown keyword, or a line that cannot be
            read.
    """
    path = Path(path)
    lines = decode(read_bytes(path)).splitlines()
    frames: list[Frame] = []
    begin = None
    for index, line in enumerate(lines):
        if begin is not None and line[:4] == "atom":  # nearly all lines
            continue
        word = (line.split(None, 1) or [""])[0].lower()
        if begin is None:
            if word == "begin":
                begin = index
            elif word and not word.startswith("#"):
                raise MdpotError(
                    f"{path}, line {index + 1}: a frame starts with 'begin'; got {line.strip()[:60]!r}. "
                    "Is it a RuNNer input.data file?"
                )
        elif word == "end":
            frames.append(_frame(path, lines, begin, index, len(frames)))
            begin = None
        elif word == "begin":
            raise MdpotError(f"{path}, line {index + 1}: a second 'begin': the frame of line {begin + 1} has no 'end'.")
    if begin is not None:
        raise MdpotError(
            f"{path}: truncated: frame {len(frames)} begins in line {begin + 1} and has no 'end'. Copy the file again."
        )
    if not frames:
        raise MdpotError(f"{path}: empty: it holds no frame.")
    return Raw(frames, Keys("energy", "forces"), units)


def first_comment(path: Path) -> str:
    """The comment of the first frame, "" where it has none; it may say what labelled the file."""
    for line in read_bytes(path)[:4096].decode("utf-8", "replace").splitlines():
        if line.lstrip().startswith("comment"):
            return line.lstrip()[len("comment") :].strip()
    return ""


def _frame(path: Path, lines: Sequence[str], begin: int, end: int, index: int) -> Frame:
    """The frame between the lines `begin` and `end`, in the units of the file."""
    atoms: list[str] = []
    lattice: list[list[float]] = []
    energy, charge = None, 0
    name = ""
    for number in range(begin + 1, end):
        line = lines[number]
        if line.startswith("atom"):
            atoms.append(line)
            continue
        word, rest = (*line.split(None, 1), "", "")[:2]
        try:
            match word.lower():
                case "atom":
                    atoms.append(line)
                case "lattice":
                    lattice.append([float(x) for x in rest.split()[:3]])
                case "energy":
                    energy = float(rest.split()[0])
                case "comment":
                    found = _SOURCE_FRAME.search(rest)
                    name = found.group(1) if found else name
                case "charge":
                    charge = round(float(rest.split()[0]))
                case "":
                    pass
                case other:
                    if not other.startswith("#"):
                        raise MdpotError(
                            f"{path}, line {number + 1}: {unknown('keyword of a RuNNer file', word, KEYWORDS)}"
                        )
        except (ValueError, IndexError) as error:
            if isinstance(error, MdpotError):
                raise
            raise MdpotError(f"{path}, line {number + 1}: cannot read {line.strip()[:60]!r}.") from None
    numbers, positions, forces = _atoms(path, lines, begin, end, atoms)
    if len(lattice) not in (0, 3) or any(len(row) != 3 for row in lattice):
        raise MdpotError(
            f"{path}, frame that begins in line {begin + 1}: a frame has three lattice lines of three "
            f"numbers each, or none; got {len(lattice)} lines."
        )
    return Frame(
        numbers=numbers,
        positions=positions,
        cell=np.array(lattice) if lattice else np.zeros((3, 3)),
        pbc=np.full(3, bool(lattice)),
        energy=energy,
        forces=forces,
        group=name,
        index=index,
        electrons=Electrons(charge or None),  # zero is what programs write that know none
    )


def _atoms(
    path: Path, lines: Sequence[str], begin: int, end: int, atoms: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [n_atoms], positions [n_atoms, 3] and forces [n_atoms, 3] of the atom lines."""
    if not atoms:
        raise MdpotError(f"{path}, frame that begins in line {begin + 1}: it has no atom lines.")
    try:
        # numpy parses the block in C; it refuses rows of too few columns and words that are no numbers.
        block = np.loadtxt(atoms, usecols=_NUMBER_COLUMNS, ndmin=2, comments=None)
        symbols = [line.split(None, _SYMBOL_COLUMN + 1)[_SYMBOL_COLUMN] for line in atoms]
        numbers = np.array([_number(symbol) for symbol in symbols], dtype=np.int64)
    except (ValueError, KeyError, IndexError):
        raise _bad_atom(path, lines, begin, end) from None
    return numbers, block[:, :3], block[:, 3:]


def _bad_atom(path: Path, lines: Sequence[str], begin: int, end: int) -> MdpotError:
    """The error for the first atom line between `begin` and `end` that cannot be read."""
    for index in range(begin + 1, end):
        words = lines[index].split()
        if not words or words[0].lower() != "atom":
            continue
        where = f"{path}, line {index + 1}"
        if len(words) < _N_COLUMNS:
            rule = "an atom line is `atom x y z element charge unused fx fy fz`"
            return MdpotError(f"{where}: {rule}; got {len(words)} columns. Training needs the forces.")
        try:
            _number(words[_SYMBOL_COLUMN])
        except KeyError:
            return MdpotError(f"{where}: {words[_SYMBOL_COLUMN]!r} is no element.")
        try:
            [float(words[column]) for column in _NUMBER_COLUMNS]
        except ValueError:
            return MdpotError(f"{where}: cannot read the numbers of {lines[index].strip()[:80]!r}.")
    return MdpotError(f"{path}, frame that begins in line {begin + 1}: cannot read its atoms.")


def _number(symbol: str) -> int:
    """The atomic number of a symbol in any case; D and T are hydrogen."""
    if symbol in atomic_numbers:
        return atomic_numbers[symbol]
    return 1 if symbol in ISOTOPES else atomic_numbers[symbol.capitalize()]
