"""CGCNN: gated sums over neighbors of invariants (Xie and Grossman, Phys. Rev. Lett. 120, 145301, 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, softplus

from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone
from mdpot.models.egnn import scatter_sum
from mdpot.models.hyperparameters import Count, Cutoff, Neighbors, Width
from mdpot.radial import gaussian_basis, message_envelope


class CGCNN(Backbone):
    """The crystal graph convolutional network as a backbone for potentials and properties.

    With d_ij the distance from atom i to its neighbor j, u_ij the direction to it, z_ij = (h_i, h_j, g(d_ij)) with
    Gaussians g, c_ij an envelope that goes to zero at the cutoff (ours; without it the energy jumps when an atom
    crosses the cutoff), and n the average number of neighbors, a convolution is

        h_i ← h_i + N[1/n Σ_j c_ij sigmoid(z_ij W_f + b_f) softplus(z_ij W_s + b_s)]      (eq. 5)

    with N batch normalization or nothing. All terms are positive, so that their sum grows as n, not as √n. It knows
    only distances; the vector of an atom is a sum over its edges, which turns with the structure:

        v_i = 1/√n Σ_j c_ij φ(z_ij) u_ij

    Args:
        cutoff: Å.
        width: features per atom.
        layers: number of convolutions.
        n_basis: Gaussians that resolve the distance.
        norm: "batch" normalizes each sum over neighbors as in the paper, by the mean and variance over the atoms of a
            batch in training, by their running averages afterwards. In training the energies of a batch, and so the
            forces, then depend on each other; afterwards each structure stands for itself.
        smooth: whether every message has an envelope; without it energies jump at the cutoff, as in the paper.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.
    """

    def __init__(
        self,
        cutoff: Cutoff = 8.0,
        width: Width = 100,
        layers: Count = 4,
        n_basis: Count = 50,
        norm: Literal["none", "batch"] = "none",
        smooth: bool = True,
        avg_neighbors: Neighbors = 50.0,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.n_features = width
        self.n_basis, self.smooth = n_basis, smooth
        n = max(avg_neighbors, 1.0)
        self.scale = n**-0.5  # of the vectors, whose terms have any direction
        self.layers = nn.ModuleList([CGConvolution(width, n_basis, norm == "batch", 1 / n) for _ in range(layers)])
        self.edges = EdgeLinear(width, n_basis, width)
        self.weight = nn.Sequential(SiLU(), nn.Linear(width, 1))

    def forward(
        self, h: Tensor, species: Tensor, edge_index: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and the sum over weighted edges as the vector; the arguments are those of `Backbone`.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3] (zeros unless `direct`).
        """
        i, j = edge_index[0], edge_index[1]
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        envelope = message_envelope(distance, self.cutoff, self.smooth).unsqueeze(-1)
        basis = gaussian_basis(distance, self.n_basis, self.cutoff)
        for layer in self.layers:
            h = layer(h, i, j, basis, envelope)
        vector = h.new_zeros([h.shape[0], 3])
        if direct:
            weighted = vectors * (self.weight(self.edges(h, i, j, basis)) * envelope / distance.unsqueeze(-1))
            vector = scatter_sum(weighted, i, h.shape[0]) * self.scale
        return h, vector


class EdgeLinear(nn.Module):
    """A linear map of (h_i, h_j, basis_ij), split so that the two large products are per atom."""

    def __init__(self, width: int, n_basis: int, n_out: int) -> None:
        super().__init__()
        self.center = nn.Linear(width, n_out)
        self.neighbor = nn.Linear(width, n_out, bias=False)
        self.radial = nn.Linear(n_basis, n_out, bias=False)

    def forward(self, h: Tensor, i: Tensor, j: Tensor, basis: Tensor) -> Tensor:
        """[n_edges, n_out].

        Args:
            h: [n_atoms, width].
            i, j: [n_edges] int64, atom and neighbor.
            basis: [n_edges, n_basis].
        """
        return self.center(h).index_select(0, i) + self.neighbor(h).index_select(0, j) + self.radial(basis)


class CGConvolution(nn.Module):
    """One convolution of CGCNN; see there for the equation."""

    def __init__(self, width: int, n_basis: int, normalize: bool, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.gates = EdgeLinear(width, n_basis, 2 * width)  # W_f and W_s
        self.norm = nn.BatchNorm1d(width) if normalize else None

    def forward(self, h: Tensor, i: Tensor, j: Tensor, basis: Tensor, envelope: Tensor) -> Tensor:
        """h [n_atoms, width] after this convolution.

        Args:
            h: [n_atoms, width].
            i, j: [n_edges] int64, atom and neighbor.
            basis: [n_edges, n_basis].
            envelope: [n_edges, 1].
        """
        gate, value = self.gates(h, i, j, basis).chunk(2, 1)
        total = scatter_sum(torch.sigmoid(gate) * softplus(value) * envelope, i, h.shape[0]) * self.scale
        norm = self.norm
        if norm is not None:
            # A single atom has no variance: it is normalized by the running averages.
            by_batch = self.training and h.shape[0] > 1
            total = (
                norm(total)
                if by_batch
                else batch_norm(total, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            )
        return h + total
