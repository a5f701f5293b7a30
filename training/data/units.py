"""Units of the labels: their names, their sizes in eV and Å, and the systems of them that programs use."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mdpot.units import BAR, BOHR, GPA, HARTREE, HARTREE_PER_BOHR, KCAL_PER_MOL, KJ_PER_MOL

RYDBERG = HARTREE / 2
ENERGIES = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "mHartree": 1e-3 * HARTREE,
    "Rydberg": RYDBERG,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
"""eV."""
LENGTHS = {"Å": 1.0, "bohr": BOHR, "nm": 10.0, "pm": 0.01}
"""Å."""
PRESSURES = {"GPa": GPA, "MPa": 1e-3 * GPA, "Pa": 1e-9 * GPA, "kbar": 1e3 * BAR, "bar": BAR, "atm": 1.01325 * BAR}
"""eV/Å^3."""
SPELLINGS = {
    "ev": "eV",
    "electronvolt": "eV",
    "electronvolts": "eV",
    "mev": "meV",
    "ha": "Hartree",
    "eh": "Hartree",
    "hartree": "Hartree",
    "hartrees": "Hartree",
    "mha": "mHartree",
    "mhartree": "mHartree",
    "ry": "Rydberg",
    "rydberg": "Rydberg",
    "kcal/mol": "kcal/mol",
    "kcalmol-1": "kcal/mol",
    "kcal": "kcal/mol",
    "kj/mol": "kJ/mol",
    "kj": "kJ/mol",
    "kjmol-1": "kJ/mol",
    "å": "Å",
    "a": "Å",
    "ang": "Å",
    "angs": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "ångström": "Å",
    "bohr": "bohr",
    "a0": "bohr",
    "nm": "nm",
    "pm": "pm",
    "gpa": "GPa",
    "mpa": "MPa",
    "pa": "Pa",
    "kbar": "kbar",
    "kb": "kbar",
    "bar": "bar",
    "atm": "atm",
}
"""The names above, from how they are written, in lower case and without white space."""
PER_ATOM = "/atom"
QUANTITIES = ("energy", "length", "force", "stress", "virial")


@dataclass(frozen=True)
class Units:
    """What the numbers of a file are to be multiplied by, and why.

    Attributes:
        energy, length, force, stress, virial: names.
        source: "assumed", "partly assumed", "stated in the file", "of the format", "of PyG's CLASS" or "given".
    """

    energy: str = "eV"
    length: str = "Å"
    force: str = "eV/Å"
    stress: str = "eV/Å³"
    virial: str = "eV"
    source: str = "assumed"

    @property
    def to_ev(self) -> float:
        return ENERGIES[self.energy.removesuffix(PER_ATOM)]

    @property
    def per_atom(self) -> bool:
        """Whether the energy of a frame is divided by its number of atoms."""
        return self.energy.endswith(PER_ATOM)

    @property
    def to_angstrom(self) -> float:
        return LENGTHS[self.length]

    @property
    def to_ev_per_angstrom(self) -> float:
        return _force(self.force)

    @property
    def to_ev_per_cubic_angstrom(self) -> float:
        """Of the stress; negative where the file counts compression as positive."""
        return _stress(self.stress)

    @property
    def virial_to_ev(self) -> float:
        """Negative where the virial is that of the stress, positive under tension."""
        return (-1 if self.virial.startswith("-") else 1) * ENERGIES[self.virial.lstrip("-")]

    def stress_of_virial(self, virial: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
        """The stress [3, 3], in the file's units of a stress, of a virial and a cell in the file's units; None where
        the cell has no volume."""
        volume = abs(float(np.linalg.det(cell)))
        factor = self.virial_to_ev / (self.to_angstrom**3 * self.to_ev_per_cubic_angstrom)
        return -virial * factor / volume if volume > 0 else None

    @property
    def conversions(self) -> tuple[float, float, float, float, float]:
        return (
            self.to_ev,
            self.to_angstrom,
            self.to_ev_per_angstrom,
            self.to_ev_per_cubic_angstrom,
            self.virial_to_ev,
        )

    @property
    def are_ours(self) -> bool:
        """Whether nothing needs to be multiplied."""
        return not self.per_atom and all(math.isclose(factor, 1.0) for factor in self.conversions)

    def __str__(self) -> str:
        return f"{self.energy}, {self.force}, {self.length} ({self.source})"

    def as_dict(self) -> dict[str, str]:
        """By quantity, and "source"."""
        return {**{name: getattr(self, name) for name in QUANTITIES}, "source": self.source}


ASE = Units()
ATOMIC = Units("Hartree", "bohr", "Hartree/bohr", "Hartree/bohr³", "Hartree")
VASP = Units(stress="-kbar")
SYSTEMS = {
    "ase": ASE,
    "ev": ASE,
    "metal": replace(ASE, stress="-bar"),
    "vasp": VASP,
    "atomic": ATOMIC,
    "hartree": ATOMIC,
    "runner": ATOMIC,
    "real": Units("kcal/mol", "Å", "kcal/mol/Å", "-atm", "kcal/mol"),
    "kcal/mol": Units("kcal/mol", "Å", "kcal/mol/Å", "kcal/mol/Å³", "kcal/mol"),
    "kj/mol": Units("kJ/mol", "Å", "kJ/mol/Å", "kJ/mol/Å³", "kJ/mol"),
}
"""Whole systems of units by name; "metal" and "real" are those of LAMMPS, whose pressures are positive under
compression, as VASP's stress is."""


def _force(name: str) -> float:
    sign, name = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    energy, _, length = name.rpartition("/")
    return sign * (HARTREE_PER_BOHR if name == "Hartree/bohr" else ENERGIES[energy] / LENGTHS[length])


def _stress(name: str) -> float:
    sign, name = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    if name in PRESSURES:
        return sign * PRESSURES[name]
    energy, _, volume = name.rpartition("/")
    return sign * ENERGIES[energy] / LENGTHS[volume.rstrip("³")] ** 3
