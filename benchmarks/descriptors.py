"""Numbers that describe a crystal, for heads that learn a property from few of them: its elements, its neighbors,
and the frequencies of its bonds as springs. `layers.py` has those of a layer.

Nothing is learned here. Each function gives the values of one structure by their names.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list

Values = dict[str, float]
CUTOFF = 6.0
"""Å, of neighbors."""
DECAYS = (2.0, 4.0, 8.0)
"""How fast a spring weakens with the bond's length over the sum of the covalent radii."""
LATERAL = 0.2
"""The share of a spring's stiffness that resists a shift across the bond."""
ELEMENTS = Path(__file__).with_name("elements.csv")


def element_table() -> tuple[list[str], np.ndarray]:
    """Names of properties of the elements, and [100, n_properties] by atomic number; what is unknown is the median.

    Source: pymatgen's table of the elements; s, p, d and f are electrons of the valence shells.
    """
    with ELEMENTS.open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    table = np.full([100, len(head) - 1], np.nan)
    for row in rows:
        table[int(row[0])] = [float(value) if value else np.nan for value in row[1:]]
    table = np.where(np.isnan(table), np.nanmedian(table[1:], axis=0), table)
    return [*head[1:], "covalent radius"], np.column_stack([table, covalent_radii[:100]])


NAMES, TABLE = element_table()
SPREAD = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max, "range": np.ptp}


def describe(atoms: Atoms, parts: Sequence[Callable[[Atoms], Values]]) -> Values:
    """All values of some of the functions below."""
    return {name: value for part in parts for name, value in part(atoms).items()}


def composition(atoms: Atoms) -> Values:
    """How the properties of the elements spread over the atoms, how many elements there are, and their shares."""
    numbers = atoms.numbers
    found = {
        f"{how} {name}": value
        for how, spread in SPREAD.items()
        for name, value in zip(NAMES, spread(TABLE[numbers], axis=0), strict=True)
    }
    shares = np.bincount(numbers, minlength=100) / len(atoms)
    present = shares[shares > 0]
    found |= {
        "elements": len(present),
        "norm of the shares": np.linalg.norm(present),
        "entropy of the shares": -(present * np.log(present)).sum(),
    }
    return found | {f"share of {chemical_symbols[z]}": shares[z] for z in range(1, 100)}


def cell(atoms: Atoms) -> Values:
    """Size, shape and density of the cell."""
    volume, lengths, angles = atoms.get_volume(), np.sort(atoms.cell.lengths()), np.sort(atoms.cell.angles())
    return {
        "atoms": len(atoms),
        "volume per atom": volume / len(atoms),
        "density": atoms.get_masses().sum() / volume,
        "packing": (4 / 3 * np.pi * covalent_radii[atoms.numbers] ** 3).sum() / volume,
        **{f"length {n}": length for n, length in enumerate(lengths)},
        **{f"angle {n}": angle for n, angle in enumerate(angles)},
    }


def surroundings(atoms: Atoms) -> Values:
    """Nearest neighbors, coordination, and a histogram of bond lengths over the sums of the covalent radii."""
    i, j, d = neighbor_list("ijd", atoms, CUTOFF)
    ratio = d / radii(atoms, i, j)
    nearest, nearest_ratio = np.full(len(atoms), CUTOFF), np.full(len(atoms), 3.0)
    np.minimum.at(nearest, i, d)
    np.minimum.at(nearest_ratio, i, ratio)
    found = {
        f"{how} {name}": spread(values)
        for name, values in (
            ("nearest distance", nearest),
            ("nearest ratio", nearest_ratio),
            ("coordination", coordination(len(atoms), i, ratio, 0.15)),
        )
        for how, spread in SPREAD.items()
    }
    counts, edges = np.histogram(ratio, bins=np.arange(0.6, 2.6, 0.1))
    return found | {f"bonds at {low:.1f}": n / len(atoms) for low, n in zip(edges[:-1], counts, strict=True)}


def springs(atoms: Atoms) -> Values:
    """Frequencies of the bonds as springs, in units of their own: of pairs, of each atom alone, and at Γ."""
    i, j, d, vectors = neighbor_list("ijdD", atoms, CUTOFF)
    masses, ratio = atoms.get_masses(), d / radii(atoms, i, j)
    reduced = masses[i] * masses[j] / (masses[i] + masses[j])
    found: Values = {}
    for decay in DECAYS:
        stiffness = np.exp(-decay * (ratio - 1))
        pairs = np.sort(np.sqrt(stiffness / reduced))
        alone = np.sqrt(np.bincount(i, stiffness, len(atoms)) / masses)
        gamma = _frequencies(masses, i, j, stiffness, vectors / d[:, None])
        found |= {f"pair, highest, {decay:g}": pairs[-1:].sum(), f"pair, high, {decay:g}": pairs[-6:].sum() / 6}
        found |= {f"alone, {how}, {decay:g}": SPREAD[how](alone) for how in ("max", "mean", "min")}
        found |= {f"Γ, highest, {decay:g}": gamma[-1], f"Γ, mean, {decay:g}": gamma.mean()}
    short = np.argsort(ratio)[: len(atoms)]
    if not len(short):
        return found | dict.fromkeys(SHORT_BONDS, 0.0)
    polarity = np.abs(np.subtract(*(TABLE[atoms.numbers[k[short]], NAMES.index("electronegativity")] for k in (i, j))))
    values = reduced[short].min(), reduced[short].mean(), polarity.mean(), polarity.max(), d[short].mean()
    return found | dict(zip(SHORT_BONDS, values, strict=True))


SHORT_BONDS = (
    "short bonds, least mass",
    "short bonds, mass",
    "short bonds, polarity",
    "polarity",
    "short bonds, length",
)


def _frequencies(masses: np.ndarray, i: np.ndarray, j: np.ndarray, stiffness: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Frequencies at Γ, ascending; the springs resist along directions u and, by the share LATERAL, in all others."""
    n = len(masses)
    spring = stiffness[:, None, None] * ((1 - LATERAL) * u[:, :, None] * u[:, None, :] + LATERAL * np.eye(3))
    constants = np.zeros([n, n, 3, 3])
    np.add.at(constants, (i, j), -spring)
    np.add.at(constants, (i, i), spring)
    matrix = constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.sqrt(np.outer(*[np.repeat(masses, 3)] * 2))
    return np.sqrt(np.linalg.eigvalsh((matrix + matrix.T) / 2).clip(0.0))


def radii(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """[n_edges], Å: the sum of the covalent radii of both ends."""
    return covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]


def coordination(n_atoms: int, i: np.ndarray, ratio: np.ndarray, width: float) -> np.ndarray:
    """[n_atoms]: neighbors, each counted less the further it is beyond the sum of the covalent radii."""
    return np.bincount(i, np.exp(-(((ratio - 1).clip(0) / width) ** 2)), n_atoms)
