"""Numbers that describe a layer, or a crystal as if it were one: its thickness, its surface, and how strongly van der
Waals forces would hold a copy of it a contact distance away.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.vdwcorrection import vdWDB_alphaC6
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from descriptors import NAMES, TABLE, Values, coordination, radii

AT_SURFACE = 0.7
"""Å: an atom no deeper below the outermost one is at the surface."""
CUTOFF = 5.0
IMAGES = 4
"""In both directions of the plane, to which van der Waals forces reach."""
CONTACT = 3.3
"""Å, between the outermost atoms of two layers; also 0.9 of their van der Waals radii."""
SOFT = 50.0
"""Å^6, so that r^-6 is finite."""
ANION = 2.15
"""From this electronegativity on an element is taken as an anion."""
CHEMISTRY = [
    *("electronegativity", "row", "group", "covalent radius", "ionization energy", "electron affinity", "vdW radius"),
    *("s", "p", "d", "Mendeleev number"),
]


def _dispersion() -> np.ndarray:
    """[100, 2]: polarizabilities and C6 of free atoms, in atomic units; what is unknown is the median."""
    table = np.array([vdWDB_alphaC6.get(symbol, (np.nan, np.nan)) for symbol in chemical_symbols[:100]], float)
    return np.where(np.isnan(table), np.nanmedian(table[1:], axis=0), table)


DISPERSION = _dispersion()


@dataclass(frozen=True)
class Layer:
    """A layer in its frame.

    Attributes:
        atoms: all of it.
        plane: [2, 3], Å, the lattice vectors in the plane.
        height: [n_atoms], Å, above the lowest atom.
        gap: Å, the widest without an atom; the layer is between two of them.
        area: Å².
    """

    atoms: Atoms
    plane: np.ndarray
    height: np.ndarray
    gap: float
    area: float

    @property
    def thickness(self) -> float:
        """Å."""
        return float(self.height.max())

    @property
    def surfaces(self) -> tuple[np.ndarray, np.ndarray]:
        """[n_atoms] bool: which atoms are at the top, and which at the bottom."""
        return self.height > self.thickness - AT_SURFACE, self.height < AT_SURFACE


def find_layer(atoms: Atoms) -> Layer:
    """The layer whose plane is that of two lattice vectors with the widest gap between its copies."""
    found = []
    for axis in range(3):
        plane = atoms.cell.array[[(axis + 1) % 3, (axis + 2) % 3]]
        area = float(np.linalg.norm(np.cross(*plane)))
        spacing = atoms.get_volume() / area
        places = atoms.get_scaled_positions()[:, axis] % 1
        ordered = np.sort(places)
        gaps = np.diff(np.append(ordered, ordered[0] + 1))
        widest = int(gaps.argmax())
        lowest = ordered[(widest + 1) % len(atoms)]
        height = ((places - lowest + 1e-9) % 1) * spacing
        found.append(Layer(atoms, plane, height, float(gaps[widest] * spacing), area))
    return max(found, key=lambda layer: layer.gap)


def layers(atoms: Atoms) -> Values:
    """What describes the structure as a layer."""
    layer = find_layer(atoms)
    parts = _shape(layer), _chemistry(layer), _adhesion(layer), _saturation(layer)
    return {f"layer, {name}": value for part in parts for name, value in part.items()}


def _shape(layer: Layer) -> Values:
    n, steps = len(layer.atoms), np.diff(np.sort(layer.height))
    sheets = 1 + int((steps > 1.2).sum())
    return {
        "gap": layer.gap,
        "thickness": layer.thickness,
        "area": layer.area,
        "area per atom": layer.area / n,
        "thickness times density": n / layer.area * layer.thickness,
        "sheets": sheets,
        "thin sheets": 1 + int((steps > 0.4).sum()),
        "atoms per sheet": n / sheets,
    }


def _chemistry(layer: Layer) -> Values:
    """Elements at the surface and below it, polarizabilities, and C6."""
    numbers, (top, bottom) = layer.atoms.numbers, layer.surfaces
    surface = top | bottom
    polarizability, c6 = DISPERSION[numbers].T
    found = {
        "polarizability per area": polarizability.sum() / layer.area,
        "polarizability": polarizability.mean(),
        "C6 per area": c6.sum() / layer.area,
        "C6": c6.mean(),
        "pairs' C6": np.sqrt(c6).sum() ** 2 / layer.area**2 / len(numbers),
        "top atoms per area": top.sum() / layer.area,
        "bottom atoms per area": bottom.sum() / layer.area,
        "share at the surface": surface.mean(),
        "surface's polarizability per area": polarizability[surface].sum() / layer.area,
        "surface's C6 per area": c6[surface].sum() / layer.area,
        "surface's C6 per atom": c6[surface].sum() / len(numbers),
    }
    elements = TABLE[numbers][:, [NAMES.index(name) for name in CHEMISTRY]]
    below = elements[~surface] if (~surface).any() else np.zeros_like(elements[:1])
    for where, values in (
        ("surface's mean", elements[surface].mean(0)),
        ("surface's std", elements[surface].std(0)),
        ("mean below", below.mean(0)),
    ):
        found |= {f"{where} {name}": value for name, value in zip(CHEMISTRY, values, strict=True)}
    return found


def _adhesion(layer: Layer) -> Values:
    """The sum of C6 / r^6 over the pairs with a copy of the layer on top of it, per atom and per area."""
    atoms, (top, bottom) = layer.atoms, layer.surfaces
    normal = np.cross(*layer.plane)
    normal /= np.linalg.norm(normal)
    positions = atoms.positions - np.outer(atoms.positions @ normal, normal) + np.outer(layer.height, normal)
    range_ = np.arange(-IMAGES, IMAGES + 1)
    shifts = np.stack(np.meshgrid(range_, range_), -1).reshape(-1, 2) @ layer.plane
    vdw, c6 = TABLE[atoms.numbers, NAMES.index("vdW radius")], DISPERSION[atoms.numbers, 1]
    found = {"contact": 0.9 * (vdw[top].max() + vdw[bottom].max())}
    for name, contact in (("at contact", found["contact"]), (f"at {CONTACT} Å", CONTACT)):
        above = positions[:, None] + shifts + (layer.thickness + contact) * normal
        square = ((above[None] - positions[:, None, None]) ** 2).sum(-1)
        energy = (np.sqrt(np.outer(c6, c6))[:, :, None] / (square**3 + SOFT)).sum()
        found |= {f"adhesion per atom {name}": energy / len(atoms), f"adhesion per area {name}": energy / layer.area}
    return found


def _saturation(layer: Layer) -> Values:
    """Coordination and polarity at the surface, and how many electrons there are to fill shells with."""
    atoms, numbers, surface = layer.atoms, layer.atoms.numbers, np.logical_or(*layer.surfaces)
    i, j, d = neighbor_list("ijd", atoms, CUTOFF)
    ratio, n = d / radii(atoms, i, j), len(atoms)
    neighbors = coordination(n, i, ratio, 0.12)
    pull = TABLE[numbers, NAMES.index("electronegativity")]
    polarity = np.bincount(i, np.exp(-(((ratio - 1).clip(0) / 0.12) ** 2)) * (pull[j] - pull[i]), n)
    valence = TABLE[numbers][:, [NAMES.index("s"), NAMES.index("p")]].sum(1)
    anion = pull > ANION
    return {
        "surface's coordination": neighbors[surface].mean(),
        "surface's least coordination": neighbors[surface].min(),
        "surface's polarity": polarity[surface].mean(),
        "surface's highest polarity": polarity[surface].max(),
        "polarity": polarity.std(),
        "dipole": (layer.height * polarity).sum() / layer.area,
        "odd electrons": valence.sum() % 2,
        "valence electrons": valence.mean(),
        "share of anions": anion.mean(),
        "missing over given electrons": (8 - valence[anion]).sum() / max(1.0, valence[~anion].sum()),
        "surface's share of anions": anion[surface].mean(),
    }
