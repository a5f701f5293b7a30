"""Frames from arrays with a row for each of them: padded atoms, cells, periodic directions, and stresses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from ase.data import atomic_numbers
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.electrons import electrons_in
from mdpot.errors import MdpotError, unknown
from mdpot.structures import decode
from mdpot.training.data.frames import Frame, require_elements
from mdpot.training.data.units import ASE, Units

#: In place of an atomic number: no atom, in frames of several sizes.
PADDING = (0, -1)
#: The names that files give their arrays, the first ones best; case matters where it is a single letter. The last ones
#: are those of SPICE (conformations) and of QM7-X.
NAMES = {
    "numbers": (
        *("nuclear_charges", "z", "numbers", "atomic_numbers", "Z", "symbols", "elements", "species", "atNUM"),
        "charges",
    ),
    "positions": ("coords", "R", "positions", "coordinates", "xyz", "coord", "pos", "conformations", "atXYZ"),
    "counts": ("N", "n_atoms", "num_atoms", "natoms"),
    "energies": ("energies", "E", "energy", "ePBE0+MBD"),
    "forces": ("forces", "F", "force", "totFOR"),
    "cells": ("cells", "cell", "lattices", "lattice", "boxes", "box"),
    "pbc": ("pbc",),
    "stresses": ("stress", "stresses", "virial", "virials"),
    "source": ("source",),
    "charge": ("charge", "total_charge", "Q"),
    "multiplicity": ("multiplicity", "spin_multiplicity"),
}
# Under these names, numbers are as often types, from 0 on, as elements.
SYMBOLS = ("symbols", "elements", "species")


class Array(Protocol):
    """An array that need not be in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...


def choose_arrays(arrays: Mapping[str, Array]) -> dict[str, str]:
    """The names of the arrays that are read, by what they are; both are in `NAMES`."""
    names: dict[str, str] = {}
    for what, known in NAMES.items():
        found = (key for name in known for key in arrays if key == name or (len(name) > 1 and key.lower() == name))
        positions = arrays[names["positions"]].shape if "positions" in names else ()
        shape = positions[:1] if len(positions) > 2 else (1,)
        if (name := next((key for key in found if _can_be(what, key, arrays[key], shape)), None)) is not None:
            names[what] = name
    return names


def _can_be(what: str, key: str, array: Array, shape: tuple[int, ...]) -> bool:
    """Whether an array is what its name says, for some names are used for other things as well.

    Args:
        what: it may be, of `NAMES`.
        key: its name.
        array: itself.
        shape: [n_frames].
    """
    if what == "numbers" and key.lower() in SYMBOLS:
        return array.dtype.kind in "US"
    if what == "numbers" and key.lower() == "charges":
        return array.dtype.kind in "iu"  # or those of the atoms in a molecule
    if what in ("charge", "multiplicity"):
        return array.dtype.kind in "iuf" and array.shape in ((), (1,), shape, (*shape, 1))  # or of each atom
    if what == "stresses":
        return len(array.shape) > 1  # or pressures
    if what == "counts":
        return array.dtype.kind in "iu" and array.shape == shape
    return what != "source" or len(array.shape) > 0


def frames_of(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    units: Units = ASE,
    is_virial: bool = False,
) -> list[Frame]:
    """The frames of arrays, in the units of these.

    Args:
        path: of the file, for messages.
        arrays: by what they are: positions [n_frames, n_atoms, 3]; numbers [n_atoms] or [n_frames, n_atoms], integers
            or symbols, in the second form with `PADDING` or "" where a frame has fewer atoms; and, as they are there,
            counts [n_frames] of the atoms; energies, as many as frames; forces as positions; cells, see `_cells`; pbc,
            see `_periodic`; stresses [n_frames, 3, 3], [n_frames, 9] or, in Voigt's order, [n_frames, 6]; source
            [n_frames], names of the groups; charge and multiplicity, one for all frames or one for each.
        units: of the arrays, which the stress of a virial needs.
        is_virial: whether the stresses are virials.

    Returns:
        The frames. Without pbc, those directions are periodic whose cell vector is not zero. Only frames that are
        periodic in all directions have a stress.

    Raises:
        MdpotError: arrays of other shapes, or of other things than numbers.
    """
    positions = _real(path, "positions", arrays["positions"])
    if positions.ndim != 3 or positions.shape[2] != 3 or 0 in positions.shape:
        raise MdpotError(f"{path}: positions must have the shape [n_frames, n_atoms, 3]; got {list(positions.shape)}.")
    n, n_atoms, _ = positions.shape
    numbers, there = _atoms(path, arrays, n, n_atoms)
    energies, forces, cells, stresses = (
        _real(path, what, arrays[what]) if what in arrays else None
        for what in ("energies", "forces", "cells", "stresses")
    )
    if energies is not None and energies.size != n:
        raise MdpotError(f"{path}: energies must be {n}, one for each frame; got the shape {list(energies.shape)}.")
    if forces is not None and forces.shape != positions.shape:
        raise MdpotError(
            f"{path}: forces must have the shape of the positions, {list(positions.shape)}; got {list(forces.shape)}."
        )
    cells = np.zeros((n, 3, 3)) if cells is None else _cells(path, cells, n)
    periodic = _periodic(path, arrays["pbc"], n) if "pbc" in arrays else np.any(cells, axis=2)
    stresses = None if stresses is None else _stresses(path, stresses, n)
    sources = arrays.get("source")
    if sources is not None and np.shape(sources) != (n,):
        raise MdpotError(f"{path}: source must be {n} names; got the shape {list(np.shape(sources))}.")
    states = {what: np.broadcast_to(np.ravel(arrays[what]), n) for what in ("charge", "multiplicity") if what in arrays}
    flat = None if energies is None else energies.ravel()
    frames = [
        Frame(
            numbers=numbers[row][there[row]],
            positions=positions[row][there[row]],
            cell=cells[row].copy(),
            pbc=periodic[row].copy(),
            energy=None if flat is None else float(flat[row]),
            forces=None if forces is None else forces[row][there[row]],
            stress=None if stresses is None or not periodic[row].all() else stresses[row],
            group="" if sources is None else f"{there[row].sum()} atoms, {as_text(sources[row])}",
            index=row,
            electrons=electrons_in({what: values[row] for what, values in states.items()}),
        )
        for row in range(n)
    ]
    for frame in frames:
        if is_virial and frame.stress is not None:
            frame.stress = units.stress_of_virial(frame.stress, frame.cell)
    return frames


def as_text(value: object) -> str:
    """What an entry of an array says; bytes are decoded."""
    return decode(value) if isinstance(value, bytes) else str(value)


def _atoms(path: Path, arrays: Mapping[str, np.ndarray], n: int, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers, int64, and which of them are atoms, bool, both [n_frames, n_atoms]."""
    found = arrays["numbers"]
    numbers = _of_symbols(path, found) if found.dtype.kind in "US" else _real(path, "atomic numbers", found)
    if numbers.shape not in ((n_atoms,), (n, n_atoms)) or (numbers != np.round(numbers)).any():
        raise MdpotError(
            f"{path}: atomic numbers must be {n_atoms} integers, one for each atom of the positions, or as many for "
            f"each of the {n} frames; got the shape {list(numbers.shape)}."
        )
    there = ~np.isin(numbers, PADDING) if numbers.ndim == 2 else np.ones(n_atoms, dtype=bool)
    require_elements(numbers[there], str(path))
    numbers, there = (np.broadcast_to(array, (n, n_atoms)) for array in (numbers.astype(np.int64), there))
    counts = there.sum(axis=1)
    said = arrays.get("counts", counts).ravel()
    for row in np.flatnonzero((counts != said) | (counts == 0))[:1]:
        raise MdpotError(
            f"{path}, frame {row}: {counts[row]} of its atomic numbers are no padding; it must be at least 1, and the "
            f"number of atoms that the archive says, {said[row]}."
        )
    return numbers, there


def _of_symbols(path: Path, symbols: np.ndarray) -> np.ndarray:
    """The atomic numbers of symbols; 0 where there is none."""
    names, places = np.unique(symbols, return_inverse=True)
    texts = [as_text(name).strip() for name in names]
    for text in texts:
        if text and text not in atomic_numbers:
            raise unknown(f"element in {path}", text, [symbol for symbol in atomic_numbers if symbol != "X"])
    return np.array([atomic_numbers[text] if text else 0 for text in texts], float)[places].reshape(symbols.shape)


def _cells(path: Path, cells: np.ndarray, n: int) -> np.ndarray:
    """[n_frames, 3, 3] from one cell for all frames or one for each: vectors as rows, in one row of nine numbers, or
    the three edges of a box; or from the edge of a cube."""
    shape = list(cells.shape)
    if cells.size == 1:
        cells = np.full(3, cells.item())
    if cells.ndim > 1 and len(cells) == 1:
        cells = cells[0]
    if cells.shape == (3, 3) and n == 3 and (cells > 0).all():
        raise MdpotError(
            f"{path}: cells of the shape {shape} may be one cell or, of each of the 3 frames, the edges of a box. Save "
            "them in the shape [3, 3, 3]."
        )
    if cells.shape in ((3, 3), (9,), (3,)):
        cells = np.broadcast_to(cells, (n, *cells.shape))
    if cells.shape == (n, 3):
        return cells[:, :, None] * np.eye(3)
    if cells.shape not in ((n, 3, 3), (n, 9)):
        raise MdpotError(
            f"{path}: cells must have the shape [{n}, 3, 3], [{n}, 9] or, edges of boxes, [{n}, 3]; one cell of all "
            f"frames [3, 3], [9] or [3]; got {shape}."
        )
    return cells.reshape(n, 3, 3)


def _periodic(path: Path, pbc: np.ndarray, n: int) -> np.ndarray:
    """[n_frames, 3] bool from one word for all, one for each direction, one for each frame, or three for each frame."""
    if pbc.dtype.kind not in "biuf" or not np.isin(pbc, (0, 1)).all():
        raise MdpotError(f"{path}: pbc must be true or false; got {pbc.ravel()[:1].tolist()} in the type {pbc.dtype}.")
    if pbc.shape not in ((), (1,), (3,), (1, 3), (n,), (n, 1), (n, 3)):
        raise MdpotError(f"{path}: pbc must have the shape [3], [{n}] or [{n}, 3]; got {list(pbc.shape)}.")
    if pbc.shape == (3,) and n == 3 and len(np.unique(pbc)) > 1:
        raise MdpotError(f"{path}: pbc of the shape [3] may be of 3 directions or of 3 frames. Save it as [3, 3].")
    return np.broadcast_to(pbc[:, None] if pbc.shape == (n,) else pbc, (n, 3)).astype(bool)


def _stresses(path: Path, stresses: np.ndarray, n: int) -> np.ndarray:
    """[n_frames, 3, 3]."""
    if stresses.shape == (n, 6):
        return voigt_6_to_full_3x3_stress(stresses)
    if stresses.shape not in ((n, 3, 3), (n, 9)):
        raise MdpotError(
            f"{path}: stresses and virials must have the shape [{n}, 3, 3], [{n}, 9] or [{n}, 6] (xx yy zz yz xz xy); "
            f"got {list(stresses.shape)}."
        )
    return stresses.reshape(n, 3, 3)


def _real(path: Path, what: str, array: np.ndarray) -> np.ndarray:
    """An array as float64.

    Raises:
        MdpotError: it holds something else.
    """
    if array.dtype.kind not in "fiu":
        raise MdpotError(f"{path}: {what} must be real numbers; got the type {array.dtype}.")
    return np.asarray(array, dtype=np.float64)
