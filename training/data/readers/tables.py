"""Structures with properties, a number each, in json: MatBench's tables, lists of structures, those of JARVIS."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.packed import has_ending, head
from mdpot.structures import read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.label_keys import looks_like_label
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw

#: How the target of a list of structures is called; the list holds one or several numbers under "y".
TARGET = "y"
#: How tables write that there is no number.
ABSENT = ("", "na", "n/a", "#n/a", "nan", "none", "null", "-", "--", "inf", "-inf")
Texts = dict[str, list[str]]
#: Bytes in which one structure of pymatgen at least begins.
_START = 50_000
_TABLE = re.compile(rb'\[|\{\s*"(?:index|columns|data)"')
_STRUCTURE = re.compile(rb'"structures?"\s*:\s*[\[{]')
#: Or a CIF in its place, as in MEGNet's data.
_CIF = re.compile(rb'"structures?"\s*:\s*\[?\s*"(?:\\n|\s)*(?:#|data_)')


def parse_json(path: Path) -> Raw:
    """The structures of a json file, plain or packed, each with its properties.

    Either a table as pandas writes it (`orient="split"`) with structures of pymatgen in one of its columns, which is
    how MatBench publishes its tasks, and numbers in others; or a list of `structure_id, positions, cell,
    atomic_numbers, y`; or one as JARVIS and ALIGNN have it, of `jid, atoms` and numbers. A frame's place is its row in
    the index of the table, in a list its place there.

    Raises:
        MdpotError: no json, another layout, forces in place of a property, a site that several elements share, lengths
            that do not fit.
    """
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise MdpotError(f"{path}: no json, truncated or damaged ({error}). Copy it again.") from None
    texts: Texts = {}
    if isinstance(content, dict) and {"index", "columns", "data"} <= content.keys():
        return of_properties(_of_table(path, content, texts), texts)
    if isinstance(content, list) and content and isinstance(content[0], dict):
        _refuse_labels(path, content[0])
    if isinstance(content, list) and content and isinstance(content[0], dict) and "atomic_numbers" in content[0]:
        return of_properties([_of_entry(path, n, entry, texts) for n, entry in enumerate(content)], texts)
    if isinstance(content, list) and content and all(_is_of_jarvis(entry) for entry in content):
        frames = [_of_jarvis(f"{path}, entry {n}", n, entry, texts) for n, entry in enumerate(content)]
        return of_properties(frames, texts)
    raise MdpotError(
        f"{path}: its json is neither a table of pandas (index, columns, data) with structures of pymatgen, as "
        "MatBench has them, nor a list of structures (positions, cell, atomic_numbers, y), or of atoms as JARVIS has "
        "them."
    )


def _refuse_labels(path: Path, entry: Mapping[str, Any]) -> None:
    """Refuses a list whose structures have forces in place of a property."""
    labels = [key for key, value in entry.items() if looks_like_label(key) and isinstance(value, list)]
    if labels and TARGET not in entry:
        per_atom = " Its total_energy may be per atom, as ALIGNN-FF has it." if _is_of_jarvis(entry) else ""
        raise MdpotError(
            f"{path}: labels of atoms, {' and '.join(labels)}, are not read from a list in json. Write it as extended "
            f"XYZ with ASE, or as arrays in an npz: see docs/own-data.md.{per_atom}"
        )


def is_table(start: bytes) -> bool:
    """Whether json is a table or a list; ASE's own, a database, is an object whose keys are row numbers or `ids`."""
    return _TABLE.match(start.lstrip()) is not None


def is_pymatgen(path: Path) -> bool:
    """Whether json holds structures of pymatgen, or CIFs in their place, that have names, in no table of pandas."""
    if not has_ending(path, ".json"):
        return False
    start = head(path, _START)
    return (b'"lattice"' in start and _STRUCTURE.search(start) is not None) or _CIF.search(start) is not None


def of_properties(frames: list[Frame], texts: Texts) -> Raw:
    """Structures whose labels are properties alone, and what stands in place of numbers, by property."""
    names = dict.fromkeys(name for frame in frames for name in frame.properties)
    return Raw(frames, Keys(properties=tuple(names)), texts=texts)


def numbers_in(record: Mapping[str, Any], texts: Texts) -> dict[str, float]:
    """The finite numbers of a record by name; what else is said under a name is added to that in `texts`."""
    found = {}
    for name, value in record.items():
        if (known := number(value)) is not None:
            found[name] = known
        elif is_said(value):
            texts.setdefault(name, []).append(str(value))
    return found


def is_said(value: Any) -> bool:
    """Whether something that is no number is a text or a truth, and no word for an absent one."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() not in ABSENT)


def _of_table(path: Path, table: Mapping[str, Any], texts: Texts) -> list[Frame]:
    columns, rows = table["columns"], table["data"]
    places = [n for n, value in enumerate(rows[0] if rows else ()) if isinstance(value, dict) and "lattice" in value]
    if len(places) != 1 or len(table["index"]) != len(rows):
        raise MdpotError(f"{path}: one column must hold structures of pymatgen; it has {', '.join(map(str, columns))}.")
    frames = []
    for index, row in zip(table["index"], rows, strict=True):
        at = f"{path}, row {index}"
        numbers, positions, cell, pbc = of_pymatgen(at, row[places[0]])
        values = {str(c): v for n, (c, v) in enumerate(zip(columns, row, strict=True)) if n != places[0]}
        known = numbers_in(values, texts)
        place = index if isinstance(index, int) else len(frames)
        frames.append(Frame(numbers, positions, cell, pbc, group=str(index), index=place, properties=known))
    return frames


def of_pymatgen(at: str, structure: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Atomic numbers, positions, cell and periodic directions of a structure as pymatgen writes it.

    Raises:
        MdpotError: no such structure, or a site that several elements share.
    """
    try:
        cell = np.array(structure["lattice"]["matrix"], np.float64)
        pbc = np.array(structure["lattice"].get("pbc", (True, True, True)), bool)
        symbols = []
        for site in structure["sites"]:
            (species,) = site["species"]
            if species["occu"] != 1:
                raise MdpotError(f"{at}: a site is occupied by {species['occu']:g} {species['element']}, not by one.")
            symbols.append(species["element"])
        places = np.array([site["abc"] for site in structure["sites"]], np.float64).reshape(-1, 3)
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols], np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise MdpotError(f"{at}: no structure of pymatgen with one element a site ({error}).") from None
    return numbers, places @ cell, cell, pbc


def _of_entry(path: Path, n: int, entry: Mapping[str, Any], texts: Texts) -> Frame:
    try:
        numbers = np.array(entry["atomic_numbers"], np.int64)
        positions = np.array(entry["positions"], np.float64).reshape(-1, 3)
        cell = np.array(entry.get("cell") or np.zeros((3, 3)), np.float64).reshape(3, 3)
        target = entry.get(TARGET)
    except (KeyError, TypeError, ValueError) as error:
        raise MdpotError(f"{path}, entry {n}: it is no structure ({error}).") from None
    if len(positions) != len(numbers):
        raise MdpotError(f"{path}, entry {n}: {len(numbers)} atomic numbers, but {len(positions)} positions.")
    targets = target if isinstance(target, Sequence) and not isinstance(target, str) else [target]
    names = [TARGET] if len(targets) == 1 else [f"{TARGET}{k}" for k in range(len(targets))]
    known = numbers_in(dict(zip(names, targets, strict=True)), texts)
    pbc = np.full(3, bool(cell.any()))
    return Frame(numbers, positions, cell, pbc, group=str(entry.get("structure_id", n)), index=n, properties=known)


def _is_of_jarvis(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("atoms"), dict) and "lattice_mat" in entry["atoms"]


def _of_jarvis(at: str, n: int, entry: Mapping[str, Any], texts: Texts) -> Frame:
    """A structure as jarvis-tools writes it, with all numbers beside it."""
    atoms = entry["atoms"]
    try:
        cell = np.array(atoms["lattice_mat"], np.float64).reshape(3, 3)
        places = np.array(atoms["coords"], np.float64).reshape(-1, 3)
        numbers = np.array([atomic_numbers[symbol.strip()] for symbol in atoms["elements"]], np.int64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MdpotError(f"{at}: no structure of JARVIS ({error}).") from None
    if len(places) != len(numbers):
        raise MdpotError(f"{at}: {len(numbers)} elements, but {len(places)} coords.")
    positions = places if atoms.get("cartesian") else places @ cell
    known = numbers_in({name: value for name, value in entry.items() if name != "jid"}, texts)
    return Frame(numbers, positions, cell, np.ones(3, bool), group=str(entry.get("jid", n)), index=n, properties=known)


def number(value: Any) -> float | None:
    """A finite number, or a text that is one; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
