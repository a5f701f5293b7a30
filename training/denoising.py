"""Denoising pretraining on a batch: noise on the positions, and the neighbor lists that belong to them."""

from __future__ import annotations

import torch
from torch import Tensor

from mdpot.graph import Graph
from mdpot.training.data.store import Batch


def add_noise(batch: Batch, sigma: float, cutoff: float, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Moves every atom by Gaussian noise (masked pretraining paper, section 2.3).

    The edges are those of the moved atoms, found anew on the CPU: the noise has no largest value, so no list made
    before would be sure to hold them, and a far longer one would cost more than the search.

    Args:
        batch: structures.
        sigma: standard deviation of the noise on each coordinate, Å.
        cutoff: of the neighbor lists, Å.
        generator: source of randomness, on the device of the batch.

    Returns:
        The batch with its atoms moved by sigma · noise and with new neighbor lists; its labels, which belong to the old
        positions, are left as they were. And the noise [n_atoms, 3], in units of sigma.
    """
    graph = batch.graph
    noise = torch.randn(
        graph.positions.shape, generator=generator, dtype=graph.positions.dtype, device=graph.positions.device
    )
    moved = graph.replace(positions=graph.positions + sigma * noise)
    return batch.replace(graph=find_edges(moved, cutoff), whole=batch.whole + sigma * noise), noise


def find_edges(graph: Graph, cutoff: float) -> Graph:
    """The same structures with the neighbor lists, out to `cutoff` (Å), of where their atoms are now."""
    found = Graph.from_atoms(graph.to_atoms(), cutoff, graph.positions.dtype)
    device = graph.positions.device
    return graph.replace(edge_index=found.edge_index.to(device), shifts=found.shifts.to(device))
