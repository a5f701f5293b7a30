"""Periodic neighbor lists: every image inside the cutoff, in any cell, found by vesin; and a Verlet list around it."""

from __future__ import annotations

import numpy as np
from vesin import NeighborList

from mdpot.errors import MdpotError


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j, image) closer than the cutoff, both directions, an atom's own images included.

    Args:
        positions: [n_atoms, 3], Å, wrapped or not.
        cell: [3, 3], Å, lattice vectors as rows; rows of aperiodic directions are ignored.
        pbc: [3] bool, periodic directions.
        cutoff: Å.

    Returns:
        edge_index [2, n_edges] int64, sorted by the first row (the central atom i), and shifts [n_edges, 3] int32,
        so that the vector from i to j is `positions[j] - positions[i] + shifts @ cell`.

    Raises:
        MdpotError: positions that are not finite, a periodic direction without a lattice vector, or periodic vectors
            that are not finite or span no volume.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        raise MdpotError("positions must be finite; they hold NaN or infinity.")
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    box = np.zeros((3, 3)) if not pbc.any() else full_cell(cell, pbc)
    searcher = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    i, j, shifts = searcher.compute(positions, box, list(pbc) if pbc.any() else False, "ijS")
    edge_index = np.stack([i, j]).astype(np.int64)
    return edge_index, shifts.astype(np.int32)


def full_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell [3, 3] with the rows of aperiodic directions replaced by unit vectors normal to the periodic ones.

    Raises:
        MdpotError: a periodic direction has no lattice vector, or the periodic vectors are not finite or span no
            volume.
    """
    box = np.array(cell, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(box[pbc]).all():  # the search would not survive it
        raise MdpotError(f"the lattice vectors of periodic directions must be finite; got {box.tolist()}.")
    if (np.linalg.norm(box[pbc], axis=1) < 1e-6).any():
        raise MdpotError(
            f"pbc is {pbc.tolist()} but the cell has no lattice vector in a periodic direction: {box.tolist()}. "
            "Set the cell, or set pbc to False there."
        )
    if not pbc.all():
        # The right singular vectors beyond the rank are an orthonormal complement of the periodic rows.
        box[~pbc] = np.linalg.svd(box[pbc])[2][pbc.sum() :]
    if abs(np.linalg.det(box)) < 1e-6:
        raise MdpotError(f"the lattice vectors of the cell span no volume: {np.asarray(cell).tolist()}.")
    return box


class VerletList:
    """A neighbor list with a skin: it is searched again only when an atom may have crossed the skin.

    Pairs out to `cutoff + skin` are kept; every call selects those inside the cutoff. The list is rebuilt when an
    atom has moved by more than half the skin since the last build, or when cell, periodicity, species or the number
    of atoms changed.

    Args:
        cutoff: Å.
        skin: Å; 0 rebuilds in every call.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if cutoff <= 0:
            raise MdpotError(f"cutoff must be positive; got {cutoff} Å.")
        if skin < 0:
            raise MdpotError(f"skin must not be negative; got {skin} Å.")
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.n_builds = 0
        self._key: tuple[np.ndarray, ...] | None = None

    def update(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pairs inside the cutoff; arguments and results as in `neighbor_list`, and numbers [n_atoms]."""
        positions = np.asarray(positions, dtype=np.float64)
        if self._stale(numbers, positions, cell, pbc):
            self._edges, self._shifts = neighbor_list(positions, cell, pbc, self.cutoff + self.skin)
            self._key = tuple(np.array(x) for x in (numbers, cell, pbc))
            self._built_at = positions.copy()
            self._offsets = self._shifts @ np.asarray(cell, dtype=np.float64)
            self.n_builds += 1
        i, j = self._edges
        vectors = positions.take(j, 0)
        vectors -= positions.take(i, 0)
        vectors += self._offsets
        vectors *= vectors
        inside = np.flatnonzero(vectors[:, 0] + vectors[:, 1] + vectors[:, 2] < self.cutoff**2)
        # `take` keeps the two rows contiguous, which a boolean index does not; networks gather faster from such rows.
        return self._edges.take(inside, 1), self._shifts.take(inside, 0)

    def _stale(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        if self._key is None or self.skin == 0:
            return True
        if not all(np.array_equal(old, new) for old, new in zip(self._key, (numbers, cell, pbc), strict=True)):
            return True
        moved = positions - self._built_at
        # Not `> limit`: a NaN must count as moved, so that the search can refuse it.
        return not (np.einsum("ij,ij->i", moved, moved).max(initial=0.0) <= (0.5 * self.skin) ** 2)
