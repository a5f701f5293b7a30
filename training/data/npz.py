"""NumPy archives: the public rMD17 files (kcal/mol, Å) and the water-scan files (eV, Å)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, make_groups
from mdpot.units import KCAL_PER_MOL

_RMD17_KEYS = ("nuclear_charges", "coords", "energies", "forces")
_WATER_KEYS = ("numbers", "positions", "forces", "energies", "cells", "source")


def read_npz(path: Path | str) -> list[Frame]:
    """The frames of an archive of either kind, told apart by its keys.

    Raises:
        MdpotError: no such file, damaged, or of another kind.
    """
    arrays = load_arrays(path)
    if set(_RMD17_KEYS) <= arrays.keys():
        return rmd17_frames(arrays, range(len(arrays["coords"])))
    if set(_WATER_KEYS) <= arrays.keys():
        return read_water_npz([path])
    raise MdpotError(
        f"{path}: the arrays of an archive must be {', '.join(_RMD17_KEYS)} (as rMD17) "
        f"or {', '.join(_WATER_KEYS)}; got {', '.join(sorted(arrays))}."
    )


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
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise MdpotError(f"{path}: no npz archive, truncated or damaged ({error}). Copy it again.") from None


def rmd17_frames(arrays: dict[str, np.ndarray], rows: Iterable[int]) -> list[Frame]:
    """Some of the frames of an rMD17 archive; no cell, each frame its own group.

    Args:
        arrays: nuclear_charges [n_atoms], coords [n, n_atoms, 3] Å, energies [n] kcal/mol,
            forces [n, n_atoms, 3] kcal/mol/Å.
        rows: of the archive.
    """
    numbers = arrays["nuclear_charges"].astype(np.int64)
    return [
        Frame(
            numbers=numbers,
            positions=arrays["coords"][row].astype(np.float64),
            cell=np.zeros((3, 3)),
            pbc=np.zeros(3, dtype=bool),
            energy=float(arrays["energies"][row]) * KCAL_PER_MOL,
            forces=arrays["forces"][row].astype(np.float64) * KCAL_PER_MOL,
            group=str(row),
        )
        for row in rows
    ]


def read_water_npz(paths: Iterable[Path | str]) -> list[Frame]:
    """The periodic frames of several water-scan archives (eV, Å), grouped by their `source`.

    Raises:
        MdpotError: no such file, damaged, or of another kind.
    """
    frames: list[Frame] = []
    names: list[str] = []
    for path in paths:
        arrays = load_arrays(path)
        lacking = [key for key in _WATER_KEYS if key not in arrays]
        if lacking:
            raise MdpotError(f"{path}: a water-scan archive holds {', '.join(_WATER_KEYS)}; lacks {lacking}.")
        names.extend(f"{len(arrays['numbers'])} atoms, {source}" for source in arrays["source"])
        frames.extend(
            Frame(
                numbers=arrays["numbers"].astype(np.int64),
                positions=arrays["positions"][row].astype(np.float64),
                cell=arrays["cells"][row].astype(np.float64),
                pbc=np.ones(3, dtype=bool),
                energy=float(arrays["energies"][row]),
                forces=arrays["forces"][row].astype(np.float64),
            )
            for row in range(len(arrays["energies"]))
        )
    for frame, group in zip(frames, make_groups(names), strict=True):
        frame.group = group
    return frames
