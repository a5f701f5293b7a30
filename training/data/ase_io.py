"""Whatever ASE reads: extended XYZ, databases, trajectories, outputs of DFT codes. ASE's units are ours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import filetype
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, make_groups
from mdpot.training.data.runner import read_bytes

# Where labels lie in files from other tools, besides the calculator that ASE attaches.
ENERGY_KEYS = (
    "energy",
    "REF_energy",
    "ref_energy",
    "dft_energy",
    "DFT_energy",
    "total_energy",
)
FORCES_KEYS = ("forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces", "force")
STRESS_KEYS = ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress")
VIRIAL_KEYS = ("virial", "virials", "REF_virial", "REF_virials", "dft_virial")
GROUP_KEYS = ("group", "source", "source_frame", "trajectory", "config_type")


def read_ase(path: Path | str) -> list[Frame]:
    """The frames of any file that ASE reads.

    Labels come from the calculator results, else from `info` and `arrays` under `ENERGY_KEYS`, `FORCES_KEYS`,
    `STRESS_KEYS` and `VIRIAL_KEYS` (stress = -virial / volume). Groups come from `info` under the first of
    `GROUP_KEYS` that a frame has, and go through `make_groups`.

    Args:
        path: the file; ASE tells its format from name and content.

    Returns:
        The frames in eV and Å; labels that are not there are None.

    Raises:
        MdpotError: no such file, empty, or one that ASE cannot read.
    """
    path = Path(path)
    if not path.is_file():
        raise MdpotError(f"{path}: no such file. Check the path.")
    if path.stat().st_size == 0:
        raise MdpotError(f"{path}: empty: it holds no frame.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ASE's readers warn about fields that are not used here.
            structures = _read(path)
    # ASE's many readers raise whatever their parsers do (IndexError, StopIteration, KeyError, ...).
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MdpotError(
            f"{path}: ASE cannot read it ({reason[:120]}). It is truncated or in a format "
            "that ASE does not know: copy it again, or convert it to extended XYZ with energies and forces."
        ) from None
    if not structures:
        raise MdpotError(f"{path}: empty: it holds no frame.")
    frames = []
    for index, atoms in enumerate(structures):
        try:
            frames.append(from_atoms(atoms))
        except (ValueError, TypeError) as error:
            raise MdpotError(f"{path}, frame {index}: {error}") from None
    for frame, group in zip(frames, make_groups([frame.group for frame in frames]), strict=True):
        frame.group = group
    return frames


def _read(path: Path) -> list[Atoms]:
    if path.suffix == ".gz" and filetype(str(path)) == "extxyz":
        # ASE's reader seeks back and forth, which costs a minute in a gzipped file.
        return read(io.StringIO(read_bytes(path).decode()), index=":", format="extxyz")  # type: ignore
    structures = read(path, index=":")
    return structures if isinstance(structures, list) else [structures]


def from_atoms(atoms: Atoms) -> Frame:
    """The frame of an ASE structure; its group is the name in `info`, "" where there is none.

    Raises:
        MdpotError: labels of a wrong shape.
    """
    results = atoms.calc.results if atoms.calc is not None else {}
    energy = _first((results, atoms.info), ENERGY_KEYS)
    forces = _first((results, atoms.arrays), FORCES_KEYS)
    if forces is not None:
        forces = np.asarray(forces, dtype=np.float64)
        if forces.shape != (len(atoms), 3):
            raise MdpotError(f"forces must have the shape {(len(atoms), 3)}; got {forces.shape}.")
    group = _first((atoms.info,), GROUP_KEYS)
    return Frame(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions.astype(np.float64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        energy=None if energy is None else float(energy),
        forces=forces,
        stress=_stress(atoms, results),
        group="" if group is None else str(group),
    )


def _first(places: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> Any:
    """The first value that is there, key by key, each in all places."""
    places = tuple(places)
    return next((place[key] for key in keys for place in places if place.get(key) is not None), None)


def _stress(atoms: Atoms, results: Mapping[str, Any]) -> np.ndarray | None:
    """Stress [3, 3] in eV/Å^3, tension positive, from a stress in Voigt or full form or from a virial."""
    stress = _first((results, atoms.info), STRESS_KEYS)
    if stress is None:
        virial = _first((atoms.info,), VIRIAL_KEYS)
        if virial is None or not atoms.pbc.all():
            return None
        stress = -np.asarray(virial, dtype=np.float64) / atoms.get_volume()
    stress = np.asarray(stress, dtype=np.float64)
    if stress.size == 6:
        return voigt_6_to_full_3x3_stress(stress.ravel())
    if stress.size == 9:
        return stress.reshape(3, 3)
    raise MdpotError(f"a stress has 6 (Voigt) or 9 components; got the shape {stress.shape}.")
