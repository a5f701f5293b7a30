"""What an OpenMM topology says beside the elements: a box, charges, bonds, and with them the masses of hydrogens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mdpot.errors import MdpotError
from mdpot.molecules import heavier_hydrogens
from mdpot.openmm.backends import import_openmm
from mdpot.structures import PLACEHOLDER, is_placeholder

if TYPE_CHECKING:
    import openmm
    import openmm.app

BONDS = "mdpot bonds without strength"
"""Name of the force by which a System knows its molecules."""


def has_box(topology: openmm.app.Topology) -> bool:
    """Whether a topology is periodic.

    Raises:
        MdpotError: its box is a placeholder.
    """
    from openmm.unit import angstrom  # type: ignore[attr-defined]

    box = topology.getPeriodicBoxVectors()
    if box is None:
        return False
    if is_placeholder(np.array(box.value_in_unit(angstrom))):
        raise MdpotError(
            f"topology: its box is {PLACEHOLDER}. Take it away, by topology.setPeriodicBoxVectors(None), or set the "
            "true one."
        )
    return True


def require_box(topology: openmm.app.Topology) -> None:
    """Refuses a topology without a box, of which OpenMM would make its own default, a cube of 2 nm.

    Raises:
        MdpotError: it has none, or a placeholder.
    """
    if not has_box(topology):
        raise MdpotError(
            "periodic: the topology has no box, and OpenMM would take a cube of 2 nm. Set the true one by "
            "topology.setPeriodicBoxVectors."
        )


def formal_charge(topology: Any, atoms: Iterable[int]) -> int | None:
    """The formal charges of some atoms, as PDB and mmCIF files state them, added up.

    Args:
        topology: an OpenMM topology; what is none states nothing.
        atoms: their indices.

    Returns:
        The sum, e; None where none is stated or it is zero, which is what some programs write for not known.
    """
    if not hasattr(topology, "atoms"):
        return None
    chosen = set(atoms)
    return sum(atom.formalCharge or 0 for atom in topology.atoms() if atom.index in chosen) or None


def add_molecules(system: openmm.System, topology: openmm.app.Topology, atoms: Iterable[int] | None = None) -> None:
    """Adds the bonds of a topology to a System, without strength.

    OpenMM learns from the forces of a System which atoms are a molecule: barostats move it, and reporters wrap it into
    the box, as a whole. A potential says nothing of that.

    Args:
        system: whose particles are the topology's atoms.
        topology: without bonds, nothing is added.
        atoms: only bonds between these; None: all.
    """
    bonds = [(first.index, second.index) for first, second in topology.bonds()]
    if atoms is not None:
        chosen = set(atoms)
        bonds = [pair for pair in bonds if chosen.issuperset(pair)]
    if bonds:
        force = import_openmm().HarmonicBondForce()
        force.setName(BONDS)
        for i, j in bonds:
            force.addBond(i, j, 0.0, 0.0)
        system.addForce(force)


def repartition(system: openmm.System, topology: openmm.app.Topology, hydrogen_mass: Any) -> None:
    """Makes the hydrogens of a System heavier at the expense of the atoms that they are bonded to in the topology.

    Args:
        system: whose particles are the topology's atoms.
        topology: with bonds.
        hydrogen_mass: a number in u, or an OpenMM quantity.

    Raises:
        MdpotError: the mass is no number, or below that of a hydrogen; a hydrogen has no bond to a heavy atom; or a
            heavy atom is left lighter than its hydrogens.
    """
    from openmm.unit import dalton  # type: ignore[attr-defined]

    try:
        mass = float(hydrogen_mass.value_in_unit(dalton) if hasattr(hydrogen_mass, "value_in_unit") else hydrogen_mass)
    except (TypeError, ValueError):
        raise MdpotError(f"hydrogenMass must be a mass, in u or with its unit; got {hydrogen_mass!r}.") from None
    listed = list(topology.atoms())
    numbers = np.array([0 if atom.element is None else atom.element.atomic_number for atom in listed])
    parents: dict[int, int] = {}
    for bond in topology.bonds():
        for atom, other in (bond, bond[::-1]):
            if numbers[atom.index] == 1 and numbers[other.index] > 1:
                parents.setdefault(atom.index, other.index)
    for index in np.flatnonzero(numbers == 1):
        if index not in parents:
            atom = listed[index]
            raise MdpotError(
                f"hydrogenMass: hydrogen {index} ({atom.name} of {atom.residue.name} {atom.residue.id}) has no bond to "
                "a heavy atom in the topology. Add it, by topology.addBond."
            )
    masses = np.array([system.getParticleMass(index).value_in_unit(dalton) for index in range(len(listed))])
    for index, value in enumerate(heavier_hydrogens(masses, parents, mass)):
        system.setParticleMass(index, float(value))
