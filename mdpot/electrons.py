"""How many electrons a structure has, and how many of them are unpaired: networks do not see it, force fields must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.formula import Formula

from mdpot.errors import MdpotError

CHARGE_KEYS = ("charge", "total_charge")
"""Of `Atoms.info`, the total charge in e."""
MULTIPLICITY_KEYS = ("multiplicity", "spin_multiplicity", "spin", "total_spin")
"""Of `Atoms.info`. Some programs write the number of unpaired electrons as spin, others the multiplicity: one of the
two fits the number of electrons."""
STATED = "stated"
"""In the header of a potential that corrects a force field: a structure has to state its electrons itself."""
WHOLE = 0.1
"""e; charges of the atoms, rounded as they are in files, that add up to a whole number within this are one."""


@dataclass(frozen=True)
class Electrons:
    """What is said of a structure's electrons.

    Attributes:
        charge: of all, e.
        unpaired: how many have no partner of the other spin; None where that is not said: as few as there can be.
    """

    charge: int = 0
    unpaired: int | None = None


def stated_electrons(atoms: Atoms) -> Electrons | None:
    """What a structure says of its electrons, in `info` or by the charges of its atoms; None where it says nothing."""
    charge = _whole(atoms.info, CHARGE_KEYS)
    if charge is None and "initial_charges" in atoms.arrays:
        total = float(np.sum(atoms.arrays["initial_charges"]))
        charge = (round(total) or None) if abs(total - round(total)) < WHOLE else None  # zero is ASE's default
    multiplicity = _whole(atoms.info, MULTIPLICITY_KEYS)
    if charge is None and multiplicity is None:
        return None
    n = int(np.sum(atoms.numbers)) - (charge or 0)
    return Electrons(charge or 0, None if multiplicity is None else _unpaired(multiplicity, n))


def as_options(electrons: Electrons | None) -> dict[str, int]:
    """What is stated, by the names "charge" and "multiplicity", as in `Atoms.info`."""
    if electrons is None:
        return {}
    spin = {} if electrons.unpaired is None else {"multiplicity": electrons.unpaired + 1}
    return {"charge": electrons.charge, **spin}


def check_electrons(electrons: Electrons | None, numbers: np.ndarray) -> Electrons:
    """What is taken for the electrons of a structure: those that are stated, or those of a neutral closed shell.

    Raises:
        MdpotError: a number of unpaired electrons that does not fit; or nothing is stated, and the electrons cannot all
            be paired.
    """
    found = electrons or Electrons()
    n = int(np.sum(numbers)) - found.charge
    formula = Formula.from_list([str(s) for s in Atoms(numbers).get_chemical_symbols()]).format("hill")
    if found.unpaired is not None and (found.unpaired - n) % 2:
        raise MdpotError(
            f"a structure of {formula} with a charge of {found.charge} has {n} electrons, of which {found.unpaired} "
            "cannot be unpaired. Mend its charge or its multiplicity."
        )
    if electrons is None and n % 2:
        raise MdpotError(
            f"{formula} has an odd number of electrons: it is an ion, a radical or a metal, and nothing says which. "
            'State its charge, by atoms.info["charge"] = 1, charge=1 in a file, or, for all frames that do not state '
            "theirs, --set data.charge=1. A radical or a metal has 0."
        )
    return found


def or_else(stated: Electrons | None, otherwise: Electrons | str | None) -> Electrons | None:
    """What a structure states of its electrons, or else what the header of a potential says.

    Raises:
        MdpotError: it has to state them, and does not.
    """
    if stated is not None or not isinstance(otherwise, str):
        return stated or otherwise  # pyright: ignore[reportReturnType]
    raise MdpotError(
        "the potential was trained on structures of several charges or multiplicities, and corrects a force field that "
        'needs to know them. State them: atoms.info["charge"] = 0, charge=0 in a file or as an option of mdpot.openmm.'
    )


def _whole(info: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first whole number among some keys; a third of a charge, or text, is none."""
    for key in keys:
        value = np.asarray(info.get(key, np.nan))
        if value.size == 1 and value.dtype.kind in "iuf" and float(value.item()).is_integer():
            return int(value.item())
    return None


def _unpaired(multiplicity: int, n_electrons: int) -> int:
    """The unpaired electrons of a multiplicity, or of their own number where that fits instead."""
    return multiplicity - 1 if (multiplicity - 1 - n_electrons) % 2 == 0 and multiplicity > 0 else max(multiplicity, 0)
