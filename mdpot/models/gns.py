"""GNS: encode, process, decode, with forces from a head of their own (Sanchez-Gonzalez et al., ICML 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone
from mdpot.models.egnn import scatter_sum
from mdpot.models.hyperparameters import Count, Cutoff, Neighbors, Width
from mdpot.radial import bessel_basis, polynomial_envelope


class GNS(Backbone):
    """The graph network simulator as a force-centric backbone.

    With v_ij the vector from atom i to its neighbor j, d_ij its length, c_ij an envelope that goes to zero at the
    cutoff (ours; without it forces jump when an atom crosses the cutoff), n the average number of neighbors, and φ
    perceptrons with two hidden layers and a final LayerNorm:

        h_i = embedding,  e_ij = φ(basis(d_ij) ⊗ (1, v_ij / d_ij))   encode
        m_ij = φ_e(e_ij, h_i, h_j)                                   process, `layers` times
        e_ij ← e_ij + m_ij
        h_i ← h_i + φ_h(h_i, 1/√n Σ_j c_ij m_ij)
        f_i = tanh(Σ_j c_ij) φ_f(h_i)                                decode

    Edges know displacement and distance, as in the paper, but resolved by Bessel functions; atoms do not know where
    they are, so that translation and periodic images are right. The hyperbolic tangent, ours too, leaves an atom
    without neighbors at rest. The forces f are no gradient of an energy, and they turn with the structure only as far
    as the training data taught them to.

    Args:
        cutoff: Å.
        width: features per atom and per edge, and width of the hidden layers.
        layers: number of message-passing steps.
        n_basis: Bessel functions that resolve the distance.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.
    """

    conservative = False
    equivariant = False

    def __init__(
        self,
        cutoff: Cutoff = 3.4,
        width: Width = 128,
        layers: Count = 10,
        n_basis: Count = 12,
        avg_neighbors: Neighbors = 16.0,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.n_features = width
        self.n_basis = n_basis
        self.encoder = nn.Sequential(nn.Linear(4 * n_basis, width), SiLU(), *normalized_tail(width))
        self.layers = nn.ModuleList([GNSLayer(width, layers, avg_neighbors) for _ in range(layers)])
        self.decoder = vector_head(width)
        initialize(self)

    def forward(
        self, h: Tensor, species: Tensor, edge_index: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and the per-atom vector; the arguments are those of `Backbone`.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3] (zeros unless `direct`).
        """
        i, j = edge_index[0], edge_index[1]
        distance = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        envelope = polynomial_envelope(distance, self.cutoff)
        # As large as each other: 1, and the components of a unit vector times √3.
        angular = torch.cat([torch.ones_like(distance), vectors * (3.0**0.5 / distance)], dim=1)
        basis = bessel_basis(distance.squeeze(1), self.n_basis, self.cutoff)
        e = self.encoder((basis.unsqueeze(2) * angular.unsqueeze(1)).flatten(1))
        for layer in self.layers:
            h, e = layer(h, e, i, j, envelope)
        vector = h.new_zeros([species.shape[0], 3])
        if direct:
            vector = self.decoder(h) * presence(envelope, i, species.shape[0])
        return h, vector


class GNSLayer(nn.Module):
    """One message-passing step of GNS; see there for the equations and the arguments."""

    def __init__(self, width: int, layers: int, avg_neighbors: float) -> None:
        super().__init__()
        self.scale = max(avg_neighbors, 1.0) ** -0.5
        # The first linear map of φ_e on [e_ij, h_i, h_j], split so that two of three products are per atom.
        self.edge = nn.Linear(width, width, bias=False)
        self.center = nn.Linear(width, width)
        self.neighbor = nn.Linear(width, width, bias=False)
        self.message = nn.Sequential(SiLU(), *normalized_tail(width))
        self.update = nn.Sequential(nn.Linear(2 * width, width), SiLU(), *normalized_tail(width))
        # All layers together add as much to h as there was: forces start of the order of one, however deep it is.
        nn.init.constant_(self.update[-1].weight, layers**-0.5)  # type: ignore[arg-type]

    def forward(self, h: Tensor, e: Tensor, i: Tensor, j: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor]:
        """h [n_atoms, width] and e [n_edges, width] after this step.

        Args:
            h: [n_atoms, width].
            e: [n_edges, width].
            i, j: [n_edges] int64, atom and neighbor.
            envelope: [n_edges, 1].
        """
        hidden = self.edge(e) + self.center(h).index_select(0, i) + self.neighbor(h).index_select(0, j)
        m = self.message(hidden)
        total = scatter_sum(m * envelope, i, h.shape[0]) * self.scale
        return h + self.update(torch.cat([h, total], dim=-1)), e + m


def normalized_tail(width: int) -> list[nn.Module]:
    """The second hidden layer of a perceptron, its linear output, and a LayerNorm."""
    return [nn.Linear(width, width), SiLU(), nn.Linear(width, width), nn.LayerNorm(width)]


def vector_head(width: int) -> nn.Sequential:
    """A perceptron from features [n_atoms, width] to vectors [n_atoms, 3]."""
    return nn.Sequential(
        nn.Linear(width, width), SiLU(), nn.Linear(width, width), SiLU(), nn.Linear(width, 3, bias=False)
    )


def initialize(module: nn.Module) -> None:
    """Glorot's weights in every linear map: with torch's default, forces start near zero and take long to grow."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def presence(envelope: Tensor, i: Tensor, n_atoms: int) -> Tensor:
    """tanh(Σ_j c_ij) [n_atoms, 1] of the envelopes [n_edges, 1]: 0 without neighbors, close to 1 from two on."""
    return torch.tanh(scatter_sum(envelope, i, n_atoms))
