"""Radial distribution functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list, pair_vectors


@dataclass(frozen=True)
class Radial:
    """Radial distribution functions of all pairs of elements.

    Attributes:
        r: [n_bins], Å, middles of the bins.
        g: [n_bins] by pair, e.g. "H-O"; lighter element first.
        n_frames: how many frames were averaged.
    """

    r: np.ndarray
    g: dict[str, np.ndarray]
    n_frames: int

    def peak(self, pair: str, low: float = 0.0, high: float = np.inf) -> float | None:
        """Where g of a pair is largest between `low` and `high`, by a parabola, Å; None if it is 0 there."""
        inside = (self.r >= low) & (self.r <= high)
        if pair not in self.g or not self.g[pair][inside].any():
            return None
        g = self.g[pair]
        k = int(np.argmax(np.where(inside, g, -np.inf)))
        if k == 0 or k == len(g) - 1:
            return float(self.r[k])
        below, top, above = g[k - 1 : k + 2]
        curvature = below - 2 * top + above
        offset = 0.5 * (below - above) / curvature if curvature < 0 else 0.0
        return float(self.r[k] + np.clip(offset, -0.5, 0.5) * (self.r[1] - self.r[0]))


def radial_distributions(frames: Iterable[Atoms], r_max: float | None = None, width: float = 0.05) -> Radial:
    """The radial distribution functions of a periodic liquid.

    g_ab(r) = ⟨V Σ_(i in a, j in b) δ(r − r_ij)⟩ / (4π r² N_a N_b), over all periodic images, so that any cell
    is right at any distance; an atom is not counted with itself, but with its images.

    Args:
        frames: periodic in all directions, the same atoms in each; the cell may change.
        r_max: Å; None takes half the smallest height of the first frame's cell, but 6 Å at least and 10 Å at
            most.
        width: Å, of a bin.

    Returns:
        All pairs of elements that occur.

    Raises:
        MdpotError: no frames, or one that is not periodic.
    """
    counts: dict[tuple[int, int], np.ndarray] = {}
    numbers = np.zeros(0, dtype=np.int64)
    n_bins = n_frames = 0
    for atoms in frames:
        if not atoms.pbc.all():
            raise MdpotError(f"radial distributions need full periodicity; got pbc = {atoms.pbc.tolist()}.")
        if n_frames == 0:
            numbers = atoms.numbers
            if r_max is None:
                r_max = float(np.clip(0.5 * heights(atoms.cell.array).min(), 6.0, 10.0))
            n_bins = max(1, round(r_max / width))
            pairs = combinations_with_replacement(np.unique(numbers).tolist(), 2)
            counts = {pair: np.zeros(n_bins) for pair in pairs}
        n_frames += 1
        cell = atoms.cell.array
        edges, shifts = neighbor_list(atoms.positions, cell, atoms.pbc, n_bins * width)
        distances = np.linalg.norm(pair_vectors(atoms.positions, cell, edges, shifts), axis=1)
        i, j = edges
        bins = np.minimum((distances / width).astype(np.int64), n_bins - 1)
        volume = atoms.get_volume()
        for a, b in counts:
            of_pair = (numbers[i] == a) & (numbers[j] == b)
            counts[a, b] += volume * np.bincount(bins[of_pair], minlength=n_bins)
    if n_frames == 0:
        raise MdpotError("radial distributions need at least one frame; got none.")
    edges = width * np.arange(n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    g = {}
    for (a, b), count in counts.items():
        n_pairs = int((numbers == a).sum()) * int((numbers == b).sum())
        g[f"{chemical_symbols[a]}-{chemical_symbols[b]}"] = count / (n_frames * n_pairs * shells)
    return Radial(r=edges[:-1] + 0.5 * width, g=g, n_frames=n_frames)


def heights(cell: np.ndarray) -> np.ndarray:
    """Distances [3] in Å between the opposite faces of a cell [3, 3]."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
