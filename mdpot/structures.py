"""Structure files as people have them: whatever ASE reads, under any name and in any encoding, as ASE `Atoms`.

What a file holds is told by its content where ASE tells it by the name: a name may hold "@", which ASE takes for an
index; a text may begin with a byte order mark, or be in Latin-1. Three dialects of XYZ are read that ASE does not
know: a stress of six numbers, the symbols D and T of the isotopes of hydrogen, and the cell that i-PI writes into the
comment.
"""

from __future__ import annotations

import codecs
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.errors import MdpotError
from mdpot.packed import unpacked
from mdpot.units import BOHR

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
#: Mass numbers of the isotopes that have symbols of their own.
ISOTOPES = {"D": 2.01410177811, "T": 3.01604928199}
_ISOTOPE = re.compile(r"^(\s*)([DT])(?=\s)", re.M)
_SIX_NUMBERS = re.compile(
    r"""(\b\w*(?:stress|virial)\w*=)(["'{\[])\s*([-+.\deE]+(?:[\s,]+[-+.\deE]+){5})\s*(["'}\]])""", re.I
)
_IPI_CELL = re.compile(r"CELL[({](?P<form>\w+)[)}]:?\s+(?P<numbers>(?:[-+.\deE]+\s+)+)", re.I)
_IPI_UNITS = re.compile(r"(positions|cell)\{(\w+)\}")
_LENGTHS = {"angstrom": 1.0, "ase": 1.0, "atomic_unit": BOHR, "nanometer": 10.0}


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where it is packed (gzip, bzip2, xz).

    Raises:
        MdpotError: no such file, empty, or a packed file that is damaged or truncated.
    """
    if path.is_dir():
        raise MdpotError(f"{path}: a folder; give the file with the frames.")
    if not path.exists():
        raise MdpotError(f"{path}: no such file. Check the path.")
    if not path.is_file():
        raise MdpotError(f"{path}: not a regular file.")
    data = unpacked(path, path.read_bytes())
    if not data.strip(b"\0 \t\r\n"):
        raise MdpotError(f"{path}: empty: it holds no frame.")
    return data


def decode(data: bytes) -> str:
    """Text in UTF-8 or, by its mark, UTF-16, else in Latin-1; without the mark, and with "\\n" at the ends of lines."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_structures(path: Path | str) -> list[Atoms]:
    """All structures of a file in any format that ASE reads.

    Args:
        path: the file, plain or packed.

    Returns:
        At least one structure, with what the file says of it in `info`, `arrays` and the calculator's results. D and T
        are hydrogen with the mass of the isotope.

    Raises:
        MdpotError: no such file, empty, truncated, or not of a format that ASE knows; the reason is the reader's.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE's readers warn about fields that are not used here.
            structures = _read_xyz(path, data) if _is_xyz(path, data) else _read_other(path, data)
    except MdpotError:
        raise
    except UnknownFileTypeError:
        raise MdpotError(
            f"{path}: not a format that is known here: neither its name nor its first lines are those of extended XYZ, "
            "RuNNer, VASP's ML_AB, npz, or one that ASE reads. Convert it to extended XYZ."
        ) from None
    # ASE's many readers raise whatever their parsers do (IndexError, StopIteration, KeyError, ...).
    except Exception as error:
        text = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise MdpotError(f"{path}: cannot be read ({reason[:200]}). Check the file, or convert it.") from None
    if not structures:
        raise MdpotError(f"{path}: it holds no frame.")
    return structures


def _is_xyz(path: Path, data: bytes) -> bool:
    """Whether a file is XYZ, plain or extended: a count of atoms in its first line, and four columns in its third."""
    lines = decode(data[:100_000]).lstrip("\n").split("\n", 3)
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        return False
    if int(lines[0]) == 0 or "Properties=" in lines[1] or "Lattice=" in lines[1]:
        return True
    words = lines[2].split()
    return len(words) >= 4 and path.suffix != ".dat" and not words[0].lstrip("+-").replace(".", "").isdecimal()


def _read_other(path: Path, data: bytes) -> list[Atoms]:
    # ASE unpacks what its name says is packed.
    kind = filetype(str(path), guess=True)
    structures = read(path, index=":", format=kind, do_not_split_by_at_sign=True)
    return structures if isinstance(structures, list) else [structures]


def _read_xyz(path: Path, data: bytes) -> list[Atoms]:
    text = decode(data)
    blocks = list(_blocks(path, text))
    cells = [_ipi_cell(comment) for comment, _ in blocks]
    masses = [_isotopes(lines) for _, lines in blocks] if _ISOTOPE.search(text) else [None] * len(blocks)
    # Anew, for ASE's reader ends at a blank line between frames.
    text = "".join(_rewritten(*block, mass is not None) for block, mass in zip(blocks, masses, strict=True))
    # From memory: ASE's reader seeks back and forth, which costs a minute in a gzipped file.
    structures = read(io.StringIO(text), index=":", format="extxyz")
    assert isinstance(structures, list)
    for atoms, cell, mass in zip(structures, cells, masses, strict=True):
        if cell is not None and not np.any(atoms.cell.array):
            box, scale = cell
            atoms.positions *= scale
            atoms.set_cell(box)
            atoms.pbc = True
        if mass is not None:
            atoms.arrays["masses"] = np.where(np.isnan(mass), atoms.get_masses(), mass)
    return structures


def _blocks(path: Path, text: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Comment and atom lines of each frame; refuses what is cut off or miscounted."""
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
        n_atoms = int(lines[at])
        if at + 2 + n_atoms > len(lines):
            raise MdpotError(
                f"{path}: truncated: the frame of line {at + 1} has {n_atoms} atoms, and the file ends after "
                f"{max(len(lines) - at - 2, 0)} of them. Copy it again."
            )
        yield lines[at + 1], lines[at + 2 : at + 2 + n_atoms]
        at += 2 + n_atoms


def _rewritten(comment: str, lines: Sequence[str], has_isotopes: bool) -> str:
    """A frame as ASE's reader takes it."""
    atoms = "\n".join(lines)
    if has_isotopes:
        atoms = _ISOTOPE.sub(r"\1H", atoms)
    return f"{len(lines)}\n{_SIX_NUMBERS.sub(_nine_numbers, comment)}\n{atoms}\n"


def _isotopes(lines: Sequence[str]) -> np.ndarray | None:
    """[n_atoms] masses, u, of the atoms that are D or T, NaN for the others; None where there is none."""
    masses = np.array([ISOTOPES.get(line.split(None, 1)[0], np.nan) if line.strip() else np.nan for line in lines])
    return None if np.isnan(masses).all() else masses


def _nine_numbers(found: re.Match[str]) -> str:
    """The six numbers of a stress or virial in Voigt's order, xx yy zz yz xz xy, as ASE's nine."""
    key, opening, numbers, closing = found.groups()
    full = voigt_6_to_full_3x3_stress(np.array([float(x) for x in re.split(r"[\s,]+", numbers)]))
    return f"{key}{opening}{' '.join(repr(float(x)) for x in full.ravel())}{closing}"


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
    cell_unit, position_unit = units.get("cell") or BOHR, units.get("positions") or BOHR
    if match["form"].upper() == "ABCABC" and len(numbers) >= 6:
        cell = Cell.fromcellpar(numbers[:6]).array
    elif match["form"].upper() in ("H", "GENH") and len(numbers) >= 9:
        cell = numbers[:9].reshape(3, 3).T  # i-PI's vectors are columns
    else:
        return None
    return cell * cell_unit, position_unit
