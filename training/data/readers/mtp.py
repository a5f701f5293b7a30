"""MTP's training files (.cfg): eV, eV/Å, and the virial in eV (MLIP; Novikov et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.errors import MdpotError
from mdpot.structures import decode, read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.readers.deepmd import ELEMENTS, check_types, type_map
from mdpot.training.data.reading import LABELS, Raw
from mdpot.training.data.units import ASE, Units

UNITS = replace(ASE, source="of the format")
KEYS = Keys("energy", "forces", "virial")
BEGIN, END = "BEGIN_CFG", "END_CFG"
#: The words that begin the parts of a configuration.
_PARTS = ("size", "supercell", "atomdata:", "energy", "plusstress:", "stress:", "virial:", "feature")
_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def is_mtp(start: bytes) -> bool:
    """Whether a file that begins so is one of MTP."""
    return start.lstrip().startswith(BEGIN.encode())


def parse_mtp(path: Path, units: Units = UNITS) -> Raw:
    """What a file of MTP holds.

    Atom types are numbers, from 0 on; which elements they are, a file type_map.raw beside it says, an element a line,
    as DeePMD-kit has it. PlusStress is the virial. Configurations without a Supercell are in no cell.

    Args:
        path: the file, plain or packed.
        units: of the file.

    Raises:
        MdpotError: no type_map.raw, or one that lacks a type; truncated, or a configuration that lacks a part.
    """
    file = path.with_name(ELEMENTS)
    if not file.is_file():
        raise MdpotError(
            f"{path}: an MTP file, whose atom types are numbers, not elements. Write {ELEMENTS} beside it, an element "
            "a line in the order of the types, from type 0 on."
        )
    symbols = type_map(file)
    elements = np.array([atomic_numbers[symbol] for symbol in symbols])
    frames, n_signed = [], 0
    for index, (start, lines) in enumerate(_configurations(path)):
        where = f"{path}, configuration {index + 1} (line {start})"
        parts = _parts(lines, where)
        n_signed += "plusstress:" not in parts and not parts.keys().isdisjoint(("stress:", "virial:"))
        frames.append(_frame(parts, elements, units, index, where))
    there = {kind: any(getattr(frame, kind) is not None for frame in frames) for kind in LABELS}
    notes = []
    if n_signed:
        notes.append(
            f"{n_signed} configurations have a stress that is not called PlusStress; MLIP's versions differ in its "
            "sign, and it is not read."
        )
    return Raw(frames, replace(KEYS, notes=tuple(notes), **{kind: None for kind in LABELS if not there[kind]}), units)


def _configurations(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Of each configuration the number of its first line, from 1, and the lines in it."""
    begun, inside = 0, []
    for number, line in enumerate(decode(read_bytes(path)).split("\n"), 1):
        word = line.strip()
        if word == BEGIN:
            if begun:
                raise MdpotError(f"{path}, line {begun}: this configuration has no {END}. Is the file damaged?")
            begun, inside = number, []
        elif word == END and begun:
            yield begun, inside
            begun = 0
        elif begun and word:
            inside.append(word)
    if begun:
        raise MdpotError(f"{path}: truncated: the configuration of line {begun} has no {END}. Copy it again.")


def _parts(lines: Sequence[str], where: str) -> dict[str, tuple[list[str], list[list[str]]]]:
    """By name, in lower case, the words beside the name of each part and the rows below it."""
    parts: dict[str, tuple[list[str], list[list[str]]]] = {}
    rows: list[list[str]] = []
    for line in lines:
        name, *words = line.split()
        if name.lower() in _PARTS:
            rows = []
            parts[name.lower()] = (words, rows)
        elif not parts:
            raise MdpotError(f"{where}: it must begin with Size; got {line[:60]!r}.")
        else:
            rows.append([name, *words])
    return parts


def _frame(
    parts: dict[str, tuple[list[str], list[list[str]]]], elements: np.ndarray, units: Units, index: int, where: str
) -> Frame:
    columns, rows = parts.get("atomdata:", ([], []))
    try:
        n_atoms = int(parts["size"][1][0][0])
        data = np.array(rows, dtype=np.float64)
        vectors = np.array([row[:3] for row in parts.get("supercell", ([], []))[1]], dtype=np.float64).reshape(-1, 3)
        energies = parts.get("energy", ([], []))[1]
        energy = float(energies[0][0]) if energies else None
        names, stresses = parts.get("plusstress:", ([], []))
        virial = None
        if stresses:
            by_name = dict(zip(names or _VOIGT, map(float, stresses[0]), strict=True))
            virial = voigt_6_to_full_3x3_stress([by_name[name] for name in _VOIGT])
    except (ValueError, KeyError, IndexError) as error:
        raise MdpotError(f"{where}: it cannot be read ({type(error).__name__}: {error}).") from None
    if data.shape != (n_atoms, len(columns)) or len(vectors) > 3:
        raise MdpotError(
            f"{where}: its AtomData must be {n_atoms} rows, as its Size says, of {len(columns)} columns "
            f"({' '.join(columns)}), and its Supercell at most three; got {len(rows)} rows, and {len(vectors)}."
        )
    cell = np.zeros((3, 3))
    cell[: len(vectors)] = vectors
    pbc = np.arange(3) < len(vectors)
    types = _columns(data, columns, ("type",), where)
    check_types(Path(where), types.ravel(), elements, lowest=0)
    if "cartes_x" in columns:
        positions = _columns(data, columns, ("cartes_x", "cartes_y", "cartes_z"), where)
    else:
        positions = _columns(data, columns, ("direct_x", "direct_y", "direct_z"), where) @ cell
    return Frame(
        numbers=elements[types.ravel().astype(np.int64)].astype(np.int64),
        positions=positions,
        cell=cell,
        pbc=pbc,
        energy=energy,
        forces=_columns(data, columns, ("fx", "fy", "fz"), where) if "fx" in columns else None,
        stress=units.stress_of_virial(virial, cell)
        if virial is not None and pbc.all() and np.isfinite(cell).all()
        else None,
        index=index,
    )


def _columns(data: np.ndarray, columns: Sequence[str], names: Sequence[str], where: str) -> np.ndarray:
    """Columns [n_atoms, len(names)] of the atoms."""
    lacking = [name for name in names if name not in columns]
    if lacking:
        raise MdpotError(f"{where}: AtomData needs the columns {' '.join(names)}; got {' '.join(columns) or 'none'}.")
    return data[:, [columns.index(name) for name in names]]
