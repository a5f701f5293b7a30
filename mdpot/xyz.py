"""XYZ files, plain and extended, in the dialects that people write, as ASE `Atoms`.

ASE's reader builds the structures. What it does not know is put into its terms before: keys in any case, cells under
other names or in a comment of i-PI, stresses of six numbers, exponents of Fortran, atomic numbers and the isotopes D
and T in place of symbols. What it would take for something else is refused, with the line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import atomic_numbers, chemical_symbols
from ase.io.extxyz import key_val_str_to_dict, read_xyz
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.errors import MdpotError
from mdpot.units import BOHR

#: Mass numbers of the isotopes that have symbols of their own.
ISOTOPES = {"D": 2.01410177811, "T": 3.01604928199}
#: What programs call atoms that are none.
DUMMIES = ("X", "Xx", "Gh", "Bq", "Du", "0")
_ELEMENTS = atomic_numbers.keys() - {"X"}
NO_ELEMENTS = "atom types are numbers, not elements; add an element column (dump_modify ID element O H ...)"
_PLAIN = "species:S:1:pos:R:3"
_IPI_CELL = re.compile(r"CELL[({](?P<form>\w+)[)}]:?\s+(?P<numbers>(?:[-+.\deE]+\s+)+)", re.I)
_IPI_UNITS = re.compile(r"(positions|x_centroid|cell)\{(\w+)\}")
_LENGTHS = {"angstrom": 1.0, "ase": 1.0, "atomic_unit": BOHR, "nanometer": 10.0}
_FORTRAN = re.compile(r"(?<![\w.+-])([-+]?(?:\d+\.\d*|\.\d+))[dD]([-+]?\d+)(?![\w.])")
# ASE refuses frames where these three are not nine numbers; with a mark behind them it reads what is there.
_MATRIX = re.compile(r"(?<!\S)(Lattice|virial|stress)(?=[\s=]|$)")
_MARK = "\ue000"
_NESTED = re.compile(r"=\s*(\[\s*\[[^\"']*?\]\s*\])")
_PBC = re.compile(r"(?<!\S)(pbc|periodic)\s*=\s*(?:([\"']?)([TF01])([TF01])([TF01])\2(?!\S))?", re.I)
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_FLAGS = {"t": True, "true": True, "1": True, "1.0": True, "f": False, "false": False, "0": False, "0.0": False}
_TRIPLES = re.compile(r"\w+:[a-z]:\d+(:\w+:[a-z]:\d+)*:?", re.I)
#: Å; what is called a cell and has no longer edge is a number of repeats.
SHORTEST_EDGE = 3
_ABSENT = ("none", "null", "nan", "")


def is_xyz(start: bytes) -> bool:
    """Whether a file that begins so is XYZ: its first line is a number of atoms."""
    return start.lstrip(b"\xef\xbb\xbf \n\r\t").split(b"\n", 1)[0].strip().isdigit()


def parse_xyz(path: Path, text: str) -> list[Atoms]:
    """The structures of an XYZ file.

    Args:
        path: for messages.
        text: its content, with "\\n" at the ends of lines.

    Raises:
        MdpotError: truncated or miscounted; a row, an element, or a key of the comment that is not what it must be.
    """
    return [_frame(path, *block) for block in blocks(path, text)]


def blocks(path: Path, text: str) -> Iterator[tuple[int, str, Sequence[str]]]:
    """Of each frame its first line's number, comment and atom lines; refuses what is cut off or miscounted."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    at = 0
    while at < len(lines):
        if not lines[at].strip():  # blank lines between frames
            at += 1
            continue
        if not lines[at].strip().isdecimal():
            raise MdpotError(
                f"{path}, line {at + 1}: a frame begins with its number of atoms; got {lines[at].strip()[:60]!r}. "
                "Has the frame before it more lines than it says?"
            )
        n_atoms = int(lines[at].strip())
        if n_atoms == 0:
            raise MdpotError(f"{path}, line {at + 1}: a frame must have at least one atom; this one has 0.")
        if at + 2 + n_atoms > len(lines):
            raise MdpotError(
                f"{path}: truncated: the frame of line {at + 1} has {n_atoms} atoms, and the file ends after "
                f"{max(len(lines) - at - 2, 0)} of them. Copy it again."
            )
        yield at + 1, lines[at + 1], lines[at + 2 : at + 2 + n_atoms]
        at += 2 + n_atoms


def _frame(path: Path, first: int, comment: str, lines: Sequence[str]) -> Atoms:
    """A structure of its comment, in line `first` + 1, and the lines of its atoms, which follow."""
    try:
        info = read_comment(comment)
        columns = _columns(info.get("Properties", _PLAIN))
        cell = _ipi_cell(comment)
    except (MdpotError, ValueError) as error:
        raise MdpotError(f"{path}, line {first + 1}: {error}") from None
    info["Properties"] = ":".join(":".join(column) for column in columns)
    atoms, masses = None, None
    with suppress(Exception):  # whatever ASE's parsers raise
        atoms = _structure(lines, info)
    if atoms is None or not atoms.numbers.all():
        atoms, masses = _unusual(path, first, comment, lines, columns, info)
    if cell is not None and not np.any(atoms.cell.array):
        box, scale = cell
        atoms.positions *= scale
        atoms.set_cell(box)
        atoms.pbc = True
    if masses is not None and not np.isnan(masses).all():
        atoms.arrays["masses"] = np.where(np.isnan(masses), atoms.get_masses(), masses)
    return atoms


def _structure(lines: Sequence[str], info: dict[str, Any]) -> Atoms:
    """What ASE's reader makes of the lines of atoms and a comment that is read."""
    # A word stands for the comment, for of an empty one ASE's reader asks nobody.
    text = "\n".join([str(len(lines)), "-", *lines, ""])
    return next(read_xyz(io.StringIO(text), index=0, properties_parser=lambda _: dict(info)))


def _unusual(
    path: Path,
    first: int,
    comment: str,
    lines: Sequence[str],
    columns: Sequence[tuple[str, str, str]],
    info: dict[str, Any],
) -> tuple[Atoms, np.ndarray | None]:
    """What ASE's reader takes with atomic numbers, isotopes or exponents of Fortran in its own terms, and the masses of
    isotopes, see `_rewrite_symbols`; else why it does not."""
    rows = [line.split() for line in lines]
    n_columns = sum(int(column[2]) for column in columns)
    for number, row in enumerate(rows, first + 2):
        if len(row) < n_columns:
            raise MdpotError(
                f"{path}, line {number}: {len(row)} columns, where {info['Properties']} asks for {n_columns}, in a "
                f"frame of {len(rows)} atoms (line {first})."
            )
        if (word := next((word for word in row if _DECIMAL_COMMA.fullmatch(word)), None)) is not None:
            raise MdpotError(
                f"{path}, line {number}: {word!r} has a decimal comma, of the language of the machine that wrote it. "
                "Write points."
            )
    masses = _rewrite_symbols(rows, columns, comment, f"{path}, line", first + 2)
    try:
        return _structure([_FORTRAN.sub(r"\1e\2", " ".join(row)) for row in rows], info), masses
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MdpotError(
            f"{path}: the frame of line {first} cannot be read ({reason[:200]}). Check the file, or convert it."
        ) from None


def columns_unread(comment: str, row: str) -> int:
    """How many columns a row of an atom has beyond those that the comment of its frame names."""
    named = _columns(read_comment(comment).get("Properties", _PLAIN))
    return len(row.split()) - sum(int(count) for *_, count in named)


def read_comment(comment: str) -> dict[str, Any]:
    """What the comment of extended XYZ says by key, in the terms of ASE's reader.

    `Lattice`, `Properties` and `pbc` count in any case, the usual one first. Without a lattice, nine numbers under
    `cell` or `box` are it (the vectors one after the other), six are lengths and angles, and three the edges of an
    orthorhombic cell. A stress or virial has nine numbers, in nested brackets or not, or six in Voigt's order, xx yy zz
    yz xz xy; NaN or None is none.

    Raises:
        MdpotError: a lattice, a stress, or a `pbc` that is none.
    """
    text = _PBC.sub(_spaced, _NESTED.sub(r'="\1"', _FORTRAN.sub(r"\1e\2", _MATRIX.sub(rf"\1{_MARK}", comment))))
    info: dict[str, Any] = {}
    for key, value in key_val_str_to_dict(text).items() if text.strip() else ():
        key = str(key).replace(_MARK, "")
        if isinstance(value, str):
            value = value.replace(_MARK, "")
        if value is True and key.lower() in ("lattice", "properties", "stress", "virial"):
            continue  # a word of a sentence
        info[key] = value
    for name, fits in (("Lattice", _is_lattice), ("Properties", _is_properties)):
        for key in [key for key in info if key != name and key.lower() == name.lower() and fits(info[key])]:
            info.setdefault(name, info.pop(key))
    if info.get("pbc") is True and not re.search(r"(?<!\S)pbc\s*=", comment, re.I):
        del info["pbc"]  # a word, too
    for key in [key for key in info if "stress" in key.lower() or "virial" in key.lower()]:
        _set_stress(info, key)
    _set_lattice(info)
    _set_pbc(info)
    return info


def _spaced(found: re.Match[str]) -> str:
    """`pbc=TTF` as pbc="T T F"."""
    key, _, *flags = found.groups(default="")
    return f"{key.lower()}=" + (f'"{" ".join(flags).upper()}"' if flags[0] else "")


def _numbers(value: Any) -> np.ndarray | None:
    """All numbers of a value, brackets or not, [n]; None for what is no numbers."""
    if isinstance(value, str):
        try:
            return np.array(re.sub(r"[\[\](){},]", " ", value).split(), dtype=np.float64)
        except ValueError:
            return None
    array = np.asarray(value)
    return array.ravel().astype(np.float64) if array.dtype.kind in "if" else None


def _is_lattice(value: Any) -> bool:
    numbers = _numbers(value)
    return numbers is not None and numbers.size in (3, 9)


def _is_properties(value: Any) -> bool:
    return _TRIPLES.fullmatch(str(value).strip()) is not None


def _set_stress(info: dict[str, Any], key: str) -> None:
    numbers = _numbers(info[key])
    if numbers is not None and numbers.size == 6:
        numbers = voigt_6_to_full_3x3_stress(numbers).ravel()
    if numbers is not None and numbers.size == 9:
        info[key] = numbers.reshape(3, 3).T if key in ("stress", "virial") else numbers
    elif key in ("stress", "virial"):
        value = info.pop(key)
        if str(value).strip().lower() not in _ABSENT:
            raise MdpotError(f"{key} must be six or nine numbers; got {str(value)[:60]!r}.")


def _set_lattice(info: dict[str, Any]) -> None:
    keys = ["Lattice"] if "Lattice" in info else [key for key in info if key.lower() in ("cell", "box")]
    for key in keys:
        numbers = _numbers(info[key])
        is_none = numbers is None or numbers.size == 1 or (numbers.size == 3 and numbers.max() < SHORTEST_EDGE)
        if key != "Lattice" and is_none:
            continue  # the name of a cell, its number, or how often it is repeated
        if numbers is None or numbers.size not in (3, 6, 9):
            raise MdpotError(
                f"{key} must be nine numbers, the lattice vectors one after the other, six, lengths and angles, or "
                f"three, the edges of an orthorhombic cell; got {str(info[key])[:60]!r}. Write it as Lattice."
            )
        del info[key]
        if key == "Lattice" or numbers.any():
            info["Lattice"] = numbers.reshape(3, 3).T if numbers.size == 9 else Cell.new(numbers).array.T
            return


def _set_pbc(info: dict[str, Any]) -> None:
    if "pbc" in info:
        flags = _flags(info["pbc"])
        if flags is None:
            raise MdpotError(f'pbc must be T or F, or three of them as in "T T F"; got {str(info["pbc"])[:60]!r}.')
        info["pbc"] = flags
    elif "Lattice" in info and (flags := _flags(info.get("periodic"))) is not None:
        info["pbc"] = flags


def _flags(value: Any) -> list[bool] | None:
    words = value.replace(",", " ").split() if isinstance(value, str) else np.ravel(value).tolist()
    flags = [_FLAGS.get(str(word).lower()) for word in words]
    if len(flags) not in (1, 3) or None in flags:
        return None
    return [bool(flag) for flag in flags] * (3 // len(flags))


def _columns(properties: Any) -> list[tuple[str, str, str]]:
    """Name, type and number of columns of each property of an atom.

    Raises:
        MdpotError: not a list of them, or one without elements or without positions.
    """
    fields = str(properties).strip().strip(":").split(":")
    if len(fields) % 3 or not all(count.isdecimal() for count in fields[2::3]):
        raise MdpotError(f"Properties must be NAME:TYPE:COLUMNS, one after the other, as {_PLAIN}; got {properties!r}.")
    columns = []
    for name, kind, count in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        if name.lower() in ("species", "pos"):
            name = name.lower()
        columns.append((name, "S" if name == "species" else kind.upper(), count))
    names = {name for name, *_ in columns}
    for what, known in (("elements", ("species", "symbols", "Z", "numbers")), ("positions", ("pos", "positions"))):
        if names.isdisjoint(known):
            raise MdpotError(f"Properties names no {what} ({known[0]}); got {properties!r}.")
    return columns


def _rewrite_symbols(
    rows: Sequence[list[str]], columns: Sequence[tuple[str, str, str]], comment: str, where: str, first: int
) -> np.ndarray | None:
    """Puts symbols into rows that have atomic numbers, D or T in their place.

    Returns:
        [n_atoms] masses, u, of the atoms that are D or T, NaN for the others; None where all are symbols already.

    Raises:
        MdpotError: what is no element.
    """
    names = [name for name, *_ in columns]
    name = next((name for name in ("species", "symbols") if name in names), None)
    if name is None or not {"Z", "numbers"}.isdisjoint(names):
        return None
    at = sum(int(count) for *_, count in columns[: names.index(name)])
    if all(row[at].capitalize() in _ELEMENTS for row in rows):
        return None
    masses = np.full(len(rows), np.nan)
    for k, row in enumerate(rows):
        word = row[at]
        if word in ISOTOPES:
            row[at], masses[k] = "H", ISOTOPES[word]
        elif word.capitalize() in DUMMIES:
            raise MdpotError(f"{where} {first + k}: {word!r} is a dummy or ghost atom, no element. Take it out.")
        elif word.isdecimal() and comment.startswith("Atoms. Timestep"):  # so LAMMPS's `dump xyz` begins
            raise MdpotError(f"{where} {first + k}: {NO_ELEMENTS}.")
        elif word.isdecimal() and int(word) < len(chemical_symbols):
            row[at] = chemical_symbols[int(word)]
        elif word.capitalize() not in _ELEMENTS:
            raise MdpotError(
                f"{where} {first + k}: {word!r} is no element. Write symbols, such as O or Fe, or atomic numbers."
            )
    return masses


def _ipi_cell(comment: str) -> tuple[np.ndarray, float] | None:
    """The cell [3, 3], Å, that a comment of i-PI states, and what its positions are to be multiplied by."""
    match = _IPI_CELL.search(comment)
    if match is None:
        return None
    units = {what: _LENGTHS.get(unit) for what, unit in _IPI_UNITS.findall(comment)}
    if None in units.values():
        raise MdpotError(f"units in a comment of i-PI must be one of {', '.join(_LENGTHS)}; got {comment.strip()!r}.")
    numbers = np.array([float(x) for x in match["numbers"].split()])
    # i-PI's own default is atomic units.
    cell_unit = units.get("cell") or BOHR
    position_unit = units.get("positions") or units.get("x_centroid") or BOHR
    if match["form"].upper() == "ABCABC" and len(numbers) >= 6:
        cell = Cell.fromcellpar(numbers[:6]).array
    elif match["form"].upper() in ("H", "GENH") and len(numbers) >= 9:
        cell = numbers[:9].reshape(3, 3).T  # i-PI's vectors are columns
    else:
        return None
    return cell * cell_unit, position_unit
