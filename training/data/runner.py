"""RuNNer and n2p2 `input.data` files, plain or gzipped: Hartree, bohr, Hartree/bohr."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, make_groups
from mdpot.units import BOHR, HARTREE, HARTREE_PER_BOHR

_SYMBOL_COLUMN = 4
_NUMBER_COLUMNS = (1, 2, 3, 7, 8, 9)  # x y z, fx fy fz of `atom x y z element charge unused fx fy fz`
_N_COLUMNS = 10
_SOURCE_FRAME = re.compile(r"source_frame\s+(\S+)")


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it is gzipped, whatever its name ends with.

    Raises:
        MdpotError: no such file, or a damaged or truncated gzip file.
    """
    if not path.is_file():
        raise MdpotError(f"{path}: no such file. Check the path.")
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise MdpotError(f"{path}: the gzip file is truncated or damaged ({error}). Copy it again.") from None


def read_runner(path: Path | str) -> list[Frame]:
    """The frames of a RuNNer `input.data` file.

    A frame is periodic where it has three `lattice` lines. Its group is N where its comment says
    `source_frame N` (the form that mdpot's own files have), and else as `make_groups` says.

    Args:
        path: the file, plain or gzipped.

    Returns:
        The frames in eV and Å.

    Raises:
        MdpotError: no such file, empty, truncated, not of this format, or a line that cannot be read.
    """
    path = Path(path)
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    frames: list[Frame] = []
    names: list[str] = []
    begin = None
    for index, line in enumerate(lines):
        word = line.split(None, 1)[0] if line[:4] != "atom" and line.strip() else line[:4]
        if begin is None:
            if word == "begin":
                begin = index
            elif word.strip():
                raise MdpotError(
                    f"{path}, line {index + 1}: a frame starts with 'begin'; got {line.strip()[:60]!r}. "
                    "Is it a RuNNer input.data file?"
                )
        elif word == "end":
            frame, name = _frame(path, lines, begin, index)
            frames.append(frame)
            names.append(name)
            begin = None
        elif word == "begin":
            raise MdpotError(f"{path}, line {index + 1}: a second 'begin': the frame of line {begin + 1} has no 'end'.")
    if begin is not None:
        raise MdpotError(
            f"{path}: truncated: frame {len(frames)} begins in line {begin + 1} and has no 'end'. Copy the file again."
        )
    if not frames:
        raise MdpotError(f"{path}: empty: it holds no frame.")
    for frame, group in zip(frames, make_groups(names), strict=True):
        frame.group = group
    return frames


def first_comment(path: Path) -> str:
    """The comment of the first frame, "" where it has none; it may say what labelled the file."""
    for line in read_bytes(path)[:4096].decode("utf-8", "replace").splitlines():
        if line.lstrip().startswith("comment"):
            return line.lstrip()[len("comment") :].strip()
    return ""


def _frame(path: Path, lines: Sequence[str], begin: int, end: int) -> tuple[Frame, str]:
    """The frame between the lines `begin` and `end`, and the group it names ("" for none)."""
    atoms: list[str] = []
    lattice: list[list[float]] = []
    energy = None
    name = ""
    for index in range(begin + 1, end):
        line = lines[index]
        if line.startswith("atom"):
            atoms.append(line)
            continue
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "atom":
                atoms.append(line.strip())
            elif word == "lattice":
                lattice.append([float(x) for x in rest.split()[:3]])
            elif word == "energy":
                energy = float(rest) * HARTREE
            elif word == "comment" and (match := _SOURCE_FRAME.search(rest)):
                name = match.group(1)
        except ValueError:
            raise MdpotError(f"{path}, line {index + 1}: cannot read {line.strip()[:60]!r}.") from None
    numbers, positions, forces = _atoms(path, lines, begin, end, atoms)
    if len(lattice) not in (0, 3) or any(len(row) != 3 for row in lattice):
        raise MdpotError(
            f"{path}, frame that begins in line {begin + 1}: a frame has three lattice lines of three "
            f"numbers each, or none; got {len(lattice)} lines."
        )
    frame = Frame(
        numbers=numbers,
        positions=positions,
        cell=np.array(lattice) * BOHR if lattice else np.zeros((3, 3)),
        pbc=np.full(3, bool(lattice)),
        energy=energy,
        forces=forces,
    )
    return frame, name


def _atoms(
    path: Path, lines: Sequence[str], begin: int, end: int, atoms: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [n_atoms], positions [n_atoms, 3] in Å and forces [n_atoms, 3] in eV/Å of the atom
    lines."""
    if not atoms:
        raise MdpotError(f"{path}, frame that begins in line {begin + 1}: it has no atom lines.")
    try:
        # numpy parses the block in C; it refuses rows of too few columns and words that are no numbers.
        block = np.loadtxt(atoms, usecols=_NUMBER_COLUMNS, ndmin=2, comments=None)
        symbols = [line.split(None, _SYMBOL_COLUMN + 1)[_SYMBOL_COLUMN] for line in atoms]
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
    except (ValueError, KeyError, IndexError):
        raise _bad_atom(path, lines, begin, end) from None
    return numbers, block[:, :3] * BOHR, block[:, 3:] * HARTREE_PER_BOHR


def _bad_atom(path: Path, lines: Sequence[str], begin: int, end: int) -> MdpotError:
    """The error for the first atom line between `begin` and `end` that cannot be read."""
    for index in range(begin + 1, end):
        words = lines[index].split()
        if not words or words[0] != "atom":
            continue
        where = f"{path}, line {index + 1}"
        if len(words) < _N_COLUMNS:
            rule = "an atom line is `atom x y z element charge unused fx fy fz`"
            return MdpotError(f"{where}: {rule}; got {len(words)} columns. Training needs the forces.")
        if words[_SYMBOL_COLUMN] not in atomic_numbers:
            return MdpotError(f"{where}: {words[_SYMBOL_COLUMN]!r} is no element.")
        try:
            [float(words[column]) for column in _NUMBER_COLUMNS]
        except ValueError:
            return MdpotError(f"{where}: cannot read the numbers of {lines[index].strip()[:80]!r}.")
    return MdpotError(f"{path}, frame that begins in line {begin + 1}: cannot read its atoms.")
