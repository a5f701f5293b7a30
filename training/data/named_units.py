"""Units that the keys of labels name, as `energy_kcal` and `forces_Ha_bohr` do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from mdpot.errors import MdpotError
from mdpot.training.data.label_keys import is_per_atom
from mdpot.training.data.labels import Keys
from mdpot.training.data.unit_statements import canonical, energy_in_name, units_of
from mdpot.training.data.units import ASE, PER_ATOM, Units


def units_of_labels(keys: Keys, stated: Mapping[str, str], base: Units = ASE) -> Units:
    """The units of a file with some labels, of which the keys may name theirs.

    Args:
        keys: of the labels.
        stated: what the file states, by quantity, which goes before the names.
        base: of what nothing is said of.
    """
    names = units_in_names(keys, stated.get("length", base.length))
    units = units_of({**names, **stated}, base)
    taken = {"energy": keys.energy, "force": keys.forces, "virial" if keys.stress_is_virial else "stress": keys.stress}
    silent = any(key is not None and quantity not in names for quantity, key in taken.items())
    if names and silent and not stated and base.source == "assumed":
        return replace(units, source="partly assumed")
    return units


def divided(units: Units, keys: Keys) -> Units:
    """The units of labels whose energy is one per atom, where its key says so."""
    per_atom = is_per_atom(keys.energy or "") and not units.per_atom
    return replace(units, energy=units.energy + PER_ATOM) if per_atom else units


def units_in_names(keys: Keys, length: str = "Å") -> dict[str, str]:
    """The units that the keys of labels name, by quantity; forces and stress in an energy alone are per `length`."""
    forces, stress = keys.forces or "", keys.stress or ""
    found = {"energy": energy_in_name(keys.energy or ""), "force": _ratio(forces, length)}
    if keys.stress_is_virial:
        found["virial"] = energy_in_name(stress)
    else:
        ratio = _ratio(stress, length)
        found["stress"] = _in_name("stress", stress) or (None if ratio is None else f"{ratio}³")
    return {quantity: unit for quantity, unit in found.items() if unit is not None}


def _ratio(key: str, length: str) -> str | None:
    energy = energy_in_name(key)
    return None if energy is None else f"{energy}/{_in_name('length', key) or length}"


def _in_name(quantity: str, key: str) -> str | None:
    """The first word of a key that is a unit of a quantity."""
    for word in re.split(r"[^A-Za-zÅå]+", key):
        with suppress(MdpotError):
            return canonical(quantity, word)
    return None
