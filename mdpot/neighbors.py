"""Periodic neighbor lists: every image inside the cutoff, in any cell; and a Verlet list around them.

Found by the search in the kernels' library where it is loaded, else by vesin, which is the reference.
"""

from __future__ import annotations

import numpy as np

from mdpot.errors import MdpotError
from mdpot.vesin_neighbors import vesin_neighbor_list


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
        edge_index [2, n_edges] int64 and shifts [n_edges, 3] int32, so that the vector from i to j is
        `positions[j] - positions[i] + shifts @ cell`; sorted by i, then j, then shift, so that the order depends on
        nothing but the structure.

    Raises:
        MdpotError: positions that are not finite or too far out, a periodic direction without a lattice vector,
            periodic vectors that are not finite, too long or almost flat, or a cell so small that there are too many
            pairs.
    """
    from mdpot.kernels.search import search  # here, for the kernels import this module

    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    found = search(positions, cell, pbc, cutoff)
    return vesin_neighbor_list(positions, cell, pbc, cutoff) if found is None else found


def pair_vectors(positions: np.ndarray, cell: np.ndarray, edge_index: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The vectors [n_edges, 3], Å, from i to j of the pairs that `neighbor_list` found; arguments as there."""
    i, j = edge_index
    return positions[j] - positions[i] + shifts @ cell


def translations(shifts: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """`shifts @ cell`, a row [3] the same to the last bit in whatever array it stands; BLAS does not promise that."""
    x, y, z = shifts.T[:, :, None]
    return x * cell[0] + y * cell[1] + z * cell[2]


def check_skin(skin: float) -> float:
    """The skin of a neighbor list, Å, as a number.

    Raises:
        MdpotError: it is none, negative or not finite.
    """
    try:
        value = float(skin)
    except (TypeError, ValueError):
        raise MdpotError(f"skin must be a number, Å; got {skin!r}.") from None
    if value < 0:
        raise MdpotError(f"skin must not be negative; got {value} Å.")
    if not np.isfinite(value):
        raise MdpotError(f"skin must be finite; got {value} Å.")
    return value


class VerletList:
    """A neighbor list with a skin: it is searched again only when an atom may have crossed the skin.

    Pairs out to `cutoff + skin` are kept; every call selects those inside the cutoff. The list is rebuilt when an
    atom has moved by more than half the skin since the last build, or when periodicity, species or the number of atoms
    changed. A cell that is periodic in all directions may be strained meanwhile, as by a barostat: what atoms move
    beyond the strain counts, and the strain takes from the skin by how much it brings pairs closer.

    Args:
        cutoff: Å.
        skin: Å; 0 rebuilds in every call.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if cutoff <= 0:
            raise MdpotError(f"cutoff must be positive; got {cutoff} Å.")
        self.cutoff, self.skin = float(cutoff), check_skin(skin)
        self.n_builds = 0
        self._key: tuple[bytes, bytes] | None = None  # species and periodicity at the last build
        self._inverse: np.ndarray | None = None  # of the cell at the last build
        self._offsets: np.ndarray | None = None  # of the pairs in `_offsets_cell`
        self._offsets_cell = np.zeros((3, 3))

    def update(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pairs inside the cutoff; arguments and results as in `neighbor_list`, and numbers [n_atoms]."""
        positions = np.asarray(positions, dtype=np.float64)
        i, j, shifts = self.candidates(numbers, positions, cell, pbc)
        if self._offsets is None or not np.array_equal(self._offsets_cell, cell):
            periodic = np.where(np.reshape(pbc, (-1, 1)), np.asarray(cell, dtype=np.float64), 0.0)
            self._offsets, self._offsets_cell = translations(shifts, periodic), np.array(cell)
        vectors = positions.take(j, 0)
        vectors -= positions.take(i, 0)
        vectors += self._offsets
        vectors *= vectors
        inside = np.flatnonzero(vectors[:, 0] + vectors[:, 1] + vectors[:, 2] < self.cutoff * self.cutoff)
        # `take` keeps the two rows contiguous, which a boolean index does not; networks gather faster from such rows.
        return self._edges.take(inside, 1), self._shifts.take(inside, 0)

    def candidates(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs that are kept, those inside the cutoff among them, for who chooses by himself.

        Returns:
            i and j [n] int64 and shifts [n, 3] int32, in the order of `neighbor_list`.
        """
        if self._stale(numbers, positions, cell, pbc):
            self._key = None  # whatever interrupts this: the list is made again
            self._edges, self._shifts = neighbor_list(positions, cell, pbc, self.cutoff + self.skin)
            self._key = (np.asarray(numbers).tobytes(), np.asarray(pbc).tobytes())
            self._built_at, self._built_in = np.array(positions), np.array(cell)
            self._inverse = self._offsets = None  # made where they are needed
            self.n_builds += 1
        return self._edges[0], self._edges[1], self._shifts

    def _stale(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> bool:
        if self.skin == 0 or self._key != (np.asarray(numbers).tobytes(), np.asarray(pbc).tobytes()):
            return True
        start, left = self._built_at, self.skin
        if not np.array_equal(self._built_in, cell):
            if not np.all(pbc):
                return True
            if self._inverse is None:
                self._inverse = np.linalg.inv(self._built_in)
            strain = self._inverse @ cell
            if not np.isfinite(strain).all():
                return True
            # What was farther apart than cutoff + skin is still farther than the cutoff and what is left of the skin.
            start = start @ strain
            left = float(np.linalg.svd(strain, compute_uv=False)[-1]) * (self.cutoff + self.skin) - self.cutoff
        moved = positions - start
        # Not `> limit`: a NaN must count as moved, so that the search can refuse it.
        return not (left > 0 and np.einsum("ij,ij->i", moved, moved).max(initial=0.0) <= (0.5 * left) ** 2)
