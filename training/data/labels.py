"""Which of the numbers in a file are its labels: one family of keys, such as REF_energy with REF_forces.

A key names a quantity and, before or after it, a family: `dft_energy`, `forces_xtb`, `REF_virial`, `energy`. Energy,
forces and stress are taken from one family, for a file that holds results of several methods would otherwise give the
energy of one and the forces of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from mdpot.electrons import Electrons, of_multiplicity
from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.label_keys import KINDS, apart, family_of, is_electronic, is_kinetic

#: In place of a key: the label is not used.
IGNORE = "ignore"
_NUMBERS = (int, float, np.number)


@dataclass(frozen=True)
class Asked:
    """What a user says of the labels; None leaves it to the file.

    Attributes:
        energy_key, forces_key, stress_key: the keys that hold them; `IGNORE` for a label that is to be left out.
        units: see `mdpot.training.data.unit_statements.parse_units`.
        check: whether labels that contradict physics are refused.
        property_key: the key of a property, a number a structure, of files whose keys hold much else.
        charge, multiplicity: of every frame that does not state them.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    units: str | None = None
    check: bool = True
    property_key: str | None = None
    charge: int | None = None
    multiplicity: int | None = None

    @property
    def of_a_file(self) -> bool:
        """Whether anything is said that only a file of the user's own can need."""
        return bool(self.keys) or any(said is not None for said in (self.units, self.charge, self.multiplicity))

    def electrons(self, frame: Frame) -> Electrons:
        """Those of a frame: what it states itself goes before what is said of all."""
        return frame.electrons.or_else(of_multiplicity(self.charge, self.multiplicity))

    @property
    def keys(self) -> dict[str, str]:
        """The keys that are given, by kind of label."""
        given = {"energy": self.energy_key, "forces": self.forces_key, "stress": self.stress_key}
        return {kind: key for kind, key in given.items() if key is not None}


@dataclass(frozen=True)
class Keys:
    """The keys of a file's labels.

    Attributes:
        energy, forces, stress: None where there is none; `stress` may be that of a virial.
        others: keys that hold labels of other families, or might.
        notes: what a user should know of the choice.
        properties: further numbers of the structures.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()

    @property
    def stress_is_virial(self) -> bool:
        return self.stress is not None and "virial" in self.stress.lower()

    @property
    def family(self) -> str:
        """The family of the labels, see `family_of`."""
        return next((_family(key) for key in (self.energy, self.forces, self.stress) if key is not None), "")

    def __str__(self) -> str:
        keys = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        if self.properties and not any(keys.values()):
            return ", ".join(self.properties)
        said = [key if key is not None else f"no {kind}" for kind, key in keys.items()]
        return ", ".join([*said, *self.properties])


def numbers_of(records: Iterable[Mapping[Any, Any]]) -> dict[str, tuple[float, float]]:
    """The keys that hold numbers and are no label's, any of which may be a property, with the least and the largest."""
    found: dict[str, tuple[float, float]] = {}
    for record in records:
        for key, value in record.items():
            known = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value)
            if known and family_of(str(key)) is None:
                low, high = found.get(str(key), (np.inf, -np.inf))
                found[str(key)] = min(low, float(value)), max(high, float(value))
    return found


@dataclass
class Values:
    """The numbers of one structure that may be labels: by key, arrays of one shape a kind; and the key of a kinetic
    energy beside them, "" without one."""

    energy: dict[str, float] = field(default_factory=dict)
    forces: dict[str, np.ndarray] = field(default_factory=dict)
    stress: dict[str, np.ndarray] = field(default_factory=dict)
    kinetic: str = ""

    def of(self, kind: str) -> dict[str, Any]:
        return getattr(self, kind)


def collect(places: Iterable[Mapping[str, Any]], n_atoms: int, asked: Asked) -> Values:
    """All numbers of a structure that have the name and the shape of a label, and those that the user names.

    Args:
        places: what the structure holds by key; the first one that has a key counts.
        n_atoms: of the structure.
        asked: what the user says.
    """
    values = Values()
    for place in places:
        moving = [str(key) for key, value in place.items() if is_kinetic(str(key)) and isinstance(value, _NUMBERS)]
        if moving and not any(is_electronic(str(key)) for key in place):
            values.kinetic = moving[0]
        for key, value in place.items():
            found = family_of(str(key))
            kinds = [kind for kind, name in asked.keys.items() if name == key]
            if found is not None and not kinds:
                kinds = [found[0]]
            for kind in kinds:
                label = _SHAPES[kind](value, n_atoms)
                if label is not None:
                    values.of(kind).setdefault(str(key), label)
    return values


def _array(value: Any) -> np.ndarray:
    """The numbers of a value; none of what holds something else, such as the True that a bare word becomes in ASE."""
    try:
        return np.empty(0) if np.asarray(value).dtype == bool else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.empty(0)


def _scalar(value: Any, n_atoms: int) -> float | None:
    array = _array(value)
    return float(array.reshape(())) if array.size == 1 else None


def _vectors(value: Any, n_atoms: int) -> np.ndarray | None:
    array = _array(value)
    if array.shape == (3,) and n_atoms == 1:
        array = array.reshape(1, 3)
    return array if array.shape == (n_atoms, 3) else None


def _tensor(value: Any, n_atoms: int) -> np.ndarray | None:
    """[3, 3] from nine numbers, or from six in Voigt's order xx yy zz yz xz xy."""
    array = _array(value)
    if array.size == 9:
        return array.reshape(3, 3)
    return voigt_6_to_full_3x3_stress(array.ravel()) if array.size == 6 else None


_SHAPES: dict[str, Callable[[Any, int], Any]] = {"energy": _scalar, "forces": _vectors, "stress": _tensor}


def choose_keys(values: Sequence[Values], asked: Asked, where: str) -> Keys:
    """The keys of the labels of a file.

    Keys that are asked for hold. Of the families, the one with energies and forces in most frames is taken; the plain
    one where several have as many. Where no family has both, the only one there is is taken.

    Args:
        values: of each frame.
        asked: what the user says.
        where: the file, for messages.

    Raises:
        MdpotError: a key that is asked for and not there; families, or keys of one family, that contradict each other;
            a total energy of dynamics.
    """
    seen = {kind: list(dict.fromkeys(key for v in values for key in v.of(kind))) for kind in KINDS}
    chosen = _asked_keys(seen, asked, where)
    if len(chosen) < len(KINDS):
        family = _choose_family(values, seen, chosen, where)
        for kind in KINDS:
            if kind not in chosen:
                keys = [key for key in seen[kind] if _family(key) == family]
                chosen[kind] = _one_of_family(values, kind, keys, where)
    _refuse_total(values, chosen["energy"], asked, where)
    taken = {key for key in chosen.values() if key is not None}
    others = tuple(key for kind in KINDS for key in seen[kind] if key not in taken)
    notes = tuple(_notes(values, chosen, seen, asked.stress_key == IGNORE))
    return Keys(chosen["energy"], chosen["forces"], chosen["stress"], others, notes)


def _refuse_total(values: Sequence[Values], energy: str | None, asked: Asked, where: str) -> None:
    """Refuses the total energy of dynamics: forces are the derivative of the potential energy alone."""
    known = family_of(energy) if energy is not None and asked.energy_key is None else None
    beside = [v.kinetic for v in values if energy in v.energy]
    kinetic = next(filter(None, beside), "")
    if known is not None and known[1].startswith("tot") and 2 * sum(map(bool, beside)) > len(beside):
        raise MdpotError(
            f"{where}: {energy} has the kinetic energy {kinetic} beside it, and is likely the sum of this and the "
            "potential energy, whose derivative the forces are: write that as energy. If it is the potential energy: "
            f"--energy-key {energy}."
        )


def _family(key: str) -> str:
    found = family_of(key)
    return found[2] if found is not None else ""


def _asked_keys(seen: Mapping[str, Sequence[str]], asked: Asked, where: str) -> dict[str, str | None]:
    chosen: dict[str, str | None] = {}
    for kind, key in asked.keys.items():
        if key != IGNORE and key not in seen[kind]:
            shape = {"energy": "a number", "forces": "three columns", "stress": "six or nine numbers"}[kind]
            there = ", ".join(seen[kind]) or "none"
            raise MdpotError(
                f"{where}: {kind}_key is {key!r}, but no frame has {shape} of that name. Keys for {kind} there: "
                f"{there}."
            )
        chosen[kind] = None if key == IGNORE else key
    return chosen


def _choose_family(
    values: Sequence[Values], seen: Mapping[str, Sequence[str]], chosen: Mapping[str, str | None], where: str
) -> str:
    """The family of the labels that are not asked for by their keys."""
    for kind in ("energy", "forces", "stress"):
        if chosen.get(kind) is not None:  # what the user names brings its family along
            return _family(str(chosen[kind]))
    families = {kind: dict.fromkeys(_family(key) for key in seen[kind]) for kind in KINDS}
    n_complete = {
        family: sum(_has(v, "energy", family) and _has(v, "forces", family) for v in values)
        for family in families["energy"]
    }
    complete = [family for family, n in n_complete.items() if n]
    if not complete:
        return _only_family(families, seen, where)
    best = max(complete, key=lambda family: (n_complete[family], family == ""))
    for other in complete:
        if other != best and (difference := _contradiction(values, best, other)):
            lines = "; ".join(_describe(values, family) for family in complete)
            raise MdpotError(
                f"{where}: it holds labels of several families that contradict each other ({difference}): {lines}. "
                "Say which by --energy-key, --forces-key and --stress-key."
            )
    return best


def _only_family(families: Mapping[str, Mapping[str, None]], seen: Mapping[str, Sequence[str]], where: str) -> str:
    """The family where none has both energies and forces."""
    energy, forces = families["energy"], families["forces"]
    both = [family for family in energy if family in forces]  # but never in one frame
    if both:
        return "" if "" in both else both[0]
    if energy and forces:
        raise MdpotError(
            f"{where}: no family of keys has energies and forces: energies are in {', '.join(seen['energy'])}, forces "
            f"in {', '.join(seen['forces'])}. If they belong together, say so by --energy-key and --forces-key."
        )
    found = list(energy or forces or families["stress"])
    if "" in found or len(found) < 2:
        return "" if "" in found or not found else found[0]
    kind = "energy" if energy else "forces"
    raise MdpotError(f"{where}: several keys may hold the {kind}: {', '.join(seen[kind])}. Say which by --{kind}-key.")


def _has(values: Values, kind: str, family: str) -> bool:
    return any(_family(key) == family for key in values.of(kind))


def _first_of(values: Values, kind: str, family: str) -> Any:
    return next((value for key, value in values.of(kind).items() if _family(key) == family), None)


def _contradiction(values: Sequence[Values], one: str, other: str) -> str:
    """How the labels of two families differ, "" where they agree wherever both are there."""
    for kind, tolerance in (("energy", 1e-4), ("forces", 1e-3)):
        for index, v in enumerate(values):
            a, b = _first_of(v, kind, one), _first_of(v, kind, other)
            if a is not None and b is not None and not np.allclose(a, b, rtol=1e-6, atol=tolerance, equal_nan=True):
                return f"{kind} of frame {index}"
    return ""


def _describe(values: Sequence[Values], family: str) -> str:
    """A family for a list: its keys, and the energy of the first frame that has one."""
    keys = [
        key for kind in KINDS for key in dict.fromkeys(k for v in values for k in v.of(kind)) if _family(key) == family
    ]
    energy = next((e for v in values if (e := _first_of(v, "energy", family)) is not None), None)
    return f"{', '.join(keys)} (first energy {energy:.8g})" if energy is not None else ", ".join(keys)


def _one_of_family(values: Sequence[Values], kind: str, keys: Sequence[str], where: str) -> str | None:
    """The key of a kind, of several spellings in one family that must agree: `force`, `forces` and `Forces`."""
    words = KINDS[kind]
    # Of a key with a unit at its end and one without, that without: they are not of one size.
    ranked = sorted(keys, key=lambda key: (words.index(family_of(key)[1]), apart(key)[1] != ""))  # type: ignore[index]
    same = [key for key in ranked if _plain_word(key) == _plain_word(ranked[0])]
    for other in (key for key in same[1:] if apart(key)[1] == apart(same[0])[1]):
        for index, v in enumerate(values):
            a, b = v.of(kind).get(same[0]), v.of(kind).get(other)
            if a is not None and b is not None and not np.allclose(a, b, rtol=1e-6, atol=1e-3, equal_nan=True):
                raise MdpotError(
                    f"{where}: {same[0]} and {other} contradict each other in frame {index}. Say which holds the "
                    f"{kind} by --{kind}-key."
                )
    if not ranked:
        return None
    # The key that most frames have; of equals the first.
    best = max(ranked, key=lambda key: sum(key in v.of(kind) for v in values))
    free = next((key for key in ranked if family_of(key)[1] == "free_energy"), None)  # type: ignore[index]
    both = [v for v in values if free in v.energy and best in v.energy]
    # With smearing the forces are the derivative of the free energy; the energy is extrapolated to none. Where some
    # frames alone have a free energy, the others would be lost.
    whole = all(free in v.energy for v in values if best in v.energy)
    differ = any(abs(v.energy[free] - v.energy[best]) > 1e-4 for v in both)  # type: ignore[index]
    if kind == "energy" and free is not None and whole and differ:
        return free
    return best


def _plain_word(key: str) -> str:
    """The word of a label's key in the singular, and without what may stand before it."""
    return family_of(key)[1].removeprefix("atomic_").removeprefix("cauchy_").rstrip("s")  # type: ignore[index]


def _notes(
    values: Sequence[Values], chosen: Mapping[str, str | None], seen: Mapping[str, Sequence[str]], ignored: bool
) -> Iterator[str]:
    energy = chosen["energy"]
    for other in seen["energy"]:
        if energy is None or other == energy or _family(other) != _family(energy):
            continue
        gaps = [abs(v.energy[energy] - v.energy[other]) for v in values if {energy, other} <= v.energy.keys()]
        if max(gaps, default=0.0) > 1e-4:
            why = ", whose negative gradient the forces are" if "free" in energy else ""
            yield f"{energy} is taken{why}, not {other} (they differ by up to {max(gaps):.3g})."
    forces = chosen["forces"]
    if energy is not None and forces is not None and _family(energy) != _family(forces):
        yield f"{energy} and {forces} are of different families; they are taken together as asked."
    stress = chosen["stress"]
    alike = [key for key in seen["stress"] if stress is not None and key != stress and _family(key) == _family(stress)]
    if n := sum(stress not in v.stress and any(key in v.stress for key in alike) for v in values):
        yield f"{n} frames have {' or '.join(alike)} in place of {stress}, which is not used: write one of them in all."
    if chosen["stress"] is None and seen["stress"] and energy is not None and not ignored:
        yield f"the stress in {', '.join(seen['stress'])} is of another family than {energy}, and is not used."
