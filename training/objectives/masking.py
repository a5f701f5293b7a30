"""Masked pretraining on a batch: atoms taken out of molecules, and the vectors that point to where they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from ase.data import atomic_numbers, covalent_radii
from torch import Tensor

from mdpot.molecules import BOND_FACTOR
from mdpot.training.data.store import Batch, Store
from mdpot.training.data.targets import target as label_of
from mdpot.training.objectives.objective import VECTORS, Prediction, Score, cosine_similarity, sum_of
from mdpot.training.schema import PretrainConfig


@dataclass(frozen=True)
class MaskTarget:
    """What is to be recovered after `mask_molecules`.

    Attributes:
        atoms: [n_marked] int64, the marked atoms, indices into the masked batch.
        displacements: [n_marked, 3], Å, from each marked atom to a removed one of its molecule.
        share: [], share of the usable molecules that lost an atom; where atoms are drawn one by one, of the atoms.
    """

    atoms: Tensor
    displacements: Tensor
    share: Tensor


def mask_molecules(
    batch: Batch,
    ratio: float,
    element: int,
    generator: torch.Generator,
    unit: Literal["molecule", "atom"] = "molecule",
    target: Literal["nearest", "farthest"] = "nearest",
) -> tuple[Batch, MaskTarget]:
    """Removes atoms of `element` from molecules, with all their edges (masked pretraining paper, section 2.2).

    With the unit "molecule", every usable molecule (`batch.molecule` not -1, two atoms or more) that holds the element
    is chosen with probability `ratio` and loses one atom of it, each as likely as the others. With "atom", every such
    atom of the element goes with probability `ratio`; a molecule that would lose all its atoms keeps them.

    All atoms left behind in a molecule that lost one carry the mark 1, and these are the atoms that are predicted: the
    paper predicts displacements "relative to other atoms in the same molecule" and says only for water which those are,
    the two that are left. A mark on the former neighbors of a removed atom alone would give away where it was.

    Where a molecule lost several, each marked atom points to the nearest of those that were bonded to it (bonds as in
    `mdpot.training.data.molecules`) or, where none was, to the nearest ("nearest") or the farthest ("farthest") of all;
    the code of the paper's authors takes the farthest in any case. All of it is tensor operations on the device of
    the batch.

    Args:
        batch: structures with neighbor lists, molecules and whole-molecule positions.
        ratio: the masking ratio, between 0 and 1.
        element: atomic number of the atoms to mask.
        generator: source of randomness, on the device of the batch.
        unit: what is drawn with probability `ratio`.
        target: which removed atom to point to.

    Returns:
        The batch without the removed atoms, its labels of removed atoms gone with them, and the target.
    """
    # Atoms of no molecule share one more, the last, which is never chosen; nor is an atom that is a molecule by itself.
    owner = torch.where(batch.molecule >= 0, batch.molecule, batch.n_molecules)
    candidate = (batch.graph.numbers == element) & (batch.molecule >= 0) & (_count(owner, batch)[owner] > 1)
    draw = _draw_atoms if unit == "atom" else _draw_molecules
    removed, share = draw(batch, owner, candidate, ratio, generator)

    lost = _count(owner, batch, removed) > 0
    marked = lost[owner] & ~removed
    atoms = marked.nonzero().squeeze(1)
    displacements = batch.whole[_pointed_at(batch, owner, atoms, removed, target)] - batch.whole[atoms]
    keep = ~removed
    masked = _keep_atoms(batch.replace(marks=marked.to(batch.marks.dtype)), keep)
    return masked, MaskTarget(marked[keep].nonzero().squeeze(1), displacements, share)


def count_maskable(store: Store, element: int) -> int:
    """How many molecules of a store `mask_molecules` may choose: those with the element and with another atom."""
    n_molecules = int(store.n_molecules_per_frame.sum())
    inside = store.molecule >= 0
    sizes = torch.bincount(store.molecule[inside], minlength=n_molecules)
    hits = torch.bincount(store.molecule[inside & (store.numbers == element)], minlength=n_molecules)
    return int(((sizes > 1) & (hits > 0)).sum())


def _count(owner: Tensor, batch: Batch, which: Tensor | None = None) -> Tensor:
    """How many atoms, or of `which` [n_atoms] bool, each molecule has: [n_molecules + 1] int64."""
    ones = torch.ones_like(owner) if which is None else which.to(owner.dtype)
    return owner.new_zeros(batch.n_molecules + 1).index_add(0, owner, ones)


def _draw_molecules(
    batch: Batch, owner: Tensor, candidate: Tensor, ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One candidate of each chosen molecule: which atoms go [n_atoms] bool, and the share of molecules chosen []."""
    # Every candidate draws a number; the largest in its molecule is the one that would go.
    draw = torch.rand(len(owner), generator=generator, device=owner.device)
    top = _lowest(torch.where(candidate, -draw, torch.ones_like(draw)), owner, batch.n_molecules + 1)
    usable = _count(owner, batch, candidate) > 0
    chosen = usable & (torch.rand(len(usable), generator=generator, device=owner.device) < ratio)
    removed = torch.zeros_like(candidate)
    removed[top[chosen]] = True
    return removed, chosen.sum() / usable.sum().clamp(min=1)


def _draw_atoms(
    batch: Batch, owner: Tensor, candidate: Tensor, ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Every candidate for itself: which atoms go [n_atoms] bool, and their share of the candidates []."""
    removed = candidate & (torch.rand(len(owner), generator=generator, device=owner.device) < ratio)
    emptied = _count(owner, batch, removed) == _count(owner, batch)
    removed = removed & ~emptied[owner]
    return removed, removed.sum() / candidate.sum().clamp(min=1)


def _pointed_at(batch: Batch, owner: Tensor, atoms: Tensor, removed: Tensor, target: str) -> Tensor:
    """The removed atom [n_marked] int64 of its molecule that each of the marked `atoms` [n_marked] points to."""
    gone = removed.nonzero().squeeze(1)
    gone = gone[torch.sort(owner[gone], stable=True)[1]]  # those of a molecule follow each other
    count = _count(owner, batch, removed)
    first = count.cumsum(0) - count
    # Every pair of a marked atom and a removed one of its molecule.
    n_lost = count[owner[atoms]]
    row = torch.repeat_interleave(n_lost)
    rank = torch.arange(len(row), device=row.device) - (n_lost.cumsum(0) - n_lost)[row]
    lost = gone[first[owner[atoms]][row] + rank]
    squared = (batch.whole[lost] - batch.whole[atoms][row]).square().sum(1)
    if target == "nearest":
        # The nearest is a bonded one if there is any: as all the removed are of one element, one length tells bonds.
        key = squared
    else:
        radii = torch.from_numpy(covalent_radii).to(squared)
        reach = BOND_FACTOR * (radii[batch.graph.numbers[atoms]][row] + radii[batch.graph.numbers[lost]])
        # Ascending: the bonded ones from the nearest on, then the others from the farthest on.
        key = torch.where(squared < reach.square(), -1.0 / squared, 1.0 / squared)
    return lost[_lowest(key, row, len(atoms))]


def _lowest(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Where the lowest of the values [n] of each group is [n_groups] int64: of equals the first; n in an empty one."""
    low = torch.full([n_groups], torch.inf, dtype=values.dtype, device=values.device)
    low = low.scatter_reduce(0, group, values, "amin")
    index = torch.arange(len(values), device=values.device)
    index = torch.where(values == low[group], index, len(values))
    return group.new_full([n_groups], len(values)).scatter_reduce(0, group, index, "amin")


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
        labels={n: v[keep] if label_of(n).per == "atom" else v for n, v in batch.labels.items()},
        marks=batch.marks[keep],
        molecule=batch.molecule[keep],
        whole=batch.whole[keep],
    )


class MaskedAtoms:
    """Predict, for each atom of a molecule that lost one, the direction to the lost atom (eqs. 4, 5 of the paper).

    Args:
        config: ratio, unit, element, target, vector and cosine of the recipe's pretraining stage.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.element = atomic_numbers[config.element]
        self.vector = VECTORS[config.vector]
        self.outputs = ["interaction", self.vector]

    def at(self, done: float) -> MaskedAtoms:
        return self

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, MaskTarget]:
        config = self.config
        return mask_molecules(batch, config.ratio, self.element, generator, config.unit, config.target)

    def score(self, prediction: Prediction, target: MaskTarget) -> Score:
        vector = prediction[self.vector][target.atoms]
        per_atom = cosine_similarity(vector, target.displacements)
        cosine, n_marked = sum_of(per_atom)
        total = (1.0 - per_atom).sum()
        if self.config.cosine == "all" and len(per_atom):
            total = len(per_atom) * (1.0 - cosine_similarity(vector.flatten(), target.displacements.flatten()))  # eq. 5
        if len(per_atom) == 0:
            total = total + 0.0 * prediction["interaction"].sum()  # it has a gradient whatever the batch is
        terms = {"cosine": (total, n_marked)}
        numbers = {"cosine": (cosine.detach().double(), n_marked), "share_masked": sum_of(target.share)}
        return Score(terms, numbers)
