"""NumPy archives: those of MD17, revised MD17 and sGDML (kcal/mol, Å), the water-scan files (eV, Å), and others."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.label_keys import looks_like_label
from mdpot.training.data.labels import Keys
from mdpot.training.data.readers.arrays import NAMES, as_text, choose_arrays, frames_of
from mdpot.training.data.reading import Raw, convert, finish
from mdpot.training.data.unit_statements import parse_units, stated_system, stated_units, units_of
from mdpot.training.data.units import ASE, SYSTEMS

RMD17_KEYS = ("nuclear_charges", "coords", "energies", "forces")
WATER_KEYS = ("numbers", "positions", "forces", "energies", "cells", "source")
MD17_UNITS = replace(SYSTEMS["kcal/mol"], source="of the format")
_STATISTICS = re.compile(r"[EF]_(min|max|mean|var)")  # of sGDML
_GRADIENTS = re.compile(r"(energy_)?grad(ient)?s?", re.I)


def parse_npz(path: Path, units: str | None = None) -> Raw:
    """What an archive holds: frames, told by the names of its arrays; the others are named in a note.

    Args:
        path: the archive.
        units: as the user names them; else what it states (sGDML's e_unit and r_unit), those of its kind, or ASE's.

    Raises:
        MdpotError: no such file, damaged, of another kind, or with arrays that do not fit each other.
    """
    arrays = load_arrays(path)
    names = choose_arrays(arrays)
    if not {"numbers", "positions"} <= names.keys():
        raise MdpotError(
            f"{path}: an archive of frames holds atomic numbers ({', '.join(NAMES['numbers'])}) and positions "
            f"({', '.join(NAMES['positions'])}); got {', '.join(sorted(arrays)) or 'no arrays'}."
        )
    texts = {
        key: as_text(array.item()) for key, array in arrays.items() if array.dtype.kind in "US" and array.size == 1
    }
    stated = stated_units(texts)
    if "e_unit" in texts:
        stated.setdefault("length", "Å")  # for the forces are in e_unit/r_unit
    like_md17 = set(RMD17_KEYS) <= arrays.keys() or {"E", "F", "R", "z"} <= arrays.keys()
    system = stated_system(texts)
    base = system or (MD17_UNITS if like_md17 and stated.keys().isdisjoint({"energy", "length"}) else ASE)
    in_units = parse_units(units, units_of(stated, base))
    keys = Keys(names.get("energies"), names.get("forces"), names.get("stresses"))
    given = {what: arrays[name] for what, name in names.items()}
    if names.get("cells") == "lattice" and texts.get("type") == "d":
        _refuse_turned(path, arrays["lattice"])
    frames = frames_of(path, given, in_units, keys.stress_is_virial)
    unused = [
        key
        for key, array in arrays.items()
        if key not in names.values() and not _is_metadata(key, array, len(frames)) and not _is_unit(key, texts)
    ]
    notes = tuple(_notes(unused, keys, frames))
    return Raw(frames, replace(keys, notes=notes), in_units, ignored=[key for key in unused if looks_like_label(key)])


def _refuse_turned(path: Path, lattice: np.ndarray) -> None:
    """Refuses a lattice of sGDML that is not its own transpose: older versions have the vectors as rows, newer ones as
    columns, and nothing in the archive says which."""
    if lattice.shape == (3, 3) and not np.array_equal(lattice, lattice.T):
        raise MdpotError(
            f"{path}: lattice of sGDML, whose versions differ in whether the vectors are its rows or its columns. Save "
            "it under the name cells, the vectors as rows."
        )


def _is_unit(key: str, texts: Mapping[str, str]) -> bool:
    """Whether an entry states a unit that is understood."""
    if key not in texts:
        return False
    one = {key: texts[key]}
    return bool(stated_units(one)) or stated_system(one) is not None


def _is_metadata(key: str, array: np.ndarray, n_frames: int) -> bool:
    """Whether an entry says nothing of single frames: a text (name, theory, md5) or a statistic of all of them."""
    if array.dtype.kind in "US":
        return (array.size == 1 or array.shape[:1] != (n_frames,)) and "unit" not in key.lower()
    return array.size == 1 and _STATISTICS.fullmatch(key) is not None


def _notes(unused: Sequence[str], keys: Keys, frames: Sequence[Frame]) -> Iterator[str]:
    if unused:
        yield f"the archive has arrays that are not read: {', '.join(unused)}."
    for name in unused:
        if keys.forces is None and _GRADIENTS.fullmatch(name):
            yield f"{name} is not taken for forces, which are the negative gradient: save it so, as 'forces'."
    bare = sum(frame.stress is None for frame in frames)
    if keys.stress is not None and bare:
        yield f"{keys.stress} is not used in {bare} of {len(frames)} frames: they are not periodic in all directions."


def load_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of an npz file.

    Raises:
        MdpotError: no such file, damaged, truncated, or not of this format.
    """
    path = Path(path)
    if not path.is_file():
        raise MdpotError(f"{path}: no such file. Check the path.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise MdpotError(
                f"{path}: it holds pickled objects, which are not read, for they can run code. Save arrays of numbers."
            ) from None
        raise MdpotError(f"{path}: no npz archive, truncated or damaged ({error}). Copy it again.") from None
    except (
        OSError,
        EOFError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        SyntaxError,
        UnicodeDecodeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise MdpotError(f"{path}: no npz archive, truncated or damaged ({error}). Copy it again.") from None


def rmd17_frames(path: Path, arrays: Mapping[str, np.ndarray], rows: Sequence[int]) -> list[Frame]:
    """Some of the frames of an rMD17 archive in eV and Å; no cell, each frame its own group.

    Args:
        path: of the archive, for messages.
        arrays: nuclear_charges [n_atoms], coords [n, n_atoms, 3] Å, energies [n] kcal/mol,
            forces [n, n_atoms, 3] kcal/mol/Å.
        rows: of the archive.

    Raises:
        MdpotError: arrays that do not fit each other.
    """
    known = zip(("numbers", "positions", "energies", "forces"), RMD17_KEYS, strict=True)
    chosen = {what: arrays[key] if what == "numbers" else arrays[key][rows] for what, key in known}
    frames = [convert(frame, MD17_UNITS) for frame in frames_of(path, chosen)]
    return [replace(frame, group=str(row), index=row) for frame, row in zip(frames, rows, strict=True)]


def read_water_npz(paths: Iterable[Path | str]) -> list[Frame]:
    """The periodic frames of several water-scan archives (eV, Å), grouped by their `source`.

    Raises:
        MdpotError: no such file, damaged, or of another kind.
    """
    frames: list[Frame] = []
    for path in map(Path, paths):
        arrays = load_arrays(path)
        lacking = [key for key in WATER_KEYS if key not in arrays]
        if lacking:
            raise MdpotError(f"{path}: a water-scan archive holds {', '.join(WATER_KEYS)}; lacks {lacking}.")
        frames += frames_of(path, {key: arrays[key] for key in WATER_KEYS})
    return finish(Raw(frames, Keys("energies", "forces")), (), Path()).frames
