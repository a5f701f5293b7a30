"""Neighbors as a rectangle: a row for each atom, so that sums over neighbors are matrix products."""

from __future__ import annotations

import torch
from torch import Tensor


def pad_neighbors(edge_index: Tensor, vectors: Tensor, cutoff: float, n_atoms: int) -> tuple[Tensor, Tensor]:
    """The edges inside the cutoff as a table with a row for each atom, as long as the most neighbors of one.

    Args:
        edge_index: [2, n_edges] int64.
        vectors: [n_edges, 3], Å.
        cutoff: Å.
        n_atoms: number of atoms.

    Returns:
        slots [n_atoms, n_slots] int64, the edge in each slot, n_edges where it is empty; and neighbors
        [n_atoms · n_slots] int64, the atom at its other end, 0 where it is empty.
    """
    edges = (vectors.detach().square().sum(1) < cutoff * cutoff).nonzero().squeeze(1)
    center = edge_index[0].index_select(0, edges)
    if bool((center[1:] < center[:-1]).any()):
        center, order = center.sort(stable=True)
        edges = edges.index_select(0, order)
    rank, most = rank_in_row(center, n_atoms)
    n_slots = max(most, 1)
    slots = torch.full([n_atoms * n_slots], vectors.shape[0], dtype=torch.int64, device=center.device)
    slots[center * n_slots + rank] = edges
    neighbors = torch.cat([edge_index[1], edge_index.new_zeros([1])]).index_select(0, slots)
    return slots.view(n_atoms, n_slots), neighbors


def rank_in_row(center: Tensor, n_atoms: int) -> tuple[Tensor, int]:
    """The place of each edge among those of its atom [n_edges] int64, and the most edges that one atom has.

    Args:
        center: [n_edges] int64, the atom that an edge belongs to, ascending.
        n_atoms: number of atoms, at least one.
    """
    counts = torch.bincount(center, minlength=n_atoms)
    first_of_atom = (counts.cumsum(0) - counts).index_select(0, center)
    return torch.arange(center.shape[0], device=center.device) - first_of_atom, int(counts.max())
