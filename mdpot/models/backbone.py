"""The contract of every architecture, and the embedding that all of them start from."""

# Not `from __future__ import annotations`: TorchScript reads the types of attributes, and only as types.
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """An architecture: from features of the atoms and edge vectors to better features, and to a vector per atom.

    Its `__init__` takes hyperparameters with types, ranges and defaults (see `hyperparameters.py`), each with its line
    under "Args:" in the docstring of the class; `cutoff` is among them. Its `forward(h, species, edge_index, vectors,
    direct)` gets

    - h: [n_atoms, n_features], from `AtomEmbedding`: what the element and the mark of each atom say;
    - species: [n_atoms] int64, index into the elements, for the architectures that have further weights per element;
    - edge_index: [2, n_edges] int64; edges beyond the cutoff do no harm;
    - vectors: [n_edges, 3], Å, from atom i to its neighbor j;
    - direct: whether the vectors of the atoms are wanted,

    and returns features [n_atoms, n_features] and vectors [n_atoms, 3], which may be zeros unless `direct`. It sees
    positions only through the edge vectors; so translation and periodic images are right by construction, and forces
    and virial follow from one derivative, that by the edge vectors. TorchScript compiles it.

    Attributes:
        cutoff: Å.
        n_features: of each atom, on the way in and out.
        conservative: the forces are -dE/dx; else they are the vectors, and an atom without neighbors has none.
        equivariant: the vectors turn with the structure.
        per_element: names of those weights of the state dict that have one row per element. An architecture with any
            takes `n_elements` as its first argument.
    """

    conservative: ClassVar[bool] = True
    equivariant: ClassVar[bool] = True
    per_element: ClassVar[tuple[str, ...]] = ()
    cutoff: float
    n_features: int

    @classmethod
    def features(cls, hyperparameters: Mapping[str, Any]) -> int:
        """`n_features` of a network with these hyperparameters, which are complete."""
        return hyperparameters["width"]

    def padded(
        self, h: Tensor, species: Tensor, neighbors: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """`forward` of a table with a row of neighbors for each atom, none of whose shapes depends on the positions.

        Args:
            h, species, direct: as in `forward`.
            neighbors: [n_atoms, n_slots] int64.
            vectors: [n_atoms, n_slots, 3], Å, from an atom to the neighbor in each of its slots; longer than the cutoff
                where a slot is empty.
        """
        n_atoms, n_slots = neighbors.shape
        center = torch.arange(n_atoms * n_slots, device=h.device).div(n_slots, rounding_mode="floor")
        edge_index = torch.stack([center, neighbors.flatten()])
        return self(h, species, edge_index, vectors.reshape(n_atoms * n_slots, 3), direct)


class AtomEmbedding(nn.Module):
    """h_i = element[z_i] + marks_i · mark, the features that a network starts from, learned.

    Args:
        n_elements: number of chemical elements.
        width: features per atom.
    """

    per_element: ClassVar[tuple[str, ...]] = ("element.weight",)

    def __init__(self, n_elements: int, width: int) -> None:
        super().__init__()
        self.element = nn.Embedding(n_elements, width)
        self.mark = nn.Parameter(0.5 * torch.randn(width))

    def forward(self, species: Tensor, marks: Tensor) -> Tensor:
        """[n_atoms, width].

        Args:
            species: [n_atoms] int64, index into the elements.
            marks: [n_atoms], 1 for atoms whose molecule lost an atom to the mask, else 0.
        """
        return self.element(species) + marks.to(self.mark.dtype).unsqueeze(-1) * self.mark


def places_of(elements: Sequence[int]) -> Tensor:
    """[120] int64, from an atomic number to its place among the elements; -1 for those that are not among them."""
    places = torch.full([120], -1, dtype=torch.int64)
    places[torch.tensor(elements)] = torch.arange(len(elements))
    return places
