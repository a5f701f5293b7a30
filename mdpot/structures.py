"""Structure files as people have them: whatever ASE reads, under any name and in any encoding, as ASE `Atoms`.

What a file holds is told by its content where ASE tells it by the name: a name may hold "@", which ASE takes for an
index; a text may begin with a byte order mark, or be in Latin-1. XYZ has dialects that ASE does not know: `mdpot.xyz`.
"""

from __future__ import annotations

import codecs
import io
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError, filetype

from mdpot.errors import MdpotError
from mdpot.packed import has_ending, unpacked
from mdpot.pdb import complete_pdb
from mdpot.xyz import NO_ELEMENTS, parse_xyz

PLACEHOLDER = "a cube of 1 Å, with which PDB files say that they have no cell"
#: Atoms closer than this, Å, are an error in the file: the shortest bond there is, H2, has 0.74 Å.
MIN_DISTANCE = 0.4
#: Less than this of a site may be empty, for such is the error of a measurement or of rounding.
MAY_BE_EMPTY = 0.01
_NO_CELL = ("proteindatabank", "gromacs")  # ASE's names of formats that always have a cell, which may be none
_PERIODIC = ("eon", "sys")  # of eOn and Qb@ll, which know nothing but periodic cells; ASE does not say so
#: What VASP's machine-learned force field says of a step, between or beside those of DFT; of one alone, only this.
_LEARNED = re.compile(r"^ *(?:ML FORCE on cell|POSITION +TOTAL-FORCE \(eV/Angst\) \(ML\))", re.M)
_LEARNED_END = re.compile(r"^ *ML energy  without entropy.*\n", re.M)
#: The header of a data file of LAMMPS, which has no name of its own.
_LAMMPS_DATA = re.compile(rb"^[ \t]*\d+[ \t]+atoms\b.*^[ \t]*\S+[ \t]+\S+[ \t]+xlo[ \t]+xhi\b", re.M | re.S)
#: The units that its first line may state; of those in Å there are two kinds.
_LAMMPS_UNITS = re.compile(rb"\A[^\r\n]*\bunits *= *(?!metal\b|real\b)(\w+)")
#: How trajectories begin that hold positions alone, after which bytes.
_NO_TOPOLOGY = {"DCD": (4, b"CORD"), "XTC": (0, b"\0\0\x07\xcb"), "TRR": (0, b"\0\0\x07\xc9")}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


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


def without_learned(outcar: str) -> str:
    """An OUTCAR of VASP without what its machine-learned force field, trained on the fly, computed."""
    return without(outcar, _LEARNED, _LEARNED_END)


def without(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> str:
    """A text without the parts from what begins one to what ends it; one without an end stays."""
    kept, at = [], 0
    while (first := begin.search(text, at)) is not None and (last := end.search(text, first.end())) is not None:
        kept.append(text[at : first.start()])
        at = last.end()
    return "".join([*kept, text[at:]])


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
            structures = parse_xyz(path, decode(data)) if _is_xyz(path, data) else _read_other(path, data)
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
    for index, atoms in enumerate(structures):
        if not atoms.numbers.all():
            first = int(np.argmin(atoms.numbers))
            raise MdpotError(
                f"{path}, frame {index}: atom {first} is X, a dummy or ghost atom, no element. Take it out."
            )
    return structures


def parse_cif(text: str, what: str) -> Atoms:
    """The one structure of a CIF.

    Raises:
        MdpotError: no CIF that ASE reads, or none of one structure whose sites are occupied by an atom each; it is
            called `what`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(io.StringIO(text), index=":", format="cif")
    except Exception as error:  # whatever ASE's parsers raise
        raise MdpotError(f"{what}: no CIF that ASE reads ({type(error).__name__}: {error}).") from None
    structures = found if isinstance(found, list) else [found]
    if len(structures) != 1:
        raise MdpotError(f"{what}: a CIF must have one structure here; got {len(structures)}.")
    refuse_disorder(structures[0], what)
    return structures[0]


def is_placeholder(cell: np.ndarray) -> bool:
    """Whether a cell [3, 3], Å, is `PLACEHOLDER`."""
    return np.allclose(cell, np.eye(3), rtol=0, atol=1e-6)


def refuse_placeholder(atoms: Atoms, what: str) -> None:
    """Refuses a periodic structure whose cell is `PLACEHOLDER`, as ASE reads it; errors call it `what`."""
    if atoms.pbc.any() and is_placeholder(atoms.cell.array):
        raise MdpotError(f"{what}: the cell is {PLACEHOLDER}. Set atoms.pbc = False, or the true cell.")


def refuse_disorder(atoms: Atoms, what: str) -> None:
    """Refuses a structure of a CIF that has sites which are empty in part, or which several elements share: ASE puts a
    whole atom of one of them there. Errors call it `what`."""
    for site in atoms.info.get("occupancy", {}).values():
        known = {element: share for element, share in site.items() if isinstance(share, (int, float))}
        if len(site) > 1 or min(known.values(), default=1.0) < 1 - MAY_BE_EMPTY:
            shares = " and ".join(f"{share:g} {element}" for element, share in known.items())
            raise MdpotError(
                f"{what}: a site is occupied by {shares}, not by one atom. Give an ordered structure, e.g. a supercell."
            )


def _is_xyz(path: Path, data: bytes) -> bool:
    """Whether a file is XYZ, plain or extended: a count of atoms in its first line, and four columns in its third."""
    lines = decode(data[:100_000]).lstrip("\n").split("\n", 3)
    if len(lines) < 3 or not lines[0].strip().isdecimal():
        return False
    if int(lines[0]) == 0 or re.search(r"\b(properties|lattice)\s*=", lines[1], re.I):
        return True
    words = lines[2].split()
    if has_ending(path, "xyz"):
        return True
    return len(words) >= 4 and path.suffix != ".dat" and not words[0].lstrip("+-").replace(".", "").isdecimal()


def _read_other(path: Path, data: bytes) -> list[Atoms]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MdpotError(
            f"{path}: text in UTF-16, as PowerShell writes it, which is read of XYZ alone: save it as UTF-8."
        )
    for name, (skip, begin) in _NO_TOPOLOGY.items():
        if data[skip:].startswith(begin):
            raise MdpotError(
                f"{path}: {name}, which holds no elements. Convert it, together with its topology, to extended XYZ; "
                "mdpot md writes that by --trajectory xyz."
            )
    # ASE unpacks what its name says is packed; a file of LAMMPS named *.data it takes for RuNNer's.
    kind = "lammps-data" if _LAMMPS_DATA.search(data, 0, 10_000) else filetype(str(path), guess=True)
    if kind in ("xyz", "extxyz") and decode(data).split(None, 1)[0].isdecimal():
        return parse_xyz(path, decode(data))
    if kind == "lammps-data" and (units := _LAMMPS_UNITS.search(data)):
        raise MdpotError(
            f"{path}: its first line says that its units are {units[1].decode()}, whose lengths are not read: write it "
            "in units metal or real."
        )
    if kind == "lammps-dump-binary" or (kind == "lammps-dump-text" and not _has_elements(decode(data))):
        raise MdpotError(f"{path}: {NO_ELEMENTS}.")
    try:
        found = read(path, index=":", format=kind, do_not_split_by_at_sign=True)
    except Exception as error:
        if kind == "vasp-out":
            found = _read_outcar_alone(path, without_learned(decode(data)))
        elif isinstance(error, UnicodeDecodeError):  # of names in Latin-1
            found = read(io.StringIO(decode(data)), index=":", format=kind)
        else:
            raise
    structures = found if isinstance(found, list) else [found]
    if not structures:
        raise MdpotError(f"{path}: it holds no frame that ASE can read as {kind}, which it takes it for.")
    if kind == "lammps-data" and not structures[0].has("masses") and b"Atom Type Labels" not in data:
        raise MdpotError(f"{path}: atom types are numbers, not elements, and no masses say which; add them.")
    if kind == "proteindatabank":
        structures = complete_pdb(path, structures, decode(data))
    for atoms in structures:
        if kind == "cif":
            refuse_disorder(atoms, str(path))
        if kind in _NO_CELL and (not atoms.cell.array.any() or is_placeholder(atoms.cell.array)):
            atoms.set_cell(None)
            atoms.pbc = False
        elif kind in _PERIODIC:
            atoms.pbc = True
    return structures


def _read_outcar_alone(path: Path, text: str) -> list[Atoms]:
    """The structures of an OUTCAR that ASE does not read as it is: it has learned steps, or the CONTCAR beside it, from
    which ASE takes constraints, is cut off. Those of the POSCAR are taken instead."""
    source = _OutOfPlace(text)
    source.name = str(path / "OUTCAR")
    found = read(source, index=":", format="vasp-out")
    structures = found if isinstance(found, list) else [found]
    with suppress(Exception):  # there is none, or it is damaged, too
        began = read(path.with_name("POSCAR"), format="vasp")
        for atoms in structures:
            if isinstance(began, Atoms) and len(began) == len(atoms):
                atoms.set_constraint(began.constraints)
    return structures


class _OutOfPlace(io.StringIO):
    """The text of a file under another name."""

    name = ""


def _has_elements(dump: str) -> bool:
    """Whether each frame of a dump of LAMMPS says its elements, by name or by mass; ASE takes types for them."""
    headers = [line.split()[2:] for line in dump.split("\n") if line.startswith("ITEM: ATOMS")]
    return all("element" in header or "mass" in header for header in headers)
