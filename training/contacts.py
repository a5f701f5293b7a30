"""How close atoms come to each other in the training frames, and where the repulsive wall of a potential starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.vdw_alvarez import vdw_radii

from mdpot.heads.potential import edge_vectors
from mdpot.training.data.store import Store, batches

CHUNK_ATOMS = 5000
#: Contacts longer than the shortest one by no more than this factor witness to it.
NEAR = 1.1
#: In so many groups of frames (trajectories) a contact must be found before the shortest one is taken for the least
#: that atoms come to.
ENOUGH_GROUPS = 8
WALL = 0.9
CONTACT = 0.65
_N = len(covalent_radii)

Pair = tuple[int, int]


@dataclass(frozen=True)
class Contact:
    """The shortest distance between two elements.

    Attributes:
        distance: Å, the smallest that occurs inside the cutoff.
        n_groups: in how many groups of frames there is one up to `NEAR` times as long.
    """

    distance: float
    n_groups: int


def shortest_contacts(store: Store) -> dict[Pair, Contact]:
    """The shortest contact of each pair of elements (Z1 <= Z2) that meet inside the cutoff."""
    shortest = torch.full([_N * _N], np.inf, dtype=torch.float64)
    candidates = []
    for frames in batches(store, n_atoms=CHUNK_ATOMS):
        graph = store.batch(frames, torch.float64).graph
        distance = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts).norm(dim=1)
        low, high = graph.numbers[graph.edge_index].sort(0)[0]
        key, distance = (low * _N + high).cpu(), distance.cpu()
        shortest.scatter_reduce_(0, key, distance, "amin")
        near = distance <= NEAR * shortest[key]
        group = store.groups()[frames][graph.system[graph.edge_index[0]].cpu()[near]]
        candidates.append(torch.stack([key[near].double(), group.double(), distance[near]]))
    key, group, distance = torch.cat(candidates, 1)
    near = distance <= NEAR * shortest[key.long()]  # the shortest one of all may have come later
    seen = torch.unique(torch.stack([key[near], group[near]]).long(), dim=1)[0]
    pairs, counts = torch.unique(seen, return_counts=True)
    return {
        (int(pair) // _N, int(pair) % _N): Contact(float(shortest[pair]), int(n))
        for pair, n in zip(pairs.tolist(), counts.tolist(), strict=True)
    }


def closest_approach(elements: Sequence[int], contacts: Mapping[Pair, Contact]) -> dict[Pair, float]:
    """How close the atoms of each pair of elements (Z1 <= Z2) are taken to come in the region that the frames cover, Å.

    That is the shortest contact, where enough groups witness to it. A pair that is seen in few, or never, may
    come as close as any pair of the set does by the sum of its covalent radii; what the frames hold of it counts by
    their share in `ENOUGH_GROUPS`, on a logarithmic scale.

    Args:
        elements: atomic numbers, ascending.
        contacts: of the training frames.
    """

    def radii(pair: Pair) -> float:
        return float(covalent_radii[pair[0]] + covalent_radii[pair[1]])

    closest = min((contact.distance / radii(pair) for pair, contact in contacts.items()), default=1.0)
    found = {}
    for i, a in enumerate(elements):
        for pair in ((a, b) for b in elements[i:]):
            anyhow = min(closest, 1.0) * radii(pair)
            if pair in contacts:
                share = min(contacts[pair].n_groups / ENOUGH_GROUPS, 1.0)
                anyhow = anyhow ** (1.0 - share) * contacts[pair].distance ** share
            found[pair] = anyhow
    return found


def wall_starts(elements: Sequence[int], closest: Mapping[Pair, float]) -> list[list[float]]:
    """Where the repulsive wall of each pair of elements starts, Å.

    At `WALL` of the closest approach, for a network is still good a little beyond its data. Atoms that the frames
    happened to hold apart may come into contact: the wall starts nowhere beyond `CONTACT` of the sum of the van der
    Waals radii.
    """

    def start(a: int, b: int) -> float:
        seen = WALL * closest[min(a, b), max(a, b)]
        contact = CONTACT * (vdw_radii[a] + vdw_radii[b])
        return round(float(seen if np.isnan(contact) else min(seen, contact)), 4)

    return [[start(a, b) for b in elements] for a in elements]
