"""ForceNet: filters that depend on both atoms and on the direction between them (Hu et al., 2021)."""

# Not `from __future__ import annotations`: TorchScript reads the types of buffers and lists, and only as types.
import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.models.activation import SiLU
from mdpot.models.angular import MAX_ORDER, harmonics, monomials
from mdpot.models.backbone import Backbone
from mdpot.models.egnn import scatter_sum
from mdpot.models.gns import initialize, presence, vector_head
from mdpot.models.hyperparameters import Count, Cutoff, Neighbors, Order, Width
from mdpot.radial import polynomial_envelope


class ForceNet(Backbone):
    """ForceNet (arXiv:2103.01436) as a force-centric backbone.

    With v_ij the vector from atom i to its neighbor j, d_ij its length, u_ij its direction, r_i a radius of the
    element of atom i, Y the real spherical harmonics, c_ij an envelope that goes to zero at the cutoff, and n the
    average number of neighbors:

        s_ij = sin(1.1^k (d_ij - {0, r_i, r_j, r_i + r_j}) / cutoff),  k = 0 … n_basis - 1
        b_ij = Y(u_ij) ⊗ (W s_ij)                                  the basis
        f_ij = c_ij φ_f(b_ij, h_i, h_j)                            filter, conditioned on both atoms
        a_i = w · (V h_i) + 1/√n Σ_j f_ij · (V h_j)                · is elementwise
        h_i ← h_i + φ_h(a_i)                                       `layers` times
        F_i = tanh(Σ_j c_ij) φ_F(h_i)

    As in the paper but for what dynamics asks for: the cosine cutoff is a smoother envelope, distances are not
    clamped, elements have learned embeddings and radii in place of tabulated properties, LayerNorm stands for
    BatchNorm (which makes the forces depend on the rest of the batch), and an atom without neighbors is at rest. The
    forces F are no gradient of an energy, and they turn with the structure only as far as the training data taught
    them to.

    Args:
        n_elements: number of chemical elements.
        cutoff: Å.
        width: features per atom.
        layers: number of message-passing steps.
        order: largest angular momentum of the spherical harmonics.
        n_radial: radial functions W s that multiply them.
        n_basis: sine waves for each of the four distances that resolve them.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.

    Raises:
        MdpotError: an order out of range.
    """

    conservative = False
    equivariant = False
    per_element = ("radius_embedding.weight",)
    harmonics: Tensor
    first: list[int]
    second: list[int]

    def __init__(
        self,
        n_elements: int,
        cutoff: Cutoff = 3.4,
        width: Width = 128,
        layers: Count = 5,
        order: Order = 2,
        n_radial: Count = 8,
        n_basis: Count = 40,
        avg_neighbors: Neighbors = 16.0,
    ) -> None:
        super().__init__()
        if not 1 <= order <= MAX_ORDER:
            raise MdpotError(f"order must be between 1 and {MAX_ORDER}; got {order}.")
        self.cutoff = cutoff
        self.n_features = width
        self.order, self.n_basis = order, n_basis
        _, self.first, self.second = monomials(order)
        self.radius_embedding = nn.Embedding(n_elements, 1)  # Å
        nn.init.uniform_(self.radius_embedding.weight, 0.25, 0.75)
        self.radial = nn.Linear(4 * n_basis, n_radial)
        n_edge = n_radial * (order + 1) ** 2
        self.layers = nn.ModuleList([ForceNetLayer(width, n_edge, avg_neighbors) for _ in range(layers)])
        self.decoder = vector_head(width)
        initialize(self)
        nn.init.normal_(self.radial.weight, std=(2 * n_basis) ** -0.5)  # sin² is 1/2 on average: W s of order one
        self._set_harmonics()

    def _set_harmonics(self) -> None:
        """The table in the precision of the weights: converted to float64, that of float32 would not be exact."""
        weight = self.radial.weight
        self.register_buffer("harmonics", harmonics(self.order).to(weight.device, weight.dtype), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._set_harmonics()
        return self

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
        radius = self.radius_embedding(species)
        basis = self.basis(vectors / distance, distance, radius.index_select(0, i), radius.index_select(0, j))
        for layer in self.layers:
            h = layer(h, i, j, basis, envelope)
        vector = h.new_zeros([species.shape[0], 3])
        if direct:
            vector = self.decoder(h) * presence(envelope, i, species.shape[0])
        return h, vector

    def basis(self, direction: Tensor, distance: Tensor, radius_i: Tensor, radius_j: Tensor) -> Tensor:
        """b_ij [n_edges, (order + 1)^2 n_radial] of unit vectors [n_edges, 3], and distances and radii [n_edges, 1]."""
        distances = torch.stack(
            [distance, distance - radius_i, distance - radius_j, distance - radius_i - radius_j], dim=1
        )
        frequencies = torch.pow(1.1, torch.arange(self.n_basis, dtype=distance.dtype, device=distance.device))
        radial = self.radial(torch.sin(distances * (frequencies / self.cutoff)).flatten(1))
        powers = [torch.ones_like(distance)]
        for axis in direction.split(1, dim=1):
            powers.append(axis)
        for first, second in zip(self.first, self.second):  # noqa: B905 (TorchScript knows no strict)
            powers.append(powers[first] * powers[second])
        angular = torch.cat(powers, dim=1) @ self.harmonics.t()
        return (angular.unsqueeze(2) * radial.unsqueeze(1)).flatten(1)


class ForceNetLayer(nn.Module):
    """One block of ForceNet; see there for the equations and the arguments."""

    def __init__(self, width: int, n_edge: int, avg_neighbors: float) -> None:
        super().__init__()
        self.scale = max(avg_neighbors, 1.0) ** -0.5
        # The first linear map of φ_f on [b_ij, h_i, h_j], split so that two of three products are per atom.
        self.edge = nn.Linear(n_edge, width, bias=False)
        self.center = nn.Linear(width, width)
        self.neighbor = nn.Linear(width, width, bias=False)
        self.filter = nn.Sequential(SiLU(), nn.Linear(width, width), SiLU(), nn.Linear(width, width))
        self.value = nn.Linear(width, width)
        self.own = nn.Parameter(torch.ones(width))
        self.update = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, i: Tensor, j: Tensor, basis: Tensor, envelope: Tensor) -> Tensor:
        """h [n_atoms, width] after this step.

        Args:
            h: [n_atoms, width].
            i, j: [n_edges] int64, atom and neighbor.
            basis: [n_edges, (order + 1)^2 n_radial].
            envelope: [n_edges, 1].
        """
        hidden = self.edge(basis) + self.center(h).index_select(0, i) + self.neighbor(h).index_select(0, j)
        value = self.value(h)
        messages = self.filter(hidden) * value.index_select(0, j) * envelope
        total = self.own * value + scatter_sum(messages, i, h.shape[0]) * self.scale
        return h + self.update(total)
