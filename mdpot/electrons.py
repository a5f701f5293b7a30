"""How many electrons a structure has, and how many of them are unpaired: networks do not see it, force fields must."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from mdpot.errors import MdpotError

CHARGE_KEYS = ("charge", "total_charge")
"""Of `Atoms.info`, in any case: the total charge in e."""
MULTIPLICITY_KEYS = ("multiplicity", "spin_multiplicity")
SPIN_KEYS = ("spin", "total_spin")
"""Some programs write the number of unpaired electrons so, others the multiplicity: one of the two fits the number of
electrons."""
STATED = "stated"
"""In the header of a potential that corrects a force field: a structure has to state its charge itself."""
WHOLE = 0.1
"""e; charges of the atoms, rounded as they are in files, that add up to a whole number within this are one."""
EXACT = 1e-3
"""A number that is stated for a structure is whole within this."""


@dataclass(frozen=True)
class Electrons:
    """What is said of a structure's electrons; None of what is not.

    Attributes:
        charge: of all, e.
        unpaired: how many have no partner of the other spin.
        spin: that number or the multiplicity, see `SPIN_KEYS`.
        unclear: what is said and is no whole number.
    """

    charge: int | None = None
    unpaired: int | None = None
    spin: int | None = None
    unclear: str = ""

    def or_else(self, other: Electrons) -> Electrons:
        """This, and of what it does not say the other's."""
        silent = self.unpaired is None and self.spin is None
        return Electrons(
            other.charge if self.charge is None else self.charge,
            other.unpaired if silent else self.unpaired,
            other.spin if silent else self.spin,
            self.unclear or other.unclear,
        )

    def settled(self, numbers: np.ndarray) -> tuple[int, int | None]:
        """The charge, and the unpaired electrons, None for as few as there can be, of atoms with these numbers.

        Raises:
            MdpotError: what is said is unclear or impossible; or there is an odd number of electrons, and nothing says
                why.
        """
        if self.unclear:
            raise MdpotError(f"{self.unclear} is no whole number of electrons.")
        charge, n = self.charge or 0, int(np.sum(numbers)) - (self.charge or 0)
        unpaired = self.unpaired
        if self.spin is not None and unpaired is None:
            unpaired = self.spin - 1 if self.spin > 0 and (self.spin - 1 - n) % 2 == 0 else self.spin
        if n < 0 or (unpaired is not None and (unpaired < 0 or unpaired > n or (unpaired - n) % 2)):
            what = "" if unpaired is None else f", of which {unpaired} cannot be unpaired"
            raise MdpotError(
                f"{_formula(numbers)} with a charge of {charge} has {n} electrons{what}. Mend its charge or its "
                "multiplicity."
            )
        if self.charge is None and unpaired is None and n % 2:
            raise MdpotError(
                f"{_formula(numbers)} has an odd number of electrons: it is an ion, a radical or a metal, and nothing "
                'says which. State its charge, by atoms.info["charge"] = 1, charge=1 in a file, or --charge 1 for all '
                "frames that do not state theirs. A radical or a metal has 0."
            )
        return charge, unpaired

    @property
    def info(self) -> dict[str, int | str]:
        """The same for `Atoms.info`."""
        multiplicity = None if self.unpaired is None else self.unpaired + 1
        said = {"charge": self.charge, "multiplicity": multiplicity, "spin": self.spin}
        unclear = [self.unclear.split("=", 1)] if self.unclear else []
        return {**{name: value for name, value in said.items() if value is not None}, **dict(unclear)}

    def options(self, numbers: np.ndarray) -> dict[str, int]:
        """What is said of atoms with these numbers, by the names "charge" and "multiplicity"."""
        if self == NOTHING_SAID:
            return {}
        unpaired = self.settled(numbers)[1]
        said = {"charge": self.charge, "multiplicity": None if unpaired is None else unpaired + 1}
        return {name: value for name, value in said.items() if value is not None}


NOTHING_SAID = Electrons()


def of_multiplicity(charge: int | None, multiplicity: int | None) -> Electrons:
    """What these say, each of which may be None."""
    return Electrons(charge, None if multiplicity is None else multiplicity - 1)


def electrons_in(info: Mapping[str, Any]) -> Electrons:
    """What the values under the keys of this module say."""
    info = {str(key).lower(): value for key, value in info.items()}
    (charge, no_charge), (multiplicity, no_multiplicity), (spin, no_spin) = (
        _whole(info, keys) for keys in (CHARGE_KEYS, MULTIPLICITY_KEYS, SPIN_KEYS)
    )
    unpaired = None if multiplicity is None else multiplicity - 1
    return Electrons(charge, unpaired, None if unpaired is not None else spin, no_charge or no_multiplicity or no_spin)


def stated_electrons(atoms: Atoms) -> Electrons:
    """What a structure says of its electrons, in `info` or by the charges of its atoms."""
    found = electrons_in(atoms.info)
    if found.charge is None and "initial_charges" in atoms.arrays:
        total = float(np.sum(atoms.arrays["initial_charges"]))
        if np.isfinite(total) and abs(total - round(total)) < WHOLE:
            found = replace(found, charge=round(total) or None)  # zero is ASE's default
    return found


def or_else(stated: Electrons, otherwise: Electrons | str) -> Electrons:
    """What a structure states of its electrons, and of what it does not, what the header of a potential says.

    Another charge than that of the training is a warning.

    Raises:
        MdpotError: it has to state its charge, and does not.
    """
    if isinstance(otherwise, Electrons):
        if None not in (stated.charge, otherwise.charge) and stated.charge != otherwise.charge:
            warnings.warn(
                f"the structure has a charge of {stated.charge}; the potential was trained at {otherwise.charge}.",
                stacklevel=3,
            )
        return stated.or_else(otherwise)
    if stated.charge is None:
        raise MdpotError(
            "the potential was trained on structures of several charges or multiplicities, and corrects a force field "
            'that needs to know them. State them: atoms.info["charge"] = 0, charge=0 in a file or as an option of '
            "mdpot.openmm or mdpot md."
        )
    return stated


def _whole(info: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[int | None, str]:
    """The first whole number among some keys, or what stands there instead; values for each atom are neither."""
    for key in keys:
        value = info.get(key)
        if value is None or np.size(value) != 1:
            continue
        try:
            number = float(np.asarray(value).item())
        except (TypeError, ValueError):
            return None, f"{key}={value}"
        if np.isnan(number):
            continue
        whole = np.isfinite(number) and abs(number - round(number)) < EXACT
        return (round(number), "") if whole else (None, f"{key}={np.asarray(value).item()}")
    return None, ""


def _formula(numbers: np.ndarray) -> str:
    return Formula.from_list([chemical_symbols[z] for z in numbers]).format("hill")
