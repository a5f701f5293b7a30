"""Structures of pymatgen with their labels in json: MPtrj, MatPES, what CHGNet makes of VASP's outputs, and others."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.structures import parse_cif, read_bytes
from mdpot.training.data.label_keys import looks_like_label
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers.ase_io import label_outputs
from mdpot.training.data.readers.outputs import Outputs
from mdpot.training.data.readers.tables import of_pymatgen
from mdpot.training.data.reading import Raw
from mdpot.training.data.units import ASE, VASP

#: VASP's energies by the names that pymatgen and its data sets give them, and what they are; forces are the derivative
#: of the free energy, and corrections of a composition are no energy of a structure.
_ENERGIES = {"uncorrected_total_energy": "energy", "e_0_energy": "energy", "e_fr_energy": "free_energy"}
_CORRECTED = "corrected_total_energy"
#: Keys of data whose stress is VASP's, in kbar and positive under compression.
_OF_VASP = {*_ENERGIES, "matpes_id"}
_PLURAL = {"structures": "structure", "energies": "energy"}
#: Where labels stand one level below the structure, as in the sets of Zuo et al. (2020, mlearn).
_BELOW = "outputs"


def parse_pymatgen(path: Path, asked: Asked, want_labels: bool = True) -> Raw:
    """The frames of json in which a structure of pymatgen stands beside its labels, at any depth; or of lists of them,
    by key. Frames under one key at the top are of one trajectory.

    Energies are in eV, forces in eV/Å, which may also be properties of the sites. The stress of MPtrj, MatPES, and
    outputs of VASP is in kbar and positive under compression, that of others in eV/Å^3. Six numbers one level below the
    structure are not read: some programs give them in Voigt's order, and others in VASP's.

    Raises:
        MdpotError: no json, no structure, a site that several elements share, a list of labels of another length than
            that of the structures; labels as of `choose_keys`.
    """
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise MdpotError(f"{path}: no json, truncated or damaged ({error}). Copy it again.") from None
    records = list(_records(path, content, ""))
    if not records:
        raise MdpotError(f"{path}: no structure of pymatgen is in it under the key 'structure' or 'structures'.")
    of_vasp = any(not _OF_VASP.isdisjoint(record) for _, record in records)
    named = {*asked.keys.values(), asked.property_key}
    flat = [(group, _flat(record)) for group, record in records]
    structures = [_structure(path, n, *found, named) for n, found in enumerate(flat)]
    units = replace(VASP, source="of the format") if of_vasp else ASE
    return label_outputs(path, Outputs(structures, units, notes=list(_notes(records))), asked, want_labels)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside a structure, with what stands below it, and with the forces among the properties of its
    sites."""
    below = record.get(_BELOW)
    found = dict(record)
    if isinstance(below, dict):
        found |= {key: value for key, value in below.items() if key not in record and not _is_of_six(value)}
    structure = record["structure"]
    sites = structure.get("sites") if isinstance(structure, dict) else None
    forces = [_property(site, "forces") for site in sites] if isinstance(sites, list) else []
    if forces and None not in forces:
        found.setdefault("forces", forces)
    return found


def _property(site: Any, key: str) -> Any:
    properties = site.get("properties") if isinstance(site, dict) else None
    return properties.get(key) if isinstance(properties, dict) else None


def _is_of_six(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 6 and not any(isinstance(number, list) for number in value)


def _notes(records: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """What stands below the structures and is not read."""
    below = [record[_BELOW] for _, record in records if isinstance(record.get(_BELOW), dict)]
    six = sorted({key for labels in below for key, value in labels.items() if _is_of_six(value) and "stress" in key})
    if six:
        yield (
            f"{', '.join(six)} of {_BELOW} is not read: nothing says whether its six numbers are in Voigt's order (xx "
            "yy zz yz xz xy) or in VASP's (xx yy zz xy yz xz), nor their unit and sign."
        )


def _records(path: Path, content: Any, group: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What stands beside each structure, by key, and the key at the top that it is under."""
    if isinstance(content, list):
        for part in content:
            yield from _records(path, part, group)
    elif isinstance(content, dict):
        content = {_PLURAL.get(key, key): value for key, value in content.items()}
        found = content.get("structure")
        if isinstance(found, dict) and {"lattice", "sites"}.isdisjoint(found):
            # so pandas writes columns, each by row
            columns = {key: column for key, column in content.items() if isinstance(column, dict)}
            content = {key: [column.get(row) for row in found | column] for key, column in columns.items()}
            found = content["structure"]
        if isinstance(found, (dict, str)):
            yield group, content
        elif isinstance(found, list):
            yield from (("", row) for row in _rows(path, content, len(found)))
        else:
            for key, part in content.items():
                yield from _records(path, part, group or key)


def _rows(path: Path, lists: Mapping[str, Any], length: int) -> Iterator[dict[str, Any]]:
    """The values of lists of one length, one after the other; what is no label may have another."""
    lists = {key: value for key, value in lists.items() if isinstance(value, list)}
    for key, value in lists.items():
        if len(value) != length and looks_like_label(key):
            raise MdpotError(f"{path}: {key} has {len(value)} values, and there are {length} structures beside it.")
    lists = {key: value for key, value in lists.items() if len(value) == length}
    return (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))


def _structure(path: Path, n: int, group: str, record: Mapping[str, Any], asked: Collection[str | None]) -> Atoms:
    """A structure with all that is beside it; VASP's energies are called by what they are, unless that name is taken,
    or the user asks for one by its own."""
    atoms = _bare(f"{path}, structure {n}", record["structure"])
    atoms.info = {"trajectory": group} if group else {}
    for key, value in record.items():
        name = _ENERGIES.get(key, key)
        if key == "structure" or (key == _CORRECTED and key not in asked):
            continue
        atoms.info[key if key in asked or name in record or name in atoms.info else name] = value
    return atoms


def _bare(at: str, structure: Any) -> Atoms:
    """A structure of pymatgen, or one that is a CIF."""
    if isinstance(structure, str):
        found = parse_cif(structure, at)
        return Atoms(found.numbers, found.positions, cell=found.cell, pbc=found.pbc)
    numbers, positions, cell, pbc = of_pymatgen(at, structure)
    return Atoms(numbers, positions, cell=cell, pbc=pbc)
