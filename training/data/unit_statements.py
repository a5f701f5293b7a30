"""How files and users state units: in which words, of which quantities, and what follows from what is stated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mdpot.errors import MdpotError, unknown
from mdpot.training.data.label_keys import family_of
from mdpot.training.data.units import (
    ASE,
    ATOMIC,
    ENERGIES,
    LENGTHS,
    PER_ATOM,
    PRESSURES,
    QUANTITIES,
    SPELLINGS,
    SYSTEMS,
    Units,
)

_ATOMIC = ("au", "a.u.", "atomic", "atomicunits", "atomic_unit", "atomic_units")
# mdpot's key of a quantity, from the words that files and people use for it.
_WORDS = {
    "energy": "energy",
    "energies": "energy",
    "length": "length",
    "lengths": "length",
    "distance": "length",
    "pos": "length",
    "position": "length",
    "positions": "length",
    "cell": "length",
    "force": "force",
    "forces": "force",
    "stress": "stress",
    "virial": "virial",
    "virials": "virial",
}
_ASSIGNMENT = re.compile(r"^([a-z]+)(?:[-_ ]units?)?\s*[=:]\s*(.*)$", re.I)
# Keys that state a unit: `energy-unit`, `unit_energy`, and with a family's name, `REF_energy_units`.
_STATED = re.compile(
    r"^(?P<word>[a-z]+?)s?[-_ ]?units?$|^units?[-_ ](?P<of>energ|forc|stress|virial|length)[a-z]*$", re.I
)
_OF_FAMILY = re.compile(r"^(?P<key>.+?)[-_ ]?units?$", re.I)
_OF_ALL = re.compile(r"^units?$", re.I)
_SHORT = {"e": "energy", "f": "force", "r": "length", "energ": "energy", "forc": "force"}

EXAMPLE = '--units "energy=Hartree,length=bohr", --units stress=GPa, --units vasp'


def parse_units(text: str | None, base: Units = ASE) -> Units:
    """The units that a user names; those of the file where that is nothing.

    A system (`SYSTEMS`), "quantity=unit" with commas between them, or a system and then what differs from it. A unit
    that is named is that of its quantity alone; but where both energy and length are, force, stress and virial that are
    not named follow them, unless a file or its format has a unit of its own for them. A minus sign says that a quantity
    has the other sign than ASE's: "stress=-kbar" is positive under compression, "force=-eV/Å" is a gradient. The energy
    may be "eV/atom".

    Args:
        text: e.g. "atomic", "energy=kcal/mol", "stress=GPa".
        base: what holds for quantities that nothing is said of.

    Raises:
        MdpotError: an unknown system, quantity or unit.
    """
    if text is None:
        return base
    parts = [part.strip() for part in re.split(r"[,;]|\s+(?=[A-Za-z]+[=:])", text) if part.strip()]
    system = SYSTEMS.get(parts[0].lower()) or (ATOMIC if parts[0].lower() in _ATOMIC else None) if parts else None
    if system is not None:
        base, parts = system, parts[1:]
        if not parts:
            return replace(base, source="given")
    found: dict[str, str] = {}
    for part in parts:
        match = _ASSIGNMENT.match(part)
        if match is None:
            found[_quantity_of(part)] = canonical(_quantity_of(part), part)
            continue
        quantity = _WORDS.get(match[1].lower())
        if quantity is None:
            raise unknown("quantity in units", match[1], QUANTITIES)
        found[quantity] = canonical(quantity, match[2])
    if not found:
        systems = ", ".join(SYSTEMS)
        raise MdpotError(f"units must name a system ({systems}) or quantity=unit, e.g. {EXAMPLE}; got {text!r}.")
    return replace(_completed(found, base), source="given")


def stated_units(info: Mapping[str, Any], family: str = "") -> dict[str, str]:
    """The units that the comment of a frame states, by quantity.

    Keys are those like `energy-unit`, `force_unit`, `stress-units`, `unit_energy`, `e_unit`; those of the labels'
    family (`REF_energy_unit`) go before them.

    Args:
        info: the comment, by key.
        family: of the labels, see `mdpot.training.data.label_keys.family_of`.

    Raises:
        MdpotError: a unit that is not known here.
    """
    found: dict[str, str] = {}
    of_family: dict[str, str] = {}
    for key, value in info.items():
        if not isinstance(value, str):
            continue
        if (quantity := _stated_quantity(str(key))) is not None:
            found[quantity] = canonical(quantity, value, f"{key}={value}")
        elif (quantity := _family_quantity(str(key), family)) is not None:
            of_family[quantity] = canonical(quantity, value, f"{key}={value}")
    return found | of_family


def stated_system(info: Mapping[str, Any]) -> Units | None:
    """The units of all quantities that the key `units` of a comment states: a system; or that of the energy alone.

    None without such a key, and where it holds something else.
    """
    value = next((v for key, v in info.items() if _OF_ALL.match(str(key)) and isinstance(v, str)), None)
    if value is None:
        return None
    name = value.strip().lower()
    if SPELLINGS.get(_plain(value)) in ("eV", "Hartree"):  # nothing says that lengths are in bohr, too
        system = replace(ASE, energy=SPELLINGS[_plain(value)])
    else:
        system = ATOMIC if _plain(value) in _ATOMIC else SYSTEMS.get(name)
    return None if system is None else replace(system, source="stated in the file")


def _stated_quantity(key: str) -> str | None:
    """The quantity whose unit a key states."""
    match = _STATED.match(key)
    if match is None:
        return None
    word = (match["word"] or match["of"]).lower()
    return _SHORT.get(word) or _WORDS.get(word) or _WORDS.get(word + "s")


def _family_quantity(key: str, family: str) -> str | None:
    """The quantity of a family whose unit a key states."""
    match = _OF_FAMILY.match(key)
    found = family_of(match["key"]) if match is not None else None
    if found is None or found[2] != family:
        return None
    kind, word, _ = found
    return "virial" if word.startswith("virial") else {"forces": "force"}.get(kind, kind)


def energy_in_name(key: str) -> str | None:
    """The unit that the key of an energy names, as `energy_Ha` and `E(eV)` do; None for one that names none."""
    units = [SPELLINGS.get(word) for word in re.split(r"[^A-Za-z]+", key.lower())]
    return next((unit for unit in units if unit in ENERGIES), None)


def units_of(stated: Mapping[str, str], base: Units = ASE) -> Units:
    """The units of a file that states some of them, and of the others has those of `base`."""
    return replace(_completed(dict(stated), base), source="stated in the file") if stated else base


def _completed(found: dict[str, str], base: Units) -> Units:
    if "energy" in found and "length" in found:
        before = _following(base.energy, base.length)
        for quantity, unit in _following(found["energy"].removesuffix(PER_ATOM), found["length"]).items():
            if getattr(base, quantity) == before[quantity]:  # else the file or its format has another for it
                found.setdefault(quantity, unit)
    return replace(base, **found)


def _following(energy: str, length: str) -> dict[str, str]:
    """The units that follow from those of energy and length."""
    return {"force": f"{energy}/{length}", "stress": f"{energy}/{length}³", "virial": energy}


def canonical(quantity: str, unit: str, where: str = "") -> str:
    """The name of a unit as it is written here.

    Args:
        quantity: one of `QUANTITIES`.
        unit: in any usual spelling.
        where: it was found, for the message.

    Raises:
        MdpotError: a unit that is none of this quantity.
    """
    text = _plain(unit)
    try:
        if quantity == "stress":
            sign = "-" if text.startswith("-") else ""
            return sign + _canonical_stress(text.lstrip("-"))
        if quantity == "virial":
            sign = "-" if text.startswith("-") else ""
            return sign + canonical("energy", text.lstrip("-"))
        if quantity == "force":
            sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
            return sign + ("Hartree/bohr" if text in _ATOMIC else _canonical_ratio(text))
        if quantity == "energy" and text.endswith(PER_ATOM):
            return canonical("energy", text.removesuffix(PER_ATOM)) + PER_ATOM
        table, atomic = (LENGTHS, "bohr") if quantity == "length" else (ENERGIES, "Hartree")
        name = atomic if text in _ATOMIC else SPELLINGS[text]
        if name not in table:
            raise KeyError(name)
        return name
    except KeyError:
        known = {"stress": [*PRESSURES, "eV/Å³"], "force": ["eV/Å", "Hartree/bohr", "kcal/mol/Å"], "length": LENGTHS}
        stated = f" ({where})" if where else ""
        raise unknown(f"unit of {quantity}{stated}", unit, known.get(quantity, ENERGIES)) from None


def _plain(unit: str) -> str:
    """Lower case, no white space, powers as in "ev/å³" and "kcal/mol/å"."""
    text = unit.strip().lower().replace("−", "-").replace("**", "^").replace("³", "^3")
    text = re.sub(r"[\s*·]+(?=mol)", "", text)
    text = re.sub(r"[\s*·]*mol\^?-1", "/mol", text)
    text = re.sub(r"[\s*·]+([a-zå]+0?)\^?-(\d)", r"/\1^\2", text)
    text = re.sub(r"/([a-zå]+0?)/\1/\1$", r"/\1^3", text)
    text = text.replace("^1", "").replace("(", "").replace(")", "")
    return re.sub(r"\s+", "", text)


def _canonical_ratio(text: str) -> str:
    energy, _, length = text.rpartition("/")
    name, per = SPELLINGS[energy], SPELLINGS[length]
    if name not in ENERGIES or per not in LENGTHS:
        raise KeyError(text)
    return f"{name}/{per}"


def _canonical_stress(text: str) -> str:
    if text in _ATOMIC:
        return "Hartree/bohr³"
    if SPELLINGS.get(text) in PRESSURES:
        return SPELLINGS[text]
    energy, _, volume = text.rpartition("/")
    if not volume.endswith("3"):
        raise KeyError(text)
    return _canonical_ratio(f"{energy}/{volume.rstrip('3').rstrip('^')}") + "³"


def _quantity_of(unit: str) -> str:
    """The quantity that a unit without one is of."""
    for quantity in ("stress", "force", "energy", "length"):
        try:
            canonical(quantity, unit)
        except MdpotError:
            continue
        return quantity
    raise unknown("units", unit, [*SYSTEMS, *ENERGIES, *PRESSURES])
