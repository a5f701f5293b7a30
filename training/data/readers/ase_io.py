"""Whatever ASE reads: extended XYZ, databases, trajectories, outputs of DFT codes; in ASE's units if it states none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mdpot.electrons import CHARGE_KEYS, MULTIPLICITY_KEYS, SPIN_KEYS, stated_electrons
from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, are_kinds
from mdpot.training.data.label_keys import family_of, looks_like_label
from mdpot.training.data.labels import (
    Asked,
    Keys,
    Values,
    choose_keys,
    collect,
    numbers_of,
)
from mdpot.training.data.named_units import divided, units_of_labels
from mdpot.training.data.readers.outputs import Outputs, read_outputs
from mdpot.training.data.readers.tables import Texts, is_said
from mdpot.training.data.reading import Raw, is_called_isolated
from mdpot.training.data.unit_statements import canonical, parse_units, stated_system, stated_units
from mdpot.training.data.units import Units

GROUP_KEYS = ("group", "source", "source_frame", "trajectory", "config_type")
TRAJECTORY_KEYS = {"source_frame", "trajectory"}  # of these, what they name
ISOLATED_KEYS = ("config_type", "Config_type", "configtype")
KIND_KEYS = (*ISOLATED_KEYS, "subset")
#: What MACE multiplies the loss of a frame by, by label; nothing is learned where it is zero.
WEIGHT_KEYS = {
    "energy": ("config_weight", "config_energy_weight"),
    "forces": ("config_weight", "config_forces_weight"),
    "stress": ("config_weight", "config_stress_weight", "config_virials_weight"),
}
HEAD = "head"  # of MACE, that of a method
#: States of a structure, or methods, that networks do not see.
STATE_KEYS = (*CHARGE_KEYS, *MULTIPLICITY_KEYS, *SPIN_KEYS, HEAD)
#: Of the atoms; MPtrj has the second.
MOMENT_KEYS = ("magmoms", "magmom", "magnetic_moments")
#: Bohr magnetons per atom; net moments of one composition that differ by more are those of several magnetic orders.
MAGNETIC_ORDER = 0.2
#: Keys of frames that say whether their electrons, or else their atoms, converged.
_CONVERGED = re.compile(r"(?:\w+_)?converged", re.I)


def parse_ase(path: Path, asked: Asked, want_labels: bool = True) -> Raw:
    """The frames of any file that ASE reads, in the units that it states.

    Labels are looked for in the calculator's results, in `info` and in `arrays`, see `mdpot.training.data.labels`; the
    stress of a virial is -virial / volume. A frame's group is in `info` under the first of `GROUP_KEYS` that it has,
    its kind under the first of `KIND_KEYS`; groups whose names are those of kinds are none.

    Raises:
        MdpotError: as `read_outputs`, `choose_keys` and `stated_units`.
    """
    return label_outputs(path, read_outputs(path), asked, want_labels)


def label_outputs(path: Path, found: Outputs, asked: Asked, want_labels: bool = True) -> Raw:
    """The frames of structures that are read; arguments and errors as `parse_ase`, but for those of reading."""
    structures = found.structures
    if not want_labels:
        asked = Asked(units=asked.units, check=asked.check, property_key=asked.property_key)
    values = [collect(_places(atoms), len(atoms), asked) for atoms in structures]
    unweighted = _drop_unweighted(structures, values)
    keys = choose_keys(values, asked, str(path)) if want_labels else Keys()
    if want_labels:
        notes = [*_slab_notes(structures, values, keys), *_text_notes(structures), *_state_notes(structures)]
        notes += [*_magnetic_notes(structures), *_converged_notes(structures)]
        keys = replace(keys, notes=(*keys.notes, *found.notes, *unweighted, *notes))
    units = divided(parse_units(asked.units, _stated(path, found, keys)), keys)
    frames = [_frame(*pair, keys, units, index) for index, pair in enumerate(zip(structures, values, strict=True))]
    told = any(TRAJECTORY_KEYS & atoms.info.keys() for atoms in structures)
    if not told and are_kinds({frame.group for frame in frames}):
        for frame in frames:
            names = dict.fromkeys(name for name in (frame.kind, frame.group) if name)
            frame.group, frame.kind = "", " ".join(names)
    texts: Texts = {}
    if asked.property_key is not None:
        for frame, atoms in zip(frames, structures, strict=True):
            frame.properties = _property(atoms, asked.property_key, texts)
        keys = replace(keys, properties=(asked.property_key,))
    return Raw(
        frames=frames,
        keys=keys,
        units=units,
        isolated=[is_called_isolated(_first(atoms.info, ISOLATED_KEYS)) for atoms in structures],
        ignored=_ignored(structures, values),
        numbers=numbers_of(place for atoms in structures for place in _places(atoms)[1:]),
        texts=texts,
    )


def _drop_unweighted(structures: Sequence[Atoms], values: Sequence[Values]) -> list[str]:
    """Takes off the labels that have a weight of zero, which hold a place alone; a note on each kind of them."""
    notes = []
    for kind, keys in WEIGHT_KEYS.items():
        n = 0
        for atoms, v in zip(structures, values, strict=True):
            weights = [[atoms.info[key] for key in part if key in atoms.info] for part in (keys[:1], keys[1:])]
            if v.of(kind) and any(part and not np.any(part) for part in weights):
                v.of(kind).clear()
                n += 1
        if n:
            notes.append(f"{kind} has a weight of zero ({' or '.join(keys)}) in {n} frames, and is not used there.")
    return notes


def _stated(path: Path, outputs: Outputs, keys: Keys) -> Units:
    """The units that all frames state, or those of the file, or that the keys name.

    Raises:
        MdpotError: frames that state different ones, or one that is not known.
    """
    found = [(stated_system(atoms.info), stated_units(atoms.info, keys.family)) for atoms in outputs.structures]
    for index, there in enumerate(found):
        if there != found[0]:
            one, other = (", ".join(_said(*stated)) or "none" for stated in (found[0], there))
            raise MdpotError(
                f"{path}: frame 0 states the units {one}, and frame {index} {other}. Write all frames in one unit."
            )
    system, single = found[0]
    return units_of_labels(keys, _of_keys(outputs.units_of, keys) | single, system or outputs.units)


def _of_keys(units: Mapping[str, str], keys: Keys) -> dict[str, str]:
    """The units of the labels that are taken, by quantity, of those that a file states for its keys.

    Raises:
        MdpotError: a unit that is not known here.
    """
    quantities = {"energy": keys.energy, "force": keys.forces, "length": "length"}
    quantities["virial" if keys.stress_is_virial else "stress"] = keys.stress
    return {
        quantity: canonical(quantity, units[key], f"{key} in its metadata")
        for quantity, key in quantities.items()
        if units.get(key)
    }


def _said(system: Units | None, single: Mapping[str, str]) -> list[str]:
    return ([] if system is None else [str(system)]) + [f"{quantity}={unit}" for quantity, unit in single.items()]


def _places(atoms: Atoms) -> list[Mapping[str, Any]]:
    """Where labels may be."""
    results = atoms.calc.results if atoms.calc is not None else {}
    data = atoms.info.get("data")  # of ASE's databases
    return [results, atoms.info, atoms.arrays, *([data] if isinstance(data, Mapping) else [])]


def _frame(atoms: Atoms, values: Values, keys: Keys, units: Units, index: int) -> Frame:
    group, kind = _first(atoms.info, GROUP_KEYS), _first(atoms.info, KIND_KEYS)
    stress = None if keys.stress is None else values.stress.get(keys.stress)
    if stress is not None and keys.stress_is_virial:
        stress = units.stress_of_virial(stress, atoms.cell.array)
    return Frame(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions.astype(np.float64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        energy=None if keys.energy is None else values.energy.get(keys.energy),
        forces=None if keys.forces is None else values.forces.get(keys.forces),
        stress=stress if atoms.pbc.all() else None,
        group="" if group is None else str(group),
        index=index,
        electrons=stated_electrons(atoms),
        kind="" if kind is None else str(kind),
    )


def _property(atoms: Atoms, key: str, texts: Texts) -> dict[str, float]:
    """The number that a structure has under a key, by that key; nothing where there is none, and what else is said
    there is added to `texts`."""
    there = [np.asarray(place[key]) for place in _places(atoms) if key in place]
    for value in there:
        if value.size == 1 and value.dtype.kind in "fiu" and np.isfinite(value.item()):
            return {key: float(value.item())}
    if said := [value.item() for value in there if value.size == 1 and is_said(value.item())]:
        texts.setdefault(key, []).append(str(said[0]))
    return {}


def _first(place: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((place[key] for key in keys if place.get(key) is not None), None)


def _ignored(structures: Sequence[Atoms], values: Sequence[Values]) -> list[str]:
    """Keys that speak of an energy, force or stress and hold none."""
    known = {key for v in values for kind in (v.energy, v.forces, v.stress) for key in kind}
    names = dict.fromkeys(str(key) for atoms in structures for place in _places(atoms) for key in place)
    return [name for name in names if name not in known and looks_like_label(name)]


def _slab_notes(structures: Sequence[Atoms], values: Sequence[Values], keys: Keys) -> Iterator[str]:
    """What becomes of the stress of frames that are not periodic in all directions."""
    if keys.stress is None:
        return
    open_ones = [
        index
        for index, (atoms, v) in enumerate(zip(structures, values, strict=True))
        if not atoms.pbc.all() and np.any(np.nan_to_num(v.stress.get(keys.stress, 0.0)))
    ]
    if open_ones:
        yield (
            f"{keys.stress} is not used in {len(open_ones)} of {len(structures)} frames, the first of them frame "
            f"{open_ones[0]}, for they are not periodic in all three directions."
        )


def _state_notes(structures: Sequence[Atoms]) -> Iterator[str]:
    """Charges and spins that are not the same in all structures."""
    for key in STATE_KEYS:
        found = {str(atoms.info[key]) for atoms in structures if np.ndim(atoms.info.get(key, [])) == 0}
        if len(values := sorted(found)) > 1:
            why = "frames of one molecule in several states contradict each other"
            if key == HEAD:
                why = "heads are of several methods, whose energies do not go together. Train on the frames of one"
            yield (
                f"{key} differs among the frames ({', '.join(values[:4])}{', …' if len(values) > 4 else ''}), and "
                f"networks do not know it: {why}."
            )


def _magnetic_notes(structures: Sequence[Atoms]) -> Iterator[str]:
    """The composition whose net magnetic moments differ most; single atoms, which may be isolated, aside."""
    nets: dict[str, list[float]] = {}
    for atoms in structures:
        moments = _moments(atoms)
        if len(atoms) > 1 and moments is not None:
            net = float(np.linalg.norm(np.sum(moments, axis=0))) / len(atoms)
            nets.setdefault(atoms.symbols.get_chemical_formula(empirical=True), []).append(net)
    formula, found = max(nets.items(), key=lambda pair: max(pair[1]) - min(pair[1]), default=("", [0.0]))
    if max(found) - min(found) > MAGNETIC_ORDER:
        yield (
            f"net magnetic moments of {formula} are {min(found):.2g} to {max(found):.2g} μB per atom, and networks do "
            "not know them: frames of one structure in several magnetic orders contradict each other."
        )


def _moments(atoms: Atoms) -> np.ndarray | None:
    """The magnetic moments of the atoms [n_atoms] or [n_atoms, 3], μB; None where they are not all known."""
    found = (place[key] for place in _places(atoms) for key in MOMENT_KEYS if place.get(key) is not None)
    for moments in found:
        with suppress(TypeError, ValueError):  # what is no list of numbers
            numbers = np.array(moments, dtype=np.float64)
            if numbers.shape in ((len(atoms),), (len(atoms), 3)) and np.isfinite(numbers).all():
                return numbers
    return None


def _converged_notes(structures: Sequence[Atoms]) -> Iterator[str]:
    """Frames that say that they did not converge."""
    for key in dict.fromkeys(str(key) for atoms in structures for key in atoms.info if _CONVERGED.fullmatch(str(key))):
        if bad := [n for n, atoms in enumerate(structures) if str(atoms.info.get(key)) in ("False", "F")]:
            yield (
                f"{key} is false in {len(bad)} of {len(structures)} frames, the first of them frame {bad[0]}: if their "
                "electrons did not converge, their labels are wrong. Take them out."
            )


def _text_notes(structures: Sequence[Atoms]) -> Iterator[str]:
    """Labels that are text where a number is expected, as "0.34 eV" is, and energies that are several numbers."""
    texts: dict[str, list[tuple[int, str]]] = {}
    for index, atoms in enumerate(structures):
        for place in _places(atoms):
            for key, value in place.items():
                if (found := family_of(str(key))) is None:
                    continue
                if isinstance(value, str):
                    texts.setdefault(str(key), []).append((index, repr(value[:60])))
                elif found[0] == "energy" and place is not atoms.arrays and np.size(value) > 1:
                    said = f"{np.ravel(value).tolist()}"[:60]
                    texts.setdefault(str(key), []).append((index, f"{said} (if of a decimal comma, write a point)"))
    for key, found in texts.items():
        index, said = found[0]
        yield (
            f"{key} is not a number in {len(found)} of {len(structures)} frames, and not used there: in frame {index} "
            f"it is {said}."
        )
