"""Molecules by connectivity, in any cell: which atoms belong together, and where they lie when made whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mdpot.errors import MdpotError

#: Two atoms are bonded when they are closer than this times the sum of their covalent radii (1.26 Å for O and
#: H).
BOND_FACTOR = 1.3


def longest_bond(numbers: np.ndarray) -> float:
    """The largest distance, Å, at which two atoms of these elements can be bonded."""
    return 2 * BOND_FACTOR * float(covalent_radii[np.unique(numbers)].max())


def is_bond(
    numbers_i: np.ndarray, numbers_j: np.ndarray, squared_distance: np.ndarray, factor: float = BOND_FACTOR
) -> np.ndarray:
    """Whether pairs [n_edges] of atoms at these squared distances, Å^2, are within `factor` of touching."""
    reach = factor * (covalent_radii[numbers_i] + covalent_radii[numbers_j])
    return squared_distance < reach * reach


def find_molecules(
    numbers: np.ndarray, bonds: np.ndarray, shifts: np.ndarray, formula: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a graph of bonds, and the images that make them whole.

    Args:
        numbers: [n_atoms], atomic numbers; the atoms of many frames may stand side by side.
        bonds: [2, n_bonds], pairs (i, j), both directions.
        shifts: [n_bonds, 3], the lattice translation of j.
        formula: only components of exactly this composition count, e.g. "H2O"; None takes all.

    Returns:
        molecule [n_atoms] int64, numbered from 0 without gaps, -1 for atoms of components that do not count:
        another composition, or bonded to an image of themselves across the cell (a crystal, a chain). And
        images [n_atoms, 3] int64: an atom moved by `images @ cell` lies beside the atoms it is bonded to;
        zeros for components across the cell.

    Raises:
        MdpotError: a formula that is none.
    """
    n_atoms = len(numbers)
    i, j = bonds
    adjacency = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n_atoms, n_atoms))
    n_components, component = connected_components(adjacency, directed=False)
    images = _walk(component, n_components, i, j, shifts)
    # Around a loop across the cell the translations do not cancel, so one bond at least disagrees.
    closed = np.ones(n_components, dtype=bool)
    closed[component[i[(images[j] != images[i] + shifts).any(axis=1)]]] = False
    images[~closed[component]] = 0
    usable = closed
    if formula is not None:
        usable = closed & _has_formula(numbers, component, n_components, formula)
    # Components are renumbered in the order of their first atoms.
    atoms = np.flatnonzero(usable[component])
    _, first, inverse = np.unique(component[atoms], return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    molecule = np.full(n_atoms, -1, dtype=np.int64)
    molecule[atoms] = rank[inverse]
    return molecule, images


def _walk(component: np.ndarray, n_components: int, i: np.ndarray, j: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Images [n_atoms, 3] int64 by walking bonds outwards from the first atom of every component at once."""
    n_atoms = len(component)
    images = np.zeros((n_atoms, 3), dtype=np.int64)
    known = np.zeros(n_atoms, dtype=bool)
    first = np.full(n_components, n_atoms)
    np.minimum.at(first, component, np.arange(n_atoms))
    known[first] = True
    while len(i):
        step = known[i] & ~known[j]
        if not step.any():
            break
        images[j[step]] = images[i[step]] + shifts[step]
        known[j[step]] = True
        left = ~known[j]
        i, j, shifts = i[left], j[left], shifts[left]
    return images


def _has_formula(numbers: np.ndarray, component: np.ndarray, n_components: int, formula: str) -> np.ndarray:
    """Whether each component [n_components] has exactly this composition."""
    try:
        wanted = {atomic_numbers[symbol]: n for symbol, n in Formula(formula).count().items()}
    except (ValueError, KeyError):
        raise MdpotError(f"molecule must be a chemical formula such as 'H2O'; got {formula!r}.") from None
    matches = np.bincount(component, minlength=n_components) == sum(wanted.values())
    for atomic, n in wanted.items():
        matches &= np.bincount(component[numbers == atomic], minlength=n_components) == n
    return matches


def heavier_hydrogens(masses: np.ndarray, parents: Mapping[int, int], hydrogen_mass: float) -> np.ndarray:
    """Masses [n_atoms], u, in which hydrogens are heavier at the expense of the atom they are bonded to.

    Equilibrium averages do not change, and the fastest vibrations slow down.

    Args:
        masses: [n_atoms], u, as they are.
        parents: the heavy atom of each hydrogen.
        hydrogen_mass: u.

    Raises:
        MdpotError: a hydrogen is heavier already, or a heavy atom is left lighter than its hydrogens.
    """
    masses = masses.copy()
    for hydrogen, parent in parents.items():
        if not masses[hydrogen] <= hydrogen_mass:
            raise MdpotError(
                f"hydrogen mass must not be below what hydrogens have; atom {hydrogen} has {masses[hydrogen]:g} u, got "
                f"{hydrogen_mass:g} u."
            )
        masses[parent] -= hydrogen_mass - masses[hydrogen]
        masses[hydrogen] = hydrogen_mass
    lightest = masses[list(parents.values())].min(initial=np.inf)
    if lightest < min(hydrogen_mass, 1.0):
        raise MdpotError(f"hydrogen mass of {hydrogen_mass} u leaves a heavy atom with {lightest:.2f} u.")
    return masses
