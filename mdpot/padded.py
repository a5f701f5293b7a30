"""Energy and forces with shapes that do not depend on the positions: what can be compiled, or captured in a graph.

Neighbors stand in a table with a row for each atom. An empty slot holds the atom itself, moved to twice the cutoff,
where every function of the distance is zero and so is its slope: it contributes nothing, to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mdpot.heads import AnyPotential, Potential, PotentialEnsemble
from mdpot.heads.potential import slope
from mdpot.models.slots import rank_in_row

EMPTY = 2.0
"""Cutoffs from an atom to what stands in its empty slots."""

Results = tuple[Tensor, Tensor, Tensor, Tensor]


class PaddedPotential(nn.Module):
    """A potential, or an ensemble of some, of which the mean is taken, as a function of a table of neighbors.

    The numbers are those of `Potential.forward` for one structure. Nothing in it waits for a GPU, and nothing decides
    by what a tensor holds.

    Args:
        potential: in evaluation mode, on any device.
    """

    lookup: Tensor
    shift: Tensor

    def __init__(self, potential: AnyPotential) -> None:
        super().__init__()
        members: Any = potential.members if isinstance(potential, PotentialEnsemble) else [potential]
        self.members = nn.ModuleList(members)
        self.cutoff, self.conservative = potential.cutoff, potential.conservative
        self.register_buffer("lookup", potential.lookup, persistent=False)
        self.register_buffer("shift", potential.shift, persistent=False)
        self.eval()

    def forward(self, numbers: Tensor, positions: Tensor, neighbors: Tensor, offsets: Tensor) -> Results:
        """Energies, forces and virial; atom i's neighbor in slot s is at positions[neighbors[i, s]] + offsets[i, s].

        Args:
            numbers: [n_atoms] int64, atomic numbers, all among those trained.
            positions: [n_atoms, 3] float64, Å.
            neighbors: [n_atoms, n_slots] int64; pairs beyond the cutoff do no harm.
            offsets: [n_atoms, n_slots, 3] float64, Å, lattice translations. For empty slots see `pad_edges`.

        Returns:
            energies [n_atoms] float64, eV; those without the reference [n_atoms] float64, eV; forces [n_atoms, 3]
            float64, eV/Å; and the virial dE/dε [3, 3] float64, eV, zero for a force-centric potential.
        """
        species = self.lookup.index_select(0, numbers)
        flat = neighbors.flatten()
        vectors = positions.index_select(0, flat).view_as(offsets) - positions.unsqueeze(1) + offsets
        vectors = vectors.to(next(self.parameters()).dtype).detach().requires_grad_(self.conservative)
        found = [_network(member, species, neighbors, vectors) for member in self.members]  # type: ignore[arg-type]
        interaction = torch.stack([energies for energies, _ in found]).mean(0)
        if self.conservative:
            gradient = slope(interaction, vectors, False).double()
            forces = gradient.sum(1).index_add(0, flat, -gradient.flatten(0, 1))
            virial = gradient.flatten(0, 1).t() @ vectors.detach().flatten(0, 1).double()
        else:
            forces = torch.stack([forces for _, forces in found]).mean(0).double()
            virial = positions.new_zeros([3, 3])
        interaction = interaction.detach().double()
        return interaction + self.shift.index_select(0, species), interaction, forces, 0.5 * (virial + virial.t())


def _network(potential: Potential, species: Tensor, neighbors: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Energies without the reference [n_atoms], eV, and the backbone's vectors as forces [n_atoms, 3], eV/Å."""
    h = potential.embedding(species, torch.zeros_like(species))
    features, vector = potential.backbone.padded(h, species, neighbors, vectors, not potential.conservative)
    energies = potential.readout(features).squeeze(-1) * potential.scale
    if potential.has_wall or potential.has_pair:
        first, second = species.unsqueeze(1) + torch.zeros_like(neighbors), species.index_select(0, neighbors.flatten())
        pairs = potential.pair_energies(vectors.flatten(0, 1), first.flatten(), second)
        energies = energies + 0.5 * pairs.view_as(neighbors).sum(1)  # every pair comes twice
    return energies, vector * potential.scale


def pad_edges(
    edge_index: Tensor, offsets: Tensor, n_atoms: int, cutoff: float, least: int = 1
) -> tuple[Tensor, Tensor]:
    """Edges as the table that `PaddedPotential` takes, as long as the most neighbors of one atom.

    Args:
        edge_index: [2, n_edges] int64, sorted by central atom.
        offsets: [n_edges, 3] float64, Å, lattice translations of the neighbors.
        n_atoms: number of rows, at least one.
        cutoff: Å, of the potential.
        least: slots in a row at least.

    Returns:
        neighbors [n_atoms, n_slots] int64 and offsets [n_atoms, n_slots, 3] float64, Å.
    """
    rank, most = rank_in_row(edge_index[0], n_atoms)
    n_slots = max(most, least)
    place = edge_index[0] * n_slots + rank
    neighbors = torch.arange(n_atoms, device=offsets.device).repeat_interleave(n_slots)
    neighbors[place] = edge_index[1]
    moved = offsets.new_tensor([EMPTY * cutoff, 0.0, 0.0]).repeat(n_atoms * n_slots, 1)
    moved[place] = offsets
    return neighbors.view(n_atoms, n_slots), moved.view(n_atoms, n_slots, 3)
