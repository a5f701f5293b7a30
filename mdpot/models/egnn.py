"""EGNN: messages of invariants, coordinates that move along the edges (Satorras et al., ICML 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone
from mdpot.models.hyperparameters import Count, Cutoff, Neighbors, Width
from mdpot.radial import bessel_basis, polynomial_envelope


class EGNN(Backbone):
    """The E(n)-equivariant graph network as a backbone for potentials.

    One layer, with v_ij the vector from atom i to its neighbor j, d_ij its length, and c_ij an envelope that goes to
    zero at the cutoff (ours; without it the energy jumps when an atom crosses the cutoff):

        m_ij = c_ij φ_e(h_i, h_j, basis(d_ij))                (eq. 3)
        x_i  ← x_i - 1/n Σ_j v_ij / (d_ij + 1) c_ij φ_x(m_ij) (eq. 4)
        h_i  ← h_i + φ_h(h_i, 1/√n Σ_j m_ij)                  (eqs. 5, 6)

    with n the average number of neighbors. The moved coordinates x are kept as a displacement u_i from the atom, so
    that v_ij of the next layer is the true edge vector plus u_j - u_i: right across periodic images, where absolute
    coordinates are not. The envelope and the edges always belong to the true distances.

    Args:
        cutoff: Å.
        width: features per atom.
        layers: number of message-passing steps.
        n_basis: Bessel functions that resolve the distance.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.
    """

    def __init__(
        self,
        cutoff: Cutoff = 3.4,
        width: Width = 128,
        layers: Count = 5,
        n_basis: Count = 12,
        avg_neighbors: Neighbors = 16.0,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.n_features = width
        self.n_basis = n_basis
        self.layers = nn.ModuleList([EGNNLayer(width, n_basis, avg_neighbors) for _ in range(layers)])

    def forward(
        self, h: Tensor, species: Tensor, edge_index: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and the sum of all displacements as the vector; the arguments are those of `Backbone`.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3], Å (zeros unless `direct`).
        """
        i, j = edge_index[0], edge_index[1]
        envelope = polynomial_envelope(torch.linalg.vector_norm(vectors, dim=-1), self.cutoff).unsqueeze(-1)
        moved = vectors.new_zeros([species.shape[0], 3])
        v = vectors
        last = len(self.layers) - 1
        for n, layer in enumerate(self.layers):
            distance = rounded_length(v)
            basis = bessel_basis(distance.squeeze(-1), self.n_basis, self.cutoff)
            h, step = layer(h, i, j, v / (distance + 1.0), basis, envelope, direct or n < last)
            if n < last or direct:
                moved = moved + step
            if n < last:
                v = vectors + moved.index_select(0, j) - moved.index_select(0, i)
        return h, moved


class EGNNLayer(nn.Module):
    """One step of EGNN; see there for the equations and the arguments."""

    def __init__(self, width: int, n_basis: int, avg_neighbors: float) -> None:
        super().__init__()
        self.inverse_neighbors = 1.0 / max(avg_neighbors, 1.0)
        # The first linear map of φ_e on [h_i, h_j, basis], split so that the two large products are per atom.
        self.center = nn.Linear(width, width)
        self.neighbor = nn.Linear(width, width, bias=False)
        self.radial = nn.Linear(n_basis, width, bias=False)
        # As wide as the atoms' part of the sum: with torch's default the forces start near zero and hardly grow.
        nn.init.normal_(self.radial.weight)
        self.message = nn.Linear(width, width)
        self.move = nn.Sequential(nn.Linear(width, width), SiLU(), nn.Linear(width, 1, bias=False))
        self.update = nn.Sequential(nn.Linear(2 * width, width), SiLU(), nn.Linear(width, width))
        self.activation = SiLU()

    def forward(
        self,
        h: Tensor,
        i: Tensor,
        j: Tensor,
        direction: Tensor,
        basis: Tensor,
        envelope: Tensor,
        moves: bool,
    ) -> tuple[Tensor, Tensor]:
        """h [n_atoms, width] after this step, and by how much it moves the atoms [n_atoms, 3], Å: zeros unless `moves`.

        Args:
            h: [n_atoms, width].
            i, j: [n_edges] int64, atom and neighbor.
            direction: [n_edges, 3], v_ij / (d_ij + 1).
            basis: [n_edges, n_basis].
            envelope: [n_edges, 1].
            moves: whether the moved coordinates are needed.
        """
        n_atoms = h.shape[0]
        hidden = self.center(h).index_select(0, i) + self.neighbor(h).index_select(0, j) + self.radial(basis)
        m = self.activation(self.message(self.activation(hidden))) * envelope  # eq. 3
        step = direction.new_zeros([n_atoms, 3])
        if moves:
            # The envelope once more: φ_x does not vanish where its argument does.
            weighted = direction * (self.move(m) * envelope)
            step = scatter_sum(weighted, i, n_atoms) * (-self.inverse_neighbors)  # eq. 4
        total = scatter_sum(m, i, n_atoms) * self.inverse_neighbors**0.5  # eq. 5
        return h + self.update(torch.cat([h, total], dim=-1)), step  # eq. 6


def rounded_length(v: Tensor, radius: float = 0.005) -> Tensor:
    """√(v² + r⁴ / (v² + r²)) [n, 1], Å, of vectors v [n, 3]: their length, but smooth where two moved atoms meet.

    It ends at r = `radius`, Å, in place of 0, and so slopes of forces stay below 1/r, which float32 resolves. From
    0.15 Å on, that is for all atoms but those that moved onto each other, it is the length to better than 1e-6.
    """
    square = v.square().sum(-1, keepdim=True)
    return (square + radius**4 / (square + radius**2)).sqrt()


def scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """[n, k] values summed into [size, k] rows by index [n]."""
    return values.new_zeros([size, values.shape[1]]).scatter_add(
        0, index.unsqueeze(-1).expand(-1, values.shape[1]), values
    )
