"""One scalar per structure from a backbone's features: band gap, exfoliation energy, whatever has no derivative."""

# Not `from __future__ import annotations`: TorchScript reads the types of the buffers, and only as types.
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError, unknown
from mdpot.heads.potential import edge_vectors
from mdpot.models.activation import SiLU
from mdpot.models.backbone import AtomEmbedding, Backbone, places_of

POOLINGS = ("sum", "mean")


class PropertyModel(nn.Module):
    """p = mean + scale · MLP(pool_i h_i), with h_i the backbone's features of atom i.

    The features are pooled and the sum or mean goes through the readout, as in CGCNN (Xie and Grossman, Phys. Rev.
    Lett. 120, 145301) and in the second paper's "global add pooling" (its tables 2 and 3) and "global mean pooling"
    (table 4). There are no reference energies, no pair energy and no wall, and no derivative is taken. Embedding and
    backbone are those of a `Potential`, so their weights go from one to the other.

    Args:
        embedding: of the elements and the mark, as wide as the backbone's features.
        backbone: the architecture, one of `MODELS`.
        elements: atomic numbers it is trained for, ascending.
        name: of the property, as in the data, e.g. "exfoliation_en".
        unit: of the property, as text; empty where it has none.
        pooling: "sum" or "mean".
        mean: of the training targets, in `unit`.
        scale: in `unit`, what one unit of the network's output is worth.

    Raises:
        MdpotError: no elements, or an unknown pooling.
    """

    lookup: Tensor

    def __init__(
        self,
        embedding: AtomEmbedding,
        backbone: Backbone,
        elements: Sequence[int],
        name: str,
        unit: str = "",
        pooling: str = "sum",
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        if len(elements) == 0:
            raise MdpotError("elements: a property model needs at least one; got none.")
        # What rebuilds it from a file; `build_property` fills them in.
        self.model = type(backbone).__name__.lower()
        self.hyperparameters = {}
        self.embedding = embedding
        self.backbone = backbone
        self.cutoff = float(backbone.cutoff)
        self.elements = [int(z) for z in elements]
        self.name, self.unit, self.pooling = name, unit, pooling
        self.mean, self.scale = float(mean), float(scale)
        width = backbone.n_features
        self.readout = nn.Sequential(nn.Linear(width, width), SiLU(), nn.Linear(width, 1))
        self.register_buffer("lookup", places_of(self.elements), persistent=False)

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        marks: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The property of a batch of structures; the arguments but the last are the tensors of `Graph`.

        Args:
            numbers: [n_atoms] int64, all among `elements`.
            positions: [n_atoms, 3], Å.
            cell: [n_systems, 3, 3], Å, in the dtype of the positions.
            system: [n_atoms] int64.
            edge_index: [2, n_edges] int64. Edges beyond the cutoff do no harm.
            shifts: [n_edges, 3], integer lattice translations.
            marks: [n_atoms], as in `Potential`; None is no mark.

        Returns:
            "property" [n_systems] float64, in `unit`, and "normalized" [n_systems], (property − mean) / scale, in the
            dtype of the network.
        """
        vectors = edge_vectors(positions, cell, system, edge_index, shifts)
        vectors = vectors.to(self.readout[0].weight.dtype)  # type: ignore[arg-type]
        species = self.lookup[numbers]
        if marks is None:
            marks = torch.zeros_like(numbers)
        features, _ = self.backbone(self.embedding(species, marks), species, edge_index, vectors, False)
        pooled = pool(features, system, cell.shape[0], self.pooling)
        normalized = self.readout(pooled).squeeze(-1)
        return {"property": self.mean + self.scale * normalized.double(), "normalized": normalized}


def pool(features: Tensor, system: Tensor, n_systems: int, pooling: str) -> Tensor:
    """Sum or mean of the features of each structure's atoms, the same as PyG's global_add_pool and global_mean_pool.

    Args:
        features: [n_atoms, n_features].
        system: [n_atoms] int64, the structure of each atom.
        n_systems: number of structures.
        pooling: "sum" or "mean".

    Returns:
        [n_systems, n_features]; zero for a structure without atoms.
    """
    total = features.new_zeros([n_systems, features.shape[1]]).index_add(0, system, features)
    if pooling == "sum":
        return total
    sizes = features.new_zeros([n_systems]).index_add(0, system, torch.ones_like(features[:, 0]))
    return total / sizes.clamp(min=1.0).unsqueeze(1)
