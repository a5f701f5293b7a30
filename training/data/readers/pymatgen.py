"""Structures of pymatgen with their labels in json: MPtrj, MatPES, what CHGNet makes of VASP's outputs, and others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mdpot.errors import MdpotError
from mdpot.packed import head, unpacked_name
from mdpot.structures import parse_cif, read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Asked, Keys, choose_keys, collect, numbers_of
from mdpot.training.data.readers.tables import number, of_pymatgen
from mdpot.training.data.reading import Raw
from mdpot.training.data.units import ASE, VASP, parse_units

#: Bytes in which one structure at least begins.
_START = 50_000
_STRUCTURE = re.compile(rb'"structures?"\s*:\s*[\[{]')
#: Or a CIF in its place, as in MEGNet's data.
_CIF = re.compile(rb'"structures?"\s*:\s*\[?\s*"(?:\\n|\s)*(?:#|data_)')
#: VASP's energies by the names that pymatgen and its data sets give them, and what they are; forces are the derivative
#: of the free energy, and corrections of a composition are no energy of a structure.
_ENERGIES = {"uncorrected_total_energy": "energy", "e_0_energy": "energy", "e_fr_energy": "free_energy"}
_CORRECTED = "corrected_total_energy"
#: Keys of data whose stress is VASP's, in kbar and positive under compression.
_OF_VASP = {*_ENERGIES, "matpes_id"}
_PLURAL = {"structures": "structure", "energies": "energy"}


def is_pymatgen(path: Path) -> bool:
    """Whether json holds structures of pymatgen that have names, in no table of pandas."""
    if not unpacked_name(path).endswith(".json"):
        return False
    start = head(path, _START)
    return (b'"lattice"' in start and _STRUCTURE.search(start) is not None) or _CIF.search(start) is not None


def parse_pymatgen(path: Path, asked: Asked, want_labels: bool = True) -> Raw:
    """The frames of json in which a structure of pymatgen stands beside its labels, at any depth; or of lists of them,
    by key. Frames under one key at the top are of one trajectory.

    Energies are in eV, forces in eV/Å. The stress of MPtrj, MatPES, and outputs of VASP is in kbar and positive under
    compression, that of others in eV/Å^3.

    Raises:
        MdpotError: no json, no structure, a site that several elements share; labels as of `choose_keys`.
    """
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise MdpotError(f"{path}: no json, truncated or damaged ({error}). Copy it again.") from None
    records = list(_records(content, ""))
    if not records:
        raise MdpotError(f"{path}: no structure of pymatgen is in it under the key 'structure' or 'structures'.")
    frames = [_frame(path, n, *found) for n, found in enumerate(records)]
    of_vasp = any(not _OF_VASP.isdisjoint(record) for _, record in records)
    named = [_named(record, asked.keys.values()) for _, record in records]
    values = [
        collect([found] if want_labels else [], len(frame), asked) for found, frame in zip(named, frames, strict=True)
    ]
    keys = choose_keys(values, asked, str(path)) if want_labels else Keys()
    units = parse_units(asked.units, replace(VASP, source="of the format") if of_vasp else ASE)
    for frame, found in zip(frames, values, strict=True):
        for kind in ("energy", "forces", "stress"):
            key = getattr(keys, kind)
            setattr(frame, kind, None if key is None else found.of(kind).get(key))
        if frame.stress is not None and keys.stress_is_virial:
            frame.stress = units.stress_of_virial(frame.stress, frame.cell)
    if (key := asked.property_key) is not None:
        for frame, (_, record) in zip(frames, records, strict=True):
            value = number(record.get(key))
            frame.properties = {} if value is None else {key: value}
        keys = replace(keys, properties=(key,))
    return Raw(frames, keys, units, numbers=numbers_of([record for _, record in records]))


def _records(content: Any, group: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What stands beside each structure, by key, and the key at the top that it is under."""
    if isinstance(content, list):
        for part in content:
            yield from _records(part, group)
    elif isinstance(content, dict):
        content = {_PLURAL.get(key, key): value for key, value in content.items()}
        found = content.get("structure")
        if isinstance(found, dict) and "lattice" not in found:  # columns of pandas, each an object by row
            columns = {key: value for key, value in content.items() if isinstance(value, dict)}
            yield from (("", {key: value.get(row) for key, value in columns.items()}) for row in found)
        elif isinstance(found, (dict, str)):
            yield group, content
        elif isinstance(found, list):
            lists = {key: value for key, value in content.items() if _is_list(value, len(found))}
            yield from (("", dict(zip(lists, row, strict=True))) for row in zip(*lists.values(), strict=True))
        else:
            for key, part in content.items():
                yield from _records(part, group or key)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _frame(path: Path, n: int, group: str, record: Mapping[str, Any]) -> Frame:
    at, structure = f"{path}, structure {n}", record["structure"]
    if isinstance(structure, str):
        atoms = parse_cif(structure, at)
        numbers, positions, cell, pbc = atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc
    else:
        numbers, positions, cell, pbc = of_pymatgen(at, structure)
    return Frame(numbers, positions, cell, pbc, group=group, index=n)


def _named(record: Mapping[str, Any], asked: Collection[str]) -> dict[str, Any]:
    """What may be a label, by key: VASP's energies by what they are, unless the user asks for one by its name."""
    return {
        key if key in asked else _ENERGIES.get(key, key): value
        for key, value in record.items()
        if key != _CORRECTED or key in asked
    }
