"""Tables of structures with properties, a number each: MatBench's json, lists of structures, CSV with file names."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.packed import head, unpacked_name
from mdpot.structures import decode, read_bytes, read_structures
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw

#: How the target of a list of structures is called; the list holds one or several numbers under "y".
TARGET = "y"
#: Bytes in which one structure of pymatgen at least begins.
_START = 50_000
_STRUCTURE = re.compile(rb'"structures?"\s*:\s*[\[{]')


def parse_json(path: Path) -> Raw:
    """The structures of a json file, plain or packed, each with its properties.

    Either a table as pandas writes it (`orient="split"`) with structures of pymatgen in one of its columns, which is
    how MatBench publishes its tasks, and numbers in others; or a list of `structure_id, positions, cell,
    atomic_numbers, y`. A frame's place is its row in the index of the table, in the list its place there.

    Raises:
        MdpotError: no json, another layout, a site that several elements share, lengths that do not fit.
    """
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise MdpotError(f"{path}: no json, truncated or damaged ({error}). Copy it again.") from None
    if isinstance(content, dict) and {"index", "columns", "data"} <= content.keys():
        return _raw(_of_table(path, content))
    if isinstance(content, list) and content and isinstance(content[0], dict) and "atomic_numbers" in content[0]:
        return _raw([_of_entry(path, n, entry) for n, entry in enumerate(content)])
    raise MdpotError(
        f"{path}: its json is neither a table of pandas (index, columns, data) with structures of pymatgen, as "
        "MatBench has them, nor a list of structures (positions, cell, atomic_numbers, y)."
    )


def parse_csv(path: Path) -> Raw:
    """The structures that a CSV table names, each with the numbers of its row as properties.

    One column holds names of files, relative to the table, of one structure each in any format that ASE reads; it is
    found by its content. The others are properties where they hold numbers; an empty field is an absent one.

    Raises:
        MdpotError: no column of file names, a file that is not there, or one of several structures.
    """
    rows = list(csv.DictReader(io.StringIO(decode(read_bytes(path)))))
    columns = [key for key in (rows[0] if rows else ()) if key is not None]
    named = [c for c in columns if all(r[c] for r in rows) and (path.parent / str(rows[0][c])).is_file()]
    if not named:
        held = ", ".join(columns) or "nothing"
        raise MdpotError(
            f"{path}: no column of its table names files of structures that are there, relative to "
            f"{str(path.parent)!r}; it holds {held}."
        )
    frames = []
    for n, row in enumerate(rows):
        file = path.parent / row[named[0]]
        structures = read_structures(file)
        if len(structures) != 1:
            raise MdpotError(f"{path}, row {n}: a row is one structure; {str(file)!r} holds {len(structures)}.")
        atoms = structures[0]
        frames.append(
            Frame(
                atoms.numbers.astype(np.int64),
                atoms.positions.astype(np.float64),
                np.array(atoms.cell.array, np.float64),
                np.array(atoms.pbc, bool),
                group=row[named[0]],
                index=n,
                properties={c: v for c in columns if c not in named and (v := _number(row[c])) is not None},
            )
        )
    return _raw(frames)


def is_pymatgen(path: Path) -> bool:
    """Whether json holds structures of pymatgen that have names, in no table of pandas."""
    if not unpacked_name(path).endswith(".json"):
        return False
    start = head(path, _START)
    return b'"lattice"' in start and _STRUCTURE.search(start) is not None


def _raw(frames: list[Frame]) -> Raw:
    names = dict.fromkeys(name for frame in frames for name in frame.properties)
    return Raw(frames, Keys(properties=tuple(names)))


def _of_table(path: Path, table: Mapping[str, Any]) -> list[Frame]:
    columns, rows = table["columns"], table["data"]
    places = [n for n, value in enumerate(rows[0] if rows else ()) if isinstance(value, dict) and "lattice" in value]
    if len(places) != 1 or len(table["index"]) != len(rows):
        raise MdpotError(f"{path}: one column must hold structures of pymatgen; it has {', '.join(map(str, columns))}.")
    frames = []
    for index, row in zip(table["index"], rows, strict=True):
        at = f"{path}, row {index}"
        numbers, positions, cell, pbc = of_pymatgen(at, row[places[0]])
        values = {str(c): _number(v) for n, (c, v) in enumerate(zip(columns, row, strict=True)) if n != places[0]}
        known = {name: value for name, value in values.items() if value is not None}
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


def _of_entry(path: Path, n: int, entry: Mapping[str, Any]) -> Frame:
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
    values = {name: _number(value) for name, value in zip(names, targets, strict=True)}
    known = {name: value for name, value in values.items() if value is not None}
    pbc = np.full(3, bool(cell.any()))
    return Frame(numbers, positions, cell, pbc, group=str(entry.get("structure_id", n)), index=n, properties=known)


def _number(value: Any) -> float | None:
    """A finite number, or a text that is one; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
