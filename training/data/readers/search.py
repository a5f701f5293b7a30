"""What a folder of calculations holds: its outputs, told by their first bytes, and which of them are read."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.packed import has_ending, head, unpacked_name
from mdpot.structures import read_bytes
from mdpot.training.data.readers.abinit import is_abinit
from mdpot.training.data.readers.arrays import NAMES, as_text
from mdpot.training.data.readers.cp2k import is_cp2k, is_forces
from mdpot.training.data.readers.foreign import refuse_foreign
from mdpot.training.data.readers.ipi import quantity_of
from mdpot.training.data.readers.ml_ab import is_ml_ab
from mdpot.training.data.readers.mtp import is_mtp
from mdpot.training.data.readers.qcschema import is_qcschema
from mdpot.training.data.readers.tables import is_pymatgen
from mdpot.xyz import is_xyz

MOST_FILES = 200_000
"""Who gives a home folder by mistake does not wait until all of it is read."""
#: Bytes of a file that tell what it is.
START = 50_000

VASPRUN, OUTCAR, _XYZ, _BARE = "vasprun.xml", "OUTCAR", "XYZ", "XYZ without labels"
#: What may be read together, by what its files are. The outputs of a program are of one calculation where a directory
#: has several; of these, the first that can be read is taken.
FAMILIES = {VASPRUN: "VASP", OUTCAR: "VASP"}
_RANKS = {VASPRUN: 0, OUTCAR: 1}
#: Bytes that tell whether a calculation came to its end.
END = 20_000
#: What an output has in its last lines where the calculation came to its end.
_LAST_WORDS = {
    VASPRUN: b"</modeling>",
    OUTCAR: b"General timing and accounting",
    "ORCA": b"ORCA TERMINATED NORMALLY",
    "Gaussian": b"Normal termination",
    "Quantum ESPRESSO": b"JOB DONE.",
}
#: What stands in the first lines of a file, and what it then is; ASE tells these in the same way.
_MARKS = {
    b"* O   R   C   A *": "ORCA",
    b"Entering Gaussian System": "Gaussian",
    b"Invoking FHI-aims ...": "FHI-aims",
    b"Program PWSCF": "Quantum ESPRESSO",
    b"  ___ ___ ___ _ _ _": "GPAW",
    b"Northwest Computational Chemistry Package": "NWChem",
    b"GAMESS VERSION": "GAMESS",
    b"Linear-Scaling Ab Initio Total Energy Program": "ONETEP",
    b":simulation xmlns:": "Qbox",
    b"- of UlmASE-Trajectory": "ASE trajectory",
    b"AFFormatASE-Trajectory": "ASE trajectory",
    b"ITEM: TIMESTEP": "LAMMPS dump",
}
#: Of files whose content does not tell, the end of the name, and what they are.
_ENDINGS = {".castep": "CASTEP", ".xsf": "XSF", ".abo": "ABINIT"}
_DATABASE = re.compile(rb'SQLite format 3\0|\s*\{\s*"\d+"\s*:')
#: The table of structures in ASE's databases, and what each has in those in json.
_OF_ASE = re.compile(rb'CREATE TABLE systems|"ctime"\s*:')
#: The first lines of RuNNer's; SQL begins alike.
_RUNNER = re.compile(
    rb"(?:\xef\xbb\xbf)?{0}begin\b.*\n{0}(?:comment|lattice|atom|energy|charge|end)\b".replace(
        b"{0}", rb"(?:[ \t]*(?:#.*)?\r?\n)*[ \t]*"
    ),
    re.I,
)
#: What a store of Zarr has at its top.
_ZARR = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Output:
    """A file with frames: its name below the folder, and what it is."""

    path: Path
    name: str
    kind: str

    @property
    def family(self) -> str:
        return FAMILIES.get(self.kind, self.kind)

    @property
    def calculation(self) -> tuple[str, str]:
        """Its directory, and what of the name tells calculations in one directory apart."""
        name = unpacked_name(self.path)
        if self.family == "VASP":
            name = re.sub(r"vasprun|vasp|outcar|\.xml", "", name, flags=re.I).strip("._- ")
        return os.path.dirname(self.name), name


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        outputs: in natural order.
        n_others: files that are no outputs, and are read with none.
        cifs: those of them that are CIFs by their names, in natural order.
        empty: folders without an output beside some that have one.
        refused: files of a known format that is not read, and why.
        failed: what cannot be read, and why.
    """

    outputs: list[Output] = field(default_factory=list)
    n_others: int = 0
    cifs: list[Output] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def _belongs(file: Path) -> bool:
    """Whether a file is read along with another one: CP2K's forces, cells and inputs, and MTP's names of the types."""
    return is_forces(file) or file.name == "type_map.raw" or file.suffix in (".cell", ".inp", ".restart")


def is_folder(path: Path) -> bool:
    """Whether a path names several files: a folder, or a pattern such as `runs/*/OUTCAR`."""
    return path.is_dir() or (_PATTERN.search(str(path)) is not None and not path.exists())


def search(path: Path) -> Found:
    """The outputs in a folder, or of a pattern."""
    root = path if path.is_dir() else next(parent for parent in path.parents if parent.is_dir())
    found, seen = Found(), set()
    folders: dict[str, bool] = {}
    for n, file in enumerate(_files(root, path.relative_to(root).parts, folders, found.failed)):
        if n >= MOST_FILES:
            raise MdpotError(f"{path}: more than {MOST_FILES:,} files. Give the folder of the calculations alone.")
        name, real = _below(file, root), os.path.realpath(file)
        if real in seen:
            continue
        seen.add(real)
        try:
            kind = _kind(file)
        except MdpotError as error:
            found.refused[name] = reason_of(file, error)
            continue
        except OSError as error:
            found.failed[name] = reason_of(file, error)
            continue
        if kind is None:
            found.n_others += not _belongs(file)
            found.cifs += [Output(file, name, "CIF")] * has_ending(file, ".cif")
        else:
            found.outputs.append(Output(file, name, kind))
    found.outputs.sort(key=lambda output: natural(output.name))
    for output in found.outputs:
        folders[os.path.dirname(output.name)] = True
    # Beside folders with outputs, one without is a calculation that has none.
    beside = {os.path.dirname(name) for name, has in folders.items() if has and name}
    leaves = folders.keys() - {os.path.dirname(name) for name in folders}
    failed = {os.path.dirname(name) for name in found.failed}
    found.empty = sorted(
        (n for n in leaves if n and not folders[n] and n not in failed and os.path.dirname(n) in beside), key=natural
    )
    return found


def _files(root: Path, pattern: Sequence[str], folders: dict[str, bool], failed: dict[str, str]) -> Iterator[Path]:
    """All files that fit a pattern, and those in folders that do, each folder once. Links are followed, and hidden
    files and folders passed over, whatever Python's own `glob` does.

    Args:
        root: the folder to look in.
        pattern: the parts of the names below it, of which `**` is any number; none for all files.
        folders: is given the names of the folders whose files are all taken.
        failed: is given what cannot be opened, and why.
    """
    seen: set[tuple[str, frozenset[int]]] = set()
    waiting = [(root, _places({0}, pattern))]
    while waiting:
        path, places = waiting.pop()
        fits = len(pattern) in places
        if not places or (path.name.startswith(".") and path != root):
            continue
        try:
            if path.is_dir():
                if (known := (os.path.realpath(path), places)) not in seen:
                    seen.add(known)
                    if fits:
                        folders[_below(path, root)] = False
                    inner = sorted(path.iterdir(), key=lambda inner: natural(inner.name), reverse=True)
                    waiting += [(file, _places(places, pattern, file.name)) for file in inner]
            elif fits and path.is_file():
                yield path
            elif fits and path.is_symlink() and not path.exists():
                failed[_below(path, root)] = "a link to what is not there."
        except OSError as error:
            failed[_below(path, root)] = reason_of(path, error)


def _places(places: Iterable[int], pattern: Sequence[str], name: str | None = None) -> frozenset[int]:
    """Where in a pattern one may be in a folder: the next part that a name in it has to fit.

    Args:
        places: in the folder around it; `len(pattern)` where that fits, and so all in it.
        pattern: its parts.
        name: of the folder; None at the root.
    """
    found: set[int] = set()
    for place in places:
        if name is None or place == len(pattern) or pattern[place] == "**":
            found.add(place)
        elif fnmatchcase(name, pattern[place]):
            found.add(place + 1)
    for place, part in enumerate(pattern):
        if place in found and part == "**":  # it may be nothing
            found.add(place + 1)
    return frozenset({len(pattern)} if len(pattern) in found else found)


def _below(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    return "" if name == "." else name


def natural(name: str) -> list[list[tuple[int, str]]]:
    """Sorts numbers in names by their value."""
    return [
        [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", part)]
        for part in name.split("/")
    ]


def _kind(path: Path) -> str | None:
    """What a file with frames is; None for any other.

    Raises:
        MdpotError: of a known format that is not read.
        OSError: it cannot be opened.
    """
    name, start = unpacked_name(path), head(path, START)
    kind = None
    if name == "input.data" or _RUNNER.match(start):
        kind = "RuNNer"
    elif is_ml_ab(start.removeprefix(b"\xef\xbb\xbf")):
        kind = "ML_AB"
    elif is_mtp(start):
        kind = "MTP"
    elif start.startswith(b"\x89HDF") and has_ending(path, ".h5", ".hdf5") and name != "vaspout.h5":
        kind = "HDF5" if _has_positions(path) else None
    elif has_ending(path, ".npz"):
        kind = "npz" if _has_arrays(path) else None
    elif "OUTCAR" in name and (b"vasp." in start[:500] or name == "OUTCAR"):
        kind = OUTCAR
    elif re.search(r"vasp.*\.xml$", name) and (b"<modeling>" in start[:500] or name == "vasprun.xml"):
        kind = VASPRUN
    elif has_ending(path, "xyz") and is_xyz(start) and is_cp2k(_comment(start).decode("latin-1")):
        kind = None if is_forces(path) else "CP2K"
    elif has_ending(path, "xyz") and is_xyz(start) and (held := quantity_of(_comment(start).decode("latin-1"))):
        kind = "i-PI" if held == "positions" else None
    elif has_ending(path, "xyz"):
        refuse_foreign(path, start[:4096])
        kind = _BARE if is_xyz(start) and _is_bare(start) else _XYZ
    elif name.endswith(".out") and is_abinit(start):  # its log begins alike
        kind = "ABINIT"
    elif name == "gradient" and start.startswith(b"$grad"):
        kind = "Turbomole"
    elif is_qcschema(path):
        kind = "QCSchema"
    elif has_ending(path, ".db", ".json") and _DATABASE.match(start) and _OF_ASE.search(start):
        kind = "ASE database"
    else:
        kind = next((what for mark, what in _MARKS.items() if mark in start), None)
        kind = kind or next((what for ending, what in _ENDINGS.items() if name.endswith(ending)), None)
    if kind is None and is_pymatgen(path):
        raise MdpotError(f"{path}: structures of pymatgen in json, which are read alone: give the file itself.")
    if kind is None and start:
        refuse_foreign(path, start[:4096])
    return kind


def _has_arrays(path: Path) -> bool:
    """Whether an archive has positions and atomic numbers by name, or is damaged, of which its reader tells."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return True
    return all(_is_named(what, names) for what in ("positions", "numbers"))


def _has_positions(path: Path) -> bool:
    """Whether a data set in an HDF5 file is called positions, or nothing tells."""
    with suppress(ImportError, OSError, RuntimeError), import_module("h5py").File(path, "r") as file:
        return bool(file.visit(lambda name: _is_named("positions", [as_text(name).rpartition("/")[2]]) or None))
    return True


def _is_named(what: str, names: Iterable[str]) -> bool:
    return any(name in NAMES[what] or (len(name) > 1 and name.lower() in NAMES[what]) for name in names)


def _is_bare(start: bytes) -> bool:
    """Whether XYZ is that of a structure beside an output: its comment names neither forces nor an energy."""
    comment = _comment(start).lower()
    return b"force" not in comment and b"energy" not in comment


def _comment(start: bytes) -> bytes:
    """The second line of XYZ."""
    return b"".join(start.lstrip().split(b"\n", 2)[1:2])


def choose(path: Path, found: Found) -> tuple[list[list[Output]], Counter[str]]:
    """The files of each calculation, the one to be taken first; and how many others with frames there are, by what
    they are.

    Raises:
        MdpotError: no outputs, or of several kinds.
    """
    others = Counter[str]()
    kinds = {output.kind for output in found.outputs}
    if not kinds <= {_BARE, _XYZ}:  # they are structures beside outputs
        others[_BARE] = sum(output.kind == _BARE for output in found.outputs)
        found.outputs = [output for output in found.outputs if output.kind != _BARE]
    found.outputs = [replace(output, kind=_XYZ) if output.kind == _BARE else output for output in found.outputs]
    families = Counter(output.family for output in found.outputs)
    if not families:
        raise MdpotError(_nothing(path, found))
    if len(families) > 1:
        examples = {output.family: output.name for output in reversed(found.outputs)}
        there = ", ".join(f"{n:,} of {family} ({examples[family]})" for family, n in families.items())
        pattern = (path if path.is_dir() else path.parent) / "**" / _name_of_most(found.outputs, families)
        raise MdpotError(
            f"{path}: outputs of several kinds are in it, whose energies need not go together: {there}. Say which, "
            f'e.g. "{pattern}" in quotation marks, or give the folder of one kind.'
        )
    calculations: dict[tuple[str, str], list[Output]] = {}
    for output in found.outputs:
        calculations.setdefault(output.calculation, []).append(output)
    chosen = [_ranked(files) for files in calculations.values()]
    others.update(f"{output.kind} of the same calculations" for files in chosen for output in files[1:])
    return chosen, +others


def _name_of_most(outputs: Sequence[Output], families: Counter[str]) -> str:
    """The name, or how the names end, of the outputs of the largest family."""
    (family, _), *_ = families.most_common()
    names = Counter(output.path.name for output in outputs if output.family == family)
    (name, n), *_ = names.most_common()
    return name if n > 1 or len(names) == 1 else f"*{Path(name).suffix}"


def _ranked(files: Sequence[Output]) -> list[Output]:
    """The outputs of one calculation, the one to be taken first: those that came to their end are before others."""
    ranked = sorted(files, key=lambda o: (_RANKS.get(o.kind, 0), o.path.name != unpacked_name(o.path)))
    for n, output in enumerate(ranked if len(ranked) > 1 else []):
        with suppress(MdpotError, OSError):  # of a damaged one, its reader says so
            if came_to_its_end(output):
                return [output, *ranked[:n], *ranked[n + 1 :]]
    return ranked


def _nothing(path: Path, found: Found) -> str:
    """Why a folder has nothing to read."""
    if not path.exists() and not (found.n_others or found.refused or found.failed):
        return f"{path}: nothing fits this pattern, or no such file. Name files or folders, as in runs/*/OUTCAR."
    there = f"{found.n_others + len(found.refused):,} other files are there" if found.n_others else "it is empty"
    if any((path / name).is_file() for name in _ZARR):
        return f"{path}: a store of Zarr, which is not read: open it with zarr, and save its arrays as npz."
    reasons = [f"{name}: {reason}" for name, reason in (found.refused | found.failed).items()][:1]
    said = f". What is there is not read, e.g. {reasons[0].rstrip('.')}" if reasons else f" ({there})"
    tables = sorted(file for file in path.glob("*") if has_ending(file, ".csv"))
    table = f", such as the table {tables[0].name} where it has the values of the structures" if tables else ""
    return (
        f"{path}: no output of a calculation and no file of frames is in this folder or below it{said}. Give the "
        f"folder that has them, or a file{table}."
    )


def came_to_its_end(output: Output) -> bool:
    """Whether the last words of an output are there, or its program has none."""
    words = _LAST_WORDS.get(output.kind)
    if words is None:
        return True
    if unpacked_name(output.path) != output.path.name:
        return words in read_bytes(output.path)[-END:]
    with output.path.open("rb") as file:
        file.seek(max(0, output.path.stat().st_size - END))
        return words in file.read()


def reason_of(path: Path, error: Exception) -> str:
    """What is wrong with a file, without its path."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return " ".join(text.removeprefix(str(path)).lstrip(":, ").split())
