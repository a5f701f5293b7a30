"""Masked pretraining on a batch: hydrogens taken out of molecules, and the vectors that point to where they were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mdpot.training.data.store import Batch, Store


@dataclass(frozen=True)
class MaskTarget:
    """What is to be recovered after `mask_molecules`.

    Attributes:
        atoms: [n_marked] int64, the marked atoms, indices into the masked batch.
        displacements: [n_marked, 3], Å, from each marked atom to the removed one of its molecule.
        share: [], share of the usable molecules that lost an atom.
    """

    atoms: Tensor
    displacements: Tensor
    share: Tensor


def mask_molecules(batch: Batch, ratio: float, element: int, generator: torch.Generator) -> tuple[Batch, MaskTarget]:
    """Removes one atom of `element` from each molecule that is chosen (masked pretraining paper, section 2.2).

    Every usable molecule (`batch.molecule` not -1, two atoms or more) that holds the element is chosen with probability
    `ratio`; of its atoms of that element one, each as likely as the others, leaves the graph with all its edges. The
    atoms left behind in the molecule carry the mark 1. All of it is tensor operations on the device of the batch.

    Args:
        batch: structures with neighbor lists, molecules and whole-molecule positions.
        ratio: the masking ratio, between 0 and 1.
        element: atomic number of the atoms to mask.
        generator: source of randomness, on the device of the batch.

    Returns:
        The batch without the removed atoms, its labels of removed atoms gone with them, and the target.
    """
    graph, device = batch.graph, batch.graph.positions.device
    molecule, n_molecules = batch.molecule, batch.n_molecules
    # Atoms of no molecule share one more, the last, which is never chosen; nor is an atom that is a molecule by itself.
    owner = torch.where(molecule >= 0, molecule, n_molecules)
    size = torch.zeros(n_molecules + 1, device=device).index_add(0, owner, torch.ones_like(owner, dtype=torch.float32))
    candidate = (graph.numbers == element) & (molecule >= 0) & (size[owner] > 1)
    # Every candidate draws a number; the largest in its molecule is the one that would go.
    draw = torch.rand(graph.n_atoms, generator=generator, device=device)
    draw = torch.where(candidate, draw, -torch.ones_like(draw))
    top = torch.full([n_molecules + 1], -1.0, device=device).scatter_reduce(0, owner, draw, "amax")
    usable = top >= 0
    chosen = usable & (torch.rand(n_molecules + 1, generator=generator, device=device) < ratio)
    winner = candidate & chosen[owner] & (draw == top[owner])

    # Of two that drew the same number only the one that is written here goes.
    lost = torch.zeros(n_molecules + 1, dtype=torch.int64, device=device)
    lost[owner[winner]] = winner.nonzero().squeeze(1)
    removed = winner & (lost[owner] == torch.arange(graph.n_atoms, device=device))
    marked = chosen[owner] & ~removed
    displacement = batch.whole[lost[owner]] - batch.whole

    keep = ~removed
    masked = _keep_atoms(batch.replace(marks=marked.to(batch.marks.dtype)), keep)
    atoms = marked[keep].nonzero().squeeze(1)
    share = chosen.sum() / usable.sum().clamp(min=1)
    return masked, MaskTarget(atoms, displacement[marked], share)


def count_maskable(store: Store, element: int) -> int:
    """How many molecules of a store `mask_molecules` may choose: those with the element and with another atom."""
    n_molecules = int(store.n_molecules_per_frame.sum())
    inside = store.molecule >= 0
    sizes = torch.bincount(store.molecule[inside], minlength=n_molecules)
    hits = torch.bincount(store.molecule[inside & (store.numbers == element)], minlength=n_molecules)
    return int(((sizes > 1) & (hits > 0)).sum())


def _keep_atoms(batch: Batch, keep: Tensor) -> Batch:
    """The batch with only the atoms where `keep` [n_atoms] is set, and the edges between them."""
    graph = batch.graph
    new_index = torch.cumsum(keep, 0) - 1
    edges = keep[graph.edge_index].all(0)
    smaller = graph.replace(
        numbers=graph.numbers[keep],
        positions=graph.positions[keep],
        system=graph.system[keep],
        edge_index=new_index[graph.edge_index[:, edges]],
        shifts=graph.shifts[edges],
    )
    return batch.replace(
        graph=smaller,
        forces=batch.forces[keep],
        marks=batch.marks[keep],
        molecule=batch.molecule[keep],
        whole=batch.whole[keep],
    )
