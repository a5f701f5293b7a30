"""ET, the equivariant transformer of TorchMD-Net (Thölke and De Fabritiis, ICLR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone
from mdpot.models.gns import initialize
from mdpot.models.hyperparameters import Count, Cutoff, Width
from mdpot.radial import cosine_envelope, gaussian, message_envelope, polynomial_envelope


class ET(Backbone):
    """The equivariant transformer as a backbone for potentials and properties.

    An atom has scalars h_i and vectors x_i [3, width]. With d_ij the distance from atom i to its neighbor j, u_ij the
    direction to it, e_ij radial functions exp(-β (exp(-α d) - μ)²), c_ij an envelope, and an atom its own neighbor too:

        h_i = W (h_i, Σ_j≠i c_ij (D e_ij) · embedding'[z_j])                             (eqs. 2, 3)
        a_ij = c_ij silu(Σ_head q_i · k_j · silu(D_k e_ij))                              (eqs. 5, 6)
        s_ij, y_ij, w_ij = v_j · silu(D_v e_ij)                                          (eqs. 7, 8)
        o1_i, o2_i, o3_i = O Σ_j a_ij s_ij                                               (eq. 9)
        Δh_i = o2_i · ⟨U1 x_i, U2 x_i⟩ + o3_i                                            (eq. 10)
        Δx_i = o1_i · U3 x_i + Σ_j c_ij (y_ij · x_j + w_ij u_ij)                         (eqs. 11, 12)

    with q, k and v linear in the normalized h; x starts at zero. In the paper c_ij is a cosine, whose forces have a
    kink at the cutoff, and the last sum has none, so that energies jump there; ours is smoother and everywhere.

    Args:
        n_elements: number of chemical elements.
        cutoff: Å.
        width: features per atom, and vectors.
        layers: number of attention layers.
        heads: of the attention; they share the width evenly.
        n_basis: radial functions, trained.
        smooth: whether every message has the smoother envelope; without it the published network.

    Raises:
        MdpotError: a width that the heads cannot share.
    """

    per_element = ("neighbor_embedding.weight",)

    def __init__(
        self,
        n_elements: int,
        cutoff: Cutoff = 5.0,
        width: Width = 128,
        layers: Count = 8,
        heads: Count = 8,
        n_basis: Count = 50,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise MdpotError(f"width must be a multiple of heads, {heads}; got {width}.")
        self.cutoff = cutoff
        self.n_features = width
        self.smooth = smooth
        first = math.exp(-cutoff)
        self.means = nn.Parameter(torch.linspace(first, 1.0, n_basis))
        self.betas = nn.Parameter(torch.full([n_basis], (2.0 / n_basis * (1.0 - first)) ** -2))
        self.neighbor_embedding = nn.Embedding(n_elements, width)
        self.neighbor_filter = nn.Linear(n_basis, width)
        self.combine = nn.Linear(2 * width, width)
        self.layers = nn.ModuleList([EquivariantAttention(width, heads, n_basis, n == 0) for n in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, width)
        initialize(self)

    def forward(
        self, h: Tensor, species: Tensor, edge_index: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and gated vectors as the vector; the arguments are those of `Backbone`.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3] (zeros unless `direct`).
        """
        n_atoms, n_edges = h.shape[0], vectors.shape[0]
        distance = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        # Every atom is its own neighbor, at no distance and in no direction.
        own = torch.arange(n_atoms, device=h.device)
        i, j = torch.cat([edge_index[0], own]), torch.cat([edge_index[1], own])
        direction = torch.cat([vectors / distance, vectors.new_zeros([n_atoms, 3])])
        distance = torch.cat([distance, distance.new_zeros([n_atoms, 1])])
        smooth, cosine = polynomial_envelope(distance, self.cutoff), cosine_envelope(distance, self.cutoff)
        envelope = smooth if self.smooth else cosine
        basis = envelope * gaussian(self.betas * (torch.exp(distance * (-5.0 / self.cutoff)) - self.means).square())
        filters = self.neighbor_filter(basis[:n_edges]) * envelope[:n_edges]
        filters = filters * self.neighbor_embedding(species).index_select(0, edge_index[1])
        around = torch.zeros_like(h).index_add(0, edge_index[0], filters)
        h = self.combine(torch.cat([h, around], dim=1))
        spread = message_envelope(distance, self.cutoff, self.smooth)
        x = h.new_zeros([n_atoms, 3, h.shape[1]])
        for layer in self.layers:
            h, x = layer(h, x, i, j, basis, envelope, spread, direction)
        h = self.norm(h)
        vector = h.new_zeros([n_atoms, 3])
        if direct:
            vector = (x * self.gate(h).unsqueeze(1)).sum(-1)
        return h, vector


class EquivariantAttention(nn.Module):
    """One layer of `ET`; see there for the equations."""

    def __init__(self, width: int, heads: int, n_basis: int, is_first: bool) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, 3 * width)  # head by head s, y and w
        self.key_filter = nn.Linear(n_basis, width)
        self.value_filter = nn.Linear(n_basis, 3 * width)
        self.out = nn.Linear(width, 3 * width)
        # U1, U2 and U3; in the first layer there are no vectors yet.
        self.vectors = None if is_first else nn.Linear(width, 3 * width, bias=False)
        self.activation = SiLU()

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        i: Tensor,
        j: Tensor,
        basis: Tensor,
        envelope: Tensor,
        spread: Tensor,
        direction: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """h [n_atoms, width] and x [n_atoms, 3, width] after this layer.

        Args:
            h: [n_atoms, width].
            x: [n_atoms, 3, width].
            i, j: [n_edges] int64, atom and neighbor.
            basis: [n_edges, n_basis].
            envelope: [n_edges, 1], of the attention.
            spread: [n_edges, 1], envelope of the vectors.
            direction: [n_edges, 3], unit vectors; zero from an atom to itself.
        """
        normed = self.norm(h)
        by_head = [-1, self.heads, self.width // self.heads]
        queries = self.query(normed).index_select(0, i)
        keys = self.key(normed).index_select(0, j) * self.activation(self.key_filter(basis))
        attention = self.activation((queries * keys).view(by_head).sum(-1)) * envelope
        values = self.value(normed).index_select(0, j) * self.activation(self.value_filter(basis))
        s, y, w = values.view([-1, self.heads, 3 * by_head[2]]).split(by_head[2], 2)
        total = torch.zeros_like(h).index_add(0, i, (s * attention.unsqueeze(2)).flatten(1))
        y, w = y.flatten(1) * spread, w.flatten(1) * spread
        sent = x.index_select(0, j) * y.unsqueeze(1) + direction.unsqueeze(2) * w.unsqueeze(1)
        o1, o2, o3 = self.out(total).split(self.width, 1)
        h, y = h + o3, x + torch.zeros_like(x).index_add(0, i, sent)
        vectors = self.vectors
        if vectors is None:
            return h, y
        first, second, third = vectors(x).split(self.width, 2)
        return h + (first * second).sum(1) * o2, y + third * o1.unsqueeze(1)
