"""What a folder of calculations holds: its outputs, told by their first bytes, and which of them are read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.packed import head, unpacked_name
from mdpot.training.data.readers.cp2k import is_cp2k, is_forces
from mdpot.training.data.readers.foreign import refuse_foreign
from mdpot.training.data.readers.ml_ab import is_ml_ab
from mdpot.training.data.readers.mtp import is_mtp
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
_ENDINGS = {".castep": "CASTEP", ".xsf": "XSF", ".npz": "npz"}
_DATABASE = re.compile(rb'SQLite format 3\0|\s*\{\s*"\d+"\s*:')
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
        n_others: files that are no outputs.
        empty: folders without an output beside some that have one.
        refused: files of a known format that is not read, and why.
        failed: what cannot be read, and why.
    """

    outputs: list[Output] = field(default_factory=list)
    n_others: int = 0
    empty: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def is_folder(path: Path) -> bool:
    """Whether a path names several files: a folder, or a pattern such as `runs/*/OUTCAR`."""
    return path.is_dir() or (_PATTERN.search(str(path)) is not None and not path.exists())


def search(path: Path) -> Found:
    """The outputs in a folder, or of a pattern."""
    root = path if path.is_dir() else next(parent for parent in path.parents if parent.is_dir())
    places = [path] if root == path else list(root.glob(str(path.relative_to(root))))
    found, seen = Found(), set()
    folders: dict[str, bool] = {}
    for n, file in enumerate(_files(places, folders, found.failed, root)):
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
            found.n_others += 1
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


def _files(places: Iterable[Path], folders: dict[str, bool], failed: dict[str, str], root: Path) -> Iterator[Path]:
    """All files, and those of the folders below, each folder once; what cannot be opened is entered in `failed`."""
    seen: set[str] = set()
    waiting = sorted(places, key=lambda place: natural(_below(place, root)), reverse=True)
    while waiting:
        place = waiting.pop()
        if place.name.startswith(".") and place != root:
            continue
        try:
            if place.is_file():
                yield place
            elif place.is_dir() and (real := os.path.realpath(place)) not in seen:
                seen.add(real)
                folders[_below(place, root)] = False
                waiting += sorted(place.iterdir(), key=lambda inner: natural(inner.name), reverse=True)
            elif place.is_symlink() and not place.exists():
                failed[_below(place, root)] = "a link to what is not there."
        except OSError as error:
            failed[_below(place, root)] = reason_of(place, error)


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
    words = start.removeprefix(b"\xef\xbb\xbf").split(None, 1)
    kind = None
    if name == "input.data" or (words and words[0].lower() == b"begin"):
        kind = "RuNNer"
    elif is_ml_ab(start.removeprefix(b"\xef\xbb\xbf")):
        kind = "ML_AB"
    elif is_mtp(start):
        kind = "MTP"
    elif start.startswith(b"\x89HDF") and name.lower().endswith((".h5", ".hdf5")) and name != "vaspout.h5":
        kind = "HDF5"
    elif "OUTCAR" in name and (b"vasp." in start[:500] or name == "OUTCAR"):
        kind = OUTCAR
    elif re.search(r"vasp.*\.xml$", name) and (b"<modeling>" in start[:500] or name == "vasprun.xml"):
        kind = VASPRUN
    elif name.lower().endswith("xyz") and is_xyz(start) and is_cp2k(_comment(start).decode("latin-1")):
        kind = None if is_forces(path) else "CP2K"
    elif name.lower().endswith("xyz"):
        kind = _BARE if is_xyz(start) and _is_bare(start) else _XYZ
    elif name.endswith((".db", ".json")) and _DATABASE.match(start):
        kind = "ASE database"
    else:
        kind = next((what for mark, what in _MARKS.items() if mark in start), None)
        kind = kind or next((what for ending, what in _ENDINGS.items() if name.endswith(ending)), None)
    if kind is None and start:
        refuse_foreign(path, start[:4096])
    return kind


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
        first = found.outputs[0]
        raise MdpotError(
            f"{path}: outputs of several kinds are in it, whose energies need not go together: {there}. Say which, "
            f'e.g. "{(path if path.is_dir() else path.parent) / "**" / first.path.name}" in quotation marks, or give '
            "the folder of one kind."
        )
    calculations: dict[tuple[str, str], list[Output]] = {}
    for output in found.outputs:
        calculations.setdefault(output.calculation, []).append(output)
    chosen = [
        sorted(files, key=lambda o: (_RANKS.get(o.kind, 0), o.path.name != unpacked_name(o.path)))
        for files in calculations.values()
    ]
    others.update(f"{output.kind} of the same calculations" for files in chosen for output in files[1:])
    return chosen, +others


def _nothing(path: Path, found: Found) -> str:
    """Why a folder has nothing to read."""
    if not path.exists() and not (found.n_others or found.refused or found.failed):
        return f"{path}: nothing fits this pattern, or it is empty. Name files or folders, as in runs/*/OUTCAR."
    there = f"{found.n_others + len(found.refused):,} other files are there" if found.n_others else "it is empty"
    reasons = [f"{name}: {reason}" for name, reason in (found.refused | found.failed).items()][:1]
    said = f" {reasons[0]}" if reasons else f" ({there})"
    return (
        f"{path}: no output of a calculation and no file of frames is in this folder or below it{said}. Give the "
        "folder that has them, or a file."
    )


def reason_of(path: Path, error: Exception) -> str:
    """What is wrong with a file, without its path."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return " ".join(text.removeprefix(str(path)).lstrip(":, ").split())
