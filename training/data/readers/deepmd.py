"""DeePMD-kit's folders: systems with type.raw and, in sets, arrays of frames; eV, Å (Wang et al., 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError, unknown
from mdpot.structures import decode, read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw
from mdpot.training.data.units import ASE, Units

UNITS = replace(ASE, source="of the format")
KEYS = Keys("energy", "force", "virial")
TYPES, ELEMENTS = "type.raw", "type_map.raw"
PARAMETERS = "fparam.npy"
DEPTH = 4
"""Who gives a home folder by mistake does not wait until all of it is searched."""


def is_deepmd(path: Path) -> bool:
    """Whether a folder is a system of DeePMD-kit, or holds some, `DEPTH` folders down at most."""
    return path.is_dir() and next(_type_files(path), None) is not None


def parse_deepmd(path: Path, units: Units = UNITS) -> Raw:
    """What the systems in a folder hold, in the order of their names.

    A system is a folder with type.raw (a type for each atom), type_map.raw (the element of each type; that of a folder
    around it, up to `path`, serves as well) and sets, folders set.000 and so on, of coord.npy [n_frames, 3 n_atoms],
    box.npy [n_frames, 9] and, as they are there, energy.npy [n_frames], force.npy [n_frames, 3 n_atoms] and virial.npy
    [n_frames, 9]. A file nopbc in place of the boxes says that nothing is periodic. The same arrays as text in the
    system's own folder (coord.raw, ...) are read where there are no sets. In sets with real_atom_types.npy [n_frames,
    n_atoms], "mixed types", each frame has types of its own, and -1 is no atom.

    Args:
        path: the folder.
        units: of the files.

    Raises:
        MdpotError: a system without elements or frames, an unknown element, or an array that cannot be read or does
            not fit.
    """
    systems = sorted({file.parent for file in _type_files(path)})
    frames = [frame for system in systems for frame in _frames(_System.read(system, path), units)]
    for index, frame in enumerate(frames):
        frame.index = index
    present = {
        kind: any(getattr(frame, kind) is not None for frame in frames) for kind in ("energy", "forces", "stress")
    }
    keys = replace(KEYS, **{kind: None for kind, there in present.items() if not there}, notes=tuple(_notes(systems)))
    return Raw(frames, keys, units)


def _notes(systems: Sequence[Path]) -> Iterator[str]:
    """Parameters of the frames that are not the same in all of them."""
    files = [folder / PARAMETERS for system in systems for folder in system.glob("set.*")]
    if len({values for file in files for values in _parameters(file)}) > 1:
        yield (
            f"{PARAMETERS} differs among the frames, as where their electrons have several temperatures, and networks "
            "do not know it: such frames contradict each other."
        )


def _parameters(file: Path) -> set[tuple[float, ...]]:
    """The parameters that the frames of a set have, in single precision; none at all where the file is not there."""
    if not file.is_file():
        return {()}
    values = np.atleast_1d(_binary(file)).astype(np.float32)
    return {tuple(row) for row in np.unique(values.reshape(len(values), -1), axis=0).tolist()}


def _type_files(path: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        yield from path.glob("*/" * depth + TYPES)


@dataclass(frozen=True)
class _System:
    """A folder of frames with the same number of atoms.

    Attributes:
        types: [n_atoms], from 0 on.
        elements: atomic number of each type.
        periodic: whether it has boxes.
        sets: folders with the arrays of frames, and how the names of these end.
    """

    types: np.ndarray
    elements: np.ndarray
    periodic: bool
    sets: Sequence[Path]
    suffix: str

    @classmethod
    def read(cls, folder: Path, root: Path) -> _System:
        types = _text(folder / TYPES, int).ravel()
        symbols = _type_map_around(folder, root)
        check_types(folder / TYPES, types, symbols, lowest=0)
        sets, suffix = sorted(s for s in folder.glob("set.*") if s.is_dir()), ".npy"
        if not sets:
            sets, suffix = [folder], ".raw"
        if not all((s / f"coord{suffix}").is_file() for s in sets):
            raise MdpotError(
                f"{folder}: a system of DeePMD-kit has coord.npy in each folder set.*, or coord.raw; it is missing."
            )
        elements = np.array([atomic_numbers[symbol] for symbol in symbols])
        return cls(types, elements, not (folder / "nopbc").exists(), sets, suffix)


def _frames(system: _System, units: Units) -> Iterator[Frame]:
    n_atoms = len(system.types)
    for folder in system.sets:
        positions = _array(folder, "coord", system.suffix, (n_atoms, 3))
        assert positions is not None
        n = len(positions)
        cells = _array(folder, "box", system.suffix, (3, 3), n) if system.periodic else np.zeros((n, 3, 3))
        if cells is None:
            raise MdpotError(
                f"{folder}: it has no box{system.suffix}, and there is no file named nopbc in the system's folder, "
                "which says that nothing is periodic."
            )
        energies = _array(folder, "energy", system.suffix, (), n)
        forces = _array(folder, "force", system.suffix, (n_atoms, 3), n)
        virials = _array(folder, "virial", system.suffix, (3, 3), n) if system.periodic else None
        for row, types in enumerate(_types(system, folder, n)):
            there = types >= 0
            if not there.any():
                raise MdpotError(f"{folder}: frame {row} has no atom: all of its types are -1.")
            yield Frame(
                numbers=system.elements[types[there]],
                positions=positions[row][there],
                cell=cells[row],
                pbc=np.full(3, system.periodic),
                energy=None if energies is None else float(energies[row]),
                forces=None if forces is None else forces[row][there],
                stress=None if virials is None else units.stress_of_virial(virials[row], cells[row]),
            )


def _types(system: _System, folder: Path, n_frames: int) -> np.ndarray:
    """[n_frames, n_atoms] int64."""
    file = folder / "real_atom_types.npy"
    if not file.is_file():
        return np.broadcast_to(system.types, (n_frames, len(system.types)))
    types = _array(folder, "real_atom_types", ".npy", (len(system.types),), n_frames)
    assert types is not None
    check_types(file, types, system.elements, lowest=-1)
    return types.astype(np.int64)


def check_types(file: Path, types: np.ndarray, elements: Sequence[object] | np.ndarray, lowest: int) -> None:
    """Refuses types that have no element."""
    if not len(types) or (types != np.round(types)).any() or types.min() < lowest or types.max() >= len(elements):
        raise MdpotError(
            f"{file}: types must be integers from {lowest} to {len(elements) - 1}, for {ELEMENTS} names "
            f"{len(elements)} elements; got {', '.join(f'{t:g}' for t in np.unique(types)[:10]) or 'none'}."
        )


def type_map(file: Path) -> list[str]:
    """The element of each type, as type_map.raw names them.

    Raises:
        MdpotError: what is no element.
    """
    symbols = decode(read_bytes(file)).split()
    for symbol in symbols:
        if symbol not in atomic_numbers or symbol == "X":
            raise unknown(f"element in {file}", symbol, [s for s in atomic_numbers if s != "X"])
    return symbols


def _type_map_around(folder: Path, root: Path) -> list[str]:
    """The element of each type, from the folder or from one around it, up to the root."""
    around = [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    file = next((place / ELEMENTS for place in around if (place / ELEMENTS).is_file()), None)
    if file is None:
        raise MdpotError(
            f"{folder}: no {ELEMENTS}, here or in a folder around it up to {root}, says which elements the types of "
            f"{TYPES} are. Write it, an element a line in the order of the types, as type_map in DeePMD-kit's input."
        )
    return type_map(file)


def _array(
    folder: Path, name: str, suffix: str, shape: tuple[int, ...], n_frames: int | None = None
) -> np.ndarray | None:
    """An array of a set, [n_frames, *shape] float64; None where there is none.

    Raises:
        MdpotError: it cannot be read, or is not of this shape.
    """
    file = folder / f"{name}{suffix}"
    if not file.is_file():
        return None
    found = _binary(file) if suffix == ".npy" else _text(file, float)
    size = int(np.prod(shape))
    n = found.size // size if n_frames is None and size else n_frames
    if n is None or found.size != n * size or (found.ndim > 1 and len(found) != n) or not n:
        wanted = f"[{'n_frames' if n_frames is None else n_frames}, {size}]"
        raise MdpotError(f"{file}: it must have the shape {wanted}, a row for each frame; got {list(found.shape)}.")
    return found.reshape(n, *shape).astype(np.float64)


def _binary(file: Path) -> np.ndarray:
    try:
        with file.open("rb") as opened:
            found = np.load(opened, allow_pickle=False)
    except Exception as error:  # what numpy raises depends on what it meets
        reason = " ".join(str(error).split())
        if "allow_pickle" in reason:
            reason = "it holds Python objects, or something else"
        raise MdpotError(f"{file}: no array of NumPy, truncated or damaged ({reason}). Copy it again.") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise MdpotError(f"{file}: it must be an array of real numbers.")
    return found


def _text(file: Path, kind: type) -> np.ndarray:
    """Numbers of a text file, a row a line."""
    lines = decode(read_bytes(file)).splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # that there are comments alone
            return np.loadtxt(lines, dtype=kind, ndmin=2)
    except (ValueError, UserWarning) as error:
        raise MdpotError(f"{file}: it must hold numbers, the same number in each line ({error}).") from None
