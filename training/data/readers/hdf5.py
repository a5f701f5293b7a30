"""HDF5: a group per molecule, as of SPICE, ANI-1x and QM7-X, or the arrays of an npz archive."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from ase.symbols import Symbols

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.label_keys import KINDS, family_of, is_kinetic, looks_like_label
from mdpot.training.data.labels import Asked, Keys, Values, choose_keys
from mdpot.training.data.named_units import divided, units_of_labels
from mdpot.training.data.readers.arrays import NAMES, SYMBOLS, as_text, choose_arrays, frames_of
from mdpot.training.data.readers.search import natural
from mdpot.training.data.reading import Raw
from mdpot.training.data.unit_statements import (
    canonical,
    parse_units,
    stated_system,
    stated_units,
)
from mdpot.training.data.units import ASE, Units

SIGNATURE = b"\x89HDF"
ANI = Units("Hartree", "Å", "Hartree/Å", "Hartree/Å³", "Hartree", source="of the format")
#: Names that ANI-1x, ANI-1ccx and ANI-1 alone have.
_OF_ANI = ("wb97x_dz.energy", "ccsd(t)_cbs.energy", "coordinatesHE")
_QUANTITIES = {"energy": "energy", "forces": "force", "stress": "stress"}
_TABLE = {"energies": "energy", "forces": "forces", "stresses": "stress"}
_GRADIENT = re.compile(r"(?P<family>.*?)[_\-.: ]?(?:(?:total|energy)_)*grad(?:ient)?s?", re.I)
#: Groups in groups, at most.
DEPTH = 8
#: Names that are looked at for what a file is, of one that is not read.
SEARCHED = 1000
#: Where atomic numbers are as often types, from 0 on.
TYPES = (*SYMBOLS, "types", "type", "atom_types")


@dataclass(frozen=True)
class _Label:
    """A data set that may be a label, and the sign that makes it one: a gradient's is negative."""

    name: str
    sign: float = 1.0


@dataclass
class _Block:
    """A group with structures of the same number of atoms.

    Attributes:
        name: of the group; "" for the file itself.
        sets: its data sets, and the atomic numbers of a group around it, by name.
        names: of the arrays that are read, by what they are, see `choose_arrays`.
        labels: by kind of label, the data sets that may be it, by a key that `family_of` knows.
        molecule: the group whose structures are of one molecule: itself, or of single structures the group around them.
    """

    name: str
    sets: dict[str, Any]
    names: dict[str, str]
    labels: dict[str, dict[str, _Label]] = field(default_factory=dict)
    molecule: str = ""

    @property
    def is_single(self) -> bool:
        """Whether it is one structure, of positions [n_atoms, 3]."""
        return len(self.sets[self.names["positions"]].shape) == 2


def parse_hdf5(path: Path, asked: Asked, want_labels: bool = True) -> Raw:
    """What an HDF5 file holds: the structures of all groups in it, with the names of `NAMES`.

    Labels are chosen by their keys as of any file, see `mdpot.training.data.labels`; forces may be a gradient
    (`dft_total_gradient`), whose negative they are. Units are those in the attributes `units` of the data sets, that
    the file states as an npz archive does, or those of its kind. A group is that of a molecule, whose structures no
    split parts; where the molecules in it differ, the formula tells them apart as well. Groups at the top with a
    structure each say nothing of molecules but their formulas.

    Raises:
        MdpotError: h5py is not installed; a damaged file; no structures in it; data sets that do not fit each other or
            have several units; labels as of `choose_keys`.
    """
    h5py = import_h5py()
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file, asked, want_labels)
    except MdpotError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises of damaged ones
        reason = " ".join(str(error).split())
        raise MdpotError(f"{path}: no HDF5 file, truncated or damaged ({reason[:200]}). Copy it again.") from None


def import_h5py() -> Any:
    """The module h5py.

    Raises:
        MdpotError: it is not installed.
    """
    try:
        return import_module("h5py")
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise MdpotError('HDF5 files are read by h5py, which is not installed. pip install "mdpot[hdf5]"') from None


def _read(path: Path, file: Any, asked: Asked, want_labels: bool) -> Raw:
    blocks = list(_blocks(file, {}, "", set()))
    if not blocks:
        there = sorted(set(file))
        raise MdpotError(
            f"{path}: no group in it has atomic numbers ({', '.join(NAMES['numbers'])}) and positions "
            f"({', '.join(NAMES['positions'])}); at the top it has {', '.join(there[:10]) or 'nothing'}.{_remedy(file)}"
        )
    _name_molecules(blocks)
    keys = Keys()
    if want_labels:
        for block in blocks:
            block.labels = _labels(block, asked)
        keys = _choose(path, blocks, asked)
    units = _units(path, file, blocks, keys, asked)
    frames: list[Frame] = []
    for block in blocks:
        found = _frames(path, block, keys, units)
        for frame in found:
            frame.index += len(frames)
            frame.file = block.name if len(blocks) > 1 else ""
        frames += found
    taken = {label.name for block in blocks for label in _taken(block, keys).values()}
    read = taken.union(*(block.names.values() for block in blocks))
    unused = list(dict.fromkeys(name for block in blocks for name in block.sets if name not in read))
    notes = [f"the file has data sets that are not read: {', '.join(unused)}."] if unused else []
    real = {kind: label.name for block in reversed(blocks) for kind, label in _taken(block, keys).items()}
    keys = replace(keys, **real, notes=(*keys.notes, *notes))
    ignored = [name for name in unused if looks_like_label(name) and name not in keys.others]
    return Raw(frames, keys, units, ignored=ignored)


def _remedy(file: Any) -> str:
    """What to do with a file none of whose groups is read: a sentence, or nothing."""
    inside: list[str] = []
    file.visit(lambda name: inside.append(as_text(name)) if len(inside) < SEARCHED else True)
    if any(name.endswith("type.raw") for name in inside):
        return " It is DeePMD-kit's: save its systems as folders, by to_deepmd_npy of dpdata."
    types = next((name for name in inside if name.rpartition("/")[2].lower() in TYPES), None)
    if types is not None and getattr(file[types], "dtype", np.dtype("O")).kind in "iu":
        return f" If {types} holds atomic numbers, and not types from 0 on, save them as atomic_numbers as well."
    return ""


def _blocks(group: Any, numbers: Mapping[str, Any], name: str, seen: set[Any], depth: int = 0) -> Iterator[_Block]:
    """The groups that have positions, and atomic numbers or a group around them that does, in natural order; each once,
    whatever links lead to it.

    Args:
        group: to look through.
        numbers: the atomic numbers of a group around it, by name; empty where none has any.
        name: of the group.
        seen: groups that were looked through, and whether atomic numbers were known there: a link may lead to one that
            lacks them before the group around it does.
        depth: of the group, `DEPTH` at most.
    """
    if (group.id, True) in seen or (group.id, bool(numbers)) in seen:
        return
    inside = {as_text(key): group.get(key) for key in group}
    inside = {key: inside[key] for key in sorted(inside, key=natural) if inside[key] is not None}
    sets = {key: _as_array(key, item) for key, item in inside.items() if getattr(item, "shape", None) is not None}
    names = choose_arrays({**numbers, **sets})
    if names.get("positions") in sets and "numbers" in names:
        yield _Block(name, {**numbers, **sets}, names)
    numbers = {key: sets[key] for key in [names.get("numbers", "")] if key in sets} or numbers
    seen.add((group.id, bool(numbers)))
    for key, item in inside.items():
        if hasattr(item, "keys") and depth < DEPTH:
            yield from _blocks(item, numbers, f"{name}/{key}".lstrip("/"), seen, depth + 1)


def _name_molecules(blocks: Sequence[_Block]) -> None:
    """Says of each group which molecule it is. A single structure that is alone in the group around it, as in
    frame_1/scf and frame_2/scf, is with those of the groups beside that."""
    single = [block for block in blocks if block.is_single]
    for block in blocks:
        block.molecule = block.name.rpartition("/")[0] if block.is_single else block.name
    while True:
        members = Counter(block.molecule for block in single)
        alone = [block for block in single if block.molecule and members[block.molecule] == 1]
        if not alone:
            break
        for block in alone:
            block.molecule = block.molecule.rpartition("/")[0]


def _as_array(key: str, found: Any) -> Any:
    """A data set; texts of any length, of elements, as an array of NumPy's own."""
    if found.dtype.kind == "O" and key.lower() in (*NAMES["numbers"], *NAMES["source"]):
        return np.array([as_text(value) for value in np.ravel(found[()])], "U").reshape(found.shape)
    return found


def _labels(block: _Block, asked: Asked) -> dict[str, dict[str, _Label]]:
    """The data sets of a group that may be labels."""
    found: dict[str, dict[str, _Label]] = {kind: {} for kind in KINDS}
    for what, kind in _TABLE.items():
        if (name := block.names.get(what)) is not None:
            virial = "virial" if "virial" in name.lower() else kind
            found[kind][name if family_of(name) else virial] = _Label(name)
    shape = block.sets[block.names["positions"]].shape
    n = 1 if block.is_single else shape[0]
    for name, there in block.sets.items():
        if there.dtype.kind not in "fiu" or name in block.names.values():
            continue
        kinds = {kind: (name, 1.0) for kind, key in asked.keys.items() if key == name}
        if not kinds and (known := family_of(name)) is not None:
            kinds = {known[0]: (name, 1.0)}
        elif match := _GRADIENT.fullmatch(name):
            kinds = {"forces": ("_".join([*filter(None, [match["family"]]), "forces"]), -1.0)}
        for kind, (key, sign) in kinds.items():
            fits = {"energy": int(np.prod(there.shape)) == n, "forces": there.shape == shape, "stress": there.ndim > 1}
            if fits[kind]:
                found[kind].setdefault(key, _Label(name, sign))
    return found


def _choose(path: Path, blocks: Sequence[_Block], asked: Asked) -> Keys:
    """The keys of the labels, chosen by a structure of each group.

    Raises:
        MdpotError: as `choose_keys`.
    """
    keys = {(kind, label.name): key for b in blocks for kind, found in b.labels.items() for key, label in found.items()}
    said = {f"{kind}_key": keys.get((kind, name), name) for kind, name in asked.keys.items()}
    return choose_keys([_example(block) for block in blocks], replace(asked, **said), str(path))


def _example(block: _Block) -> Values:
    """The labels of the structure of a group that has the most energies; those that are NaN are none."""
    energies = {key: np.ravel(_whole(block, label)) for key, label in block.labels["energy"].items()}
    row = int(np.argmax(sum(np.isfinite(values).astype(int) for values in energies.values()))) if energies else 0
    values = Values({key: float(found[row]) for key, found in energies.items() if np.isfinite(found[row])})
    values.kinetic = next((name for name in block.sets if is_kinetic(name)), "")
    for kind in ("forces", "stress"):
        for key, label in block.labels[kind].items():
            there = block.sets[label.name]
            example = label.sign * np.asarray(there[()] if block.is_single else there[row], np.float64)
            if np.isfinite(example).all():
                values.of(kind)[key] = example
    return values


def _whole(block: _Block, label: _Label) -> np.ndarray:
    return np.asarray(block.sets[label.name][()], np.float64)


def _taken(block: _Block, keys: Keys) -> dict[str, _Label]:
    """The labels of a group that are read, by kind."""
    chosen = {kind: getattr(keys, kind) for kind in block.labels}
    return {kind: block.labels[kind][key] for kind, key in chosen.items() if key in block.labels[kind]}


def _units(path: Path, file: Any, blocks: Sequence[_Block], keys: Keys, asked: Asked) -> Units:
    """The units that the file states, or those of its kind.

    Raises:
        MdpotError: groups that state several, or one that is not known.
    """
    stated: dict[str, tuple[str, str]] = {}
    for block in blocks:
        sets = {"length": block.names["positions"]}
        for kind, label in _taken(block, keys).items():
            sets["virial" if kind == "stress" and keys.stress_is_virial else _QUANTITIES[kind]] = label.name
        places = [("length", block.names["cells"])] if "cells" in block.names else []
        for quantity, name in [*sets.items(), *places]:
            where = "/".join(filter(None, [block.name, name]))
            unit = _unit(block.sets[name], quantity, where, asked)
            first = stated.setdefault(quantity, (unit, where))
            if unit != first[0]:
                raise MdpotError(
                    f"{path}: {first[1]} is in {first[0] or 'no stated unit'}, and {where} in "
                    f"{unit or 'no stated unit'}. Write all in one unit."
                )
    found = {quantity: unit for quantity, (unit, _) in stated.items() if unit}
    texts = {key: as_text(value) for key, value in file.attrs.items() if isinstance(value, str | bytes)}
    for key, item in file.items():
        if getattr(item, "shape", None) == () and item.dtype.kind in "SUO":
            texts[key] = as_text(item[()])
    names = {name for block in blocks for name in block.sets}
    base = stated_system(texts) or (ANI if names.intersection(_OF_ANI) else ASE)
    return divided(parse_units(asked.units, units_of_labels(keys, stated_units(texts) | found, base)), keys)


def _unit(there: Any, quantity: str, where: str, asked: Asked) -> str:
    """The unit in the attribute `units` of a data set; "" for none."""
    attributes = getattr(there, "attrs", {})
    value = next((attributes[key] for key in ("units", "unit") if key in attributes), None)
    text = as_text(np.ravel(value)[0]).strip() if value is not None and np.size(value) == 1 else ""
    try:
        return canonical(quantity, text, f"units of {where}") if text else ""
    except MdpotError:
        if asked.units is not None:  # the user knows
            return ""
        raise


def _frames(path: Path, block: _Block, keys: Keys, units: Units) -> list[Frame]:
    """The structures of a group."""
    single = block.is_single
    whole = (
        "numbers",
        "positions",
        "cells",
        "pbc",
        "charge",
        "multiplicity",
        *(() if single else ("counts", "source")),
    )
    arrays = {what: np.asarray(block.sets[block.names[what]][()]) for what in whole if what in block.names}
    kinds = {kind: what for what, kind in _TABLE.items()}
    for kind, label in _taken(block, keys).items():
        arrays[kinds[kind]] = label.sign * _whole(block, label)
    if single:
        for what in ("positions", "forces", "stresses"):
            if what in arrays:
                arrays[what] = arrays[what][None]
    place = path / block.name if block.name else path
    frames = frames_of(place, arrays, units, keys.stress_is_virial)
    mixed = arrays["numbers"].ndim == 2 and len(np.unique(np.sort(arrays["numbers"], axis=1), axis=0)) > 1
    mixed = mixed or (single and (not block.molecule or block.molecule != block.name.rpartition("/")[0]))
    for frame in frames:
        formula = Symbols(frame.numbers).get_chemical_formula() if mixed else ""
        frame.group = ", ".join(filter(None, [block.molecule, formula, frame.group]))
    return frames
