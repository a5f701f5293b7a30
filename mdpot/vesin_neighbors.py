"""Neighbor lists by vesin: the reference of the search in the kernels, and who says what is wrong with a structure."""

from __future__ import annotations

import numpy as np
import torch
from vesin import NeighborList

from mdpot.errors import MdpotError
from mdpot.torch_pairs import FARTHEST, FLATTEST, find_pairs, require_manageable

MANY_CELLS = 4_000  # vesin walks through them in the time that the search in torch takes to start
MOST_CELLS = 100_000  # vesin's own limit; where it merges cells to stay below, it may divide by zero


def vesin_neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """What `mdpot.neighbors.neighbor_list` returns, by vesin, or by the search in torch where vesin would not end;
    arguments and errors as there."""
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    _require_positions(positions)
    if not cutoff > 0:
        raise MdpotError(f"cutoff must be positive; got {cutoff} Å.")
    box = full_cell(cell, pbc)
    if len(positions) == 0:
        return np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3), dtype=np.int32)
    # Home: wrapped in the periodic directions, in the others from 0 on in a box that keeps images out of reach.
    inverse = np.linalg.inv(box)
    fractional = positions @ inverse
    turns = np.where(pbc, np.floor(fractional), 0.0)
    if not np.abs(turns).max() < 2**30:
        raise MdpotError("positions lie more than a billion cells away from the cell. Wrap them (atoms.wrap()).")
    low, high = fractional.min(axis=0), fractional.max(axis=0)
    home = positions - (turns + np.where(pbc, 0.0, low)) @ box
    extents = high - low
    if not pbc.any():
        cutoff = min(float(cutoff), float(np.linalg.norm(extents)) + 1.0)
    heights = np.where(pbc, 1.0 / np.linalg.norm(inverse, axis=0), extents)
    require_manageable(len(positions), heights.tolist(), pbc.tolist(), float(cutoff))
    lengths = heights + np.where(pbc, 0.0, 1.01 * cutoff)
    if np.maximum(lengths // cutoff, 1.0).prod() > min(MANY_CELLS + 20 * len(positions), MOST_CELLS):
        # Many more cells than atoms: vesin would walk through all of them, or die.
        found = find_pairs(torch.from_numpy(home), torch.from_numpy(box), torch.from_numpy(pbc.copy()), float(cutoff))
        edge_index, shifts = found[0].numpy(), found[1].numpy()
    else:
        searcher = NeighborList(cutoff=float(cutoff), full_list=True, sorted=False)
        i, j, shifts = searcher.compute(home, np.where(pbc, 1.0, lengths)[:, None] * box, True, "ijS")
        edge_index, shifts = _in_order(i, j, shifts)
    if turns.any():
        turns = turns.astype(np.int32)
        shifts = shifts + turns.take(edge_index[0], 0) - turns.take(edge_index[1], 0)
    return edge_index, shifts.astype(np.int32, copy=False)


def full_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell [3, 3] with the rows of aperiodic directions replaced by unit vectors normal to the periodic ones.

    Raises:
        MdpotError: a periodic direction has no lattice vector, or the periodic vectors are not finite, too long or
            almost in one plane.
    """
    if not pbc.any():
        return np.eye(3)
    box = np.array(cell, dtype=np.float64).reshape(3, 3)
    periodic = box[pbc]
    if not np.isfinite(periodic).all():  # the search would not survive it
        raise MdpotError(f"the lattice vectors of periodic directions must be finite; got {box.tolist()}.")
    if np.abs(periodic).max() > FARTHEST:
        raise MdpotError(f"the lattice vectors must be shorter than {FARTHEST:g} Å; got {box.tolist()}.")
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths < 1e-6).any():
        raise MdpotError(
            f"pbc is {pbc.tolist()} but the cell has no lattice vector in a periodic direction: {box.tolist()}. "
            "Set the cell, or set pbc to False there."
        )
    if not pbc.all():
        # The right singular vectors beyond the rank are an orthonormal complement of the periodic rows.
        box[~pbc] = np.linalg.svd(periodic)[2][pbc.sum() :]
    share = abs(np.linalg.det(box)) / lengths.prod()
    if not share > FLATTEST:
        raise MdpotError(
            f"the lattice vectors of the cell span no volume, or almost none: {share:.1e} of that of a rectangular "
            f"cell of the same lengths; got {np.asarray(cell).tolist()}. Correct the cell, or set pbc to False."
        )
    return box


def _require_positions(positions: np.ndarray) -> None:
    farthest = np.abs(positions).max(initial=0.0)
    if not np.isfinite(farthest):
        raise MdpotError("positions must be finite; they hold NaN or infinity.")
    if farthest > FARTHEST:
        raise MdpotError(
            f"positions must be within {FARTHEST:g} Å of the origin, beyond which float64 does not resolve bonds; "
            f"one is {farthest:.1e} Å away. Wrap them into the cell (atoms.wrap()), or check their unit."
        )


def _in_order(i: np.ndarray, j: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges in the order of i, j and shift: edge_index [2, n_edges] int64 and shifts [n_edges, 3] int32."""
    if len(i) == 0:
        return np.zeros((2, 0), dtype=np.int64), shifts
    columns = [i.view(np.int64), j.view(np.int64), *shifts.T]
    low = [int(column.min()) for column in columns]
    widths = [(int(column.max()) - first).bit_length() for column, first in zip(columns, low, strict=True)]
    if sum(widths) > 63:
        order = np.lexsort(columns[::-1])
        return np.stack([columns[0][order], columns[1][order]]), shifts[order]
    # All of an edge in the bits of one number: numpy sorts numbers several times faster than it finds their order.
    key = columns[0] - low[0]
    for column, first, width in zip(columns[1:], low[1:], widths[1:], strict=True):
        key <<= width
        key |= column - first
    key.sort()
    edge_index, sorted_shifts = np.empty((2, len(i)), dtype=np.int64), np.empty((len(i), 3), dtype=np.int32)
    for column, first, width in zip([*sorted_shifts.T[::-1], *edge_index[::-1]], low[::-1], widths[::-1], strict=True):
        np.bitwise_and(key, (1 << width) - 1, out=column, casting="unsafe")
        column += first
        key >>= width
    return edge_index, sorted_shifts
