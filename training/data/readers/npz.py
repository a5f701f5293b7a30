"""NumPy archives: those of MD17, revised MD17 and sGDML (kcal/mol, Å), and the water-scan files (eV, Å)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, require_elements
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw, convert, finish
from mdpot.training.data.units import ASE, SYSTEMS, canonical, parse_units, units_of

RMD17_KEYS = ("nuclear_charges", "coords", "energies", "forces")
WATER_KEYS = ("numbers", "positions", "forces", "energies", "cells", "source")
MD17_UNITS = replace(SYSTEMS["kcal/mol"], source="of the format")
# The names that archives give their arrays; those of revised MD17, of MD17 and sGDML, and others.
_NAMES = {
    "numbers": ("nuclear_charges", "z", "numbers", "atomic_numbers", "Z", "charges"),
    "positions": ("coords", "R", "positions", "coordinates", "xyz"),
    "energies": ("energies", "E", "energy"),
    "forces": ("forces", "F"),
    "cells": ("cells", "cell", "lattices", "lattice"),
    "source": ("source",),
}
_STATED = {"e_unit": "energy", "r_unit": "length", "energy_unit": "energy", "length_unit": "length"}


def parse_npz(path: Path, units: str | None = None) -> Raw:
    """What an archive holds: frames of the same atoms, told by the names of its arrays.

    Args:
        path: the archive.
        units: as the user names them; else what it states (sGDML's e_unit and r_unit), those of its kind, or ASE's.

    Raises:
        MdpotError: no such file, damaged, of another kind, or with arrays that do not fit each other.
    """
    arrays = load_arrays(path)
    names = {what: next((name for name in known if name in arrays), None) for what, known in _NAMES.items()}
    if names["numbers"] is None or names["positions"] is None:
        raise MdpotError(
            f"{path}: an archive of frames holds atomic numbers ({', '.join(_NAMES['numbers'])}) and positions "
            f"({', '.join(_NAMES['positions'])}); got {', '.join(sorted(arrays)) or 'no arrays'}."
        )
    stated = {
        quantity: canonical(quantity, str(arrays[key]), f"{key}={arrays[key]}")
        for key, quantity in _STATED.items()
        if key in arrays
    }
    like_md17 = set(RMD17_KEYS) <= arrays.keys() or {"E", "F", "R", "z"} <= arrays.keys()
    base = units_of(stated) if stated else MD17_UNITS if like_md17 else ASE
    frames = _frames(path, {what: arrays[name] for what, name in names.items() if name is not None})
    return Raw(frames, Keys(names["energies"], names["forces"]), parse_units(units, base))


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
    frames = [convert(frame, MD17_UNITS) for frame in _frames(path, chosen)]
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
        frames += _frames(path, {key: arrays[key] for key in WATER_KEYS})
    return finish(Raw(frames, Keys("energies", "forces")), (), Path()).frames


def _frames(path: Path, arrays: Mapping[str, np.ndarray]) -> list[Frame]:
    """The frames of checked arrays, in the units of the archive; the keys of `arrays` are those of `_NAMES`."""
    positions = _numbers(path, "positions", arrays["positions"])
    if positions.ndim != 3 or positions.shape[2] != 3 or 0 in positions.shape:
        raise MdpotError(f"{path}: positions must have the shape [n_frames, n_atoms, 3]; got {list(positions.shape)}.")
    n_frames, n_atoms, _ = positions.shape
    numbers = _numbers(path, "atomic numbers", arrays["numbers"])
    if numbers.shape == (n_frames, n_atoms) and (numbers == numbers[0]).all():
        numbers = numbers[0]
    if numbers.shape != (n_atoms,) or (numbers != np.round(numbers)).any():
        raise MdpotError(
            f"{path}: atomic numbers must be {n_atoms} integers, one for each atom of the positions; got the shape "
            f"{list(numbers.shape)}."
        )
    require_elements(numbers, str(path))
    energies, forces, cells = (_optional(path, arrays, what) for what in ("energies", "forces", "cells"))
    if energies is not None and energies.size != n_frames:
        raise MdpotError(
            f"{path}: energies must be {n_frames}, one for each frame; got the shape {list(energies.shape)}."
        )
    if forces is not None and forces.shape != positions.shape:
        raise MdpotError(
            f"{path}: forces must have the shape of the positions, {list(positions.shape)}; got {list(forces.shape)}."
        )
    if cells is not None:
        cells = np.broadcast_to(cells, (n_frames, 3, 3)) if cells.shape == (3, 3) else cells
        if cells.shape != (n_frames, 3, 3):
            raise MdpotError(f"{path}: cells must have the shape [{n_frames}, 3, 3]; got {list(cells.shape)}.")
    sources = arrays.get("source")
    if sources is not None and np.shape(sources) != (n_frames,):
        raise MdpotError(f"{path}: source must be {n_frames} names; got the shape {list(np.shape(sources))}.")
    flat = None if energies is None else energies.ravel()
    return [
        Frame(
            numbers=numbers.astype(np.int64),
            positions=positions[row],
            cell=np.zeros((3, 3)) if cells is None else cells[row].copy(),
            pbc=np.full(3, cells is not None),
            energy=None if flat is None else float(flat[row]),
            forces=None if forces is None else forces[row],
            group="" if sources is None else f"{n_atoms} atoms, {sources[row]}",
            index=row,
        )
        for row in range(n_frames)
    ]


def _optional(path: Path, arrays: Mapping[str, np.ndarray], what: str) -> np.ndarray | None:
    return _numbers(path, what, arrays[what]) if what in arrays else None


def _numbers(path: Path, what: str, array: np.ndarray) -> np.ndarray:
    """An array as float64.

    Raises:
        MdpotError: it holds something else.
    """
    if array.dtype.kind not in "fiu":
        raise MdpotError(f"{path}: {what} must be real numbers; got the type {array.dtype}.")
    return np.asarray(array, dtype=np.float64)
