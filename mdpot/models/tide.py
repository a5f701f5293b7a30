"""Tide: tensor moments of the neighborhood, invariants of high body order, almost all work per atom.

Our own equivariant network. What costs in other equivariant networks is work of the network's width on every edge; here
an edge carries a few radial functions times spherical harmonics, and one batched product per layer gathers them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdpot.models.activation import SiLU

S3 = math.sqrt(3.0)
N_HARMONICS = 9  # l = 0, 1, 2


class Tide(nn.Module):
    """Moments Σ_j R(d_ij) Y_lm(r_ij) ⊗ p_j of what the neighbors send, coupled, multiplied, and fed to an MLP per atom.

    With harmonics Y_l of l = 0, 1, 2 (a scalar, a vector v, a traceless symmetric matrix q), radial functions
    R_lr = Σ_n w_lrn bessel_n(d) envelope(d), and features h (scalars) and x (vectors and matrices), a layer does

        p_j = linear(h_j), linear(x_j)                       what atom j sends: few scalars and vectors
        A_i = Σ_j R_lr(d_ij) Y_lm(r_ij) ⊗ p_j                moments, by one product over padded neighbor lists
        s, v, q = linear(couple(A_i))                        coupled to l = 0, 1, 2 and mixed over r and p
        h_i ← h_i + MLP(h_i, s, v·v, q:q, v·q·v, q:q·q)      invariants of up to five bodies
        x_i ← gates · (v, q·v), gates · (q, v⊗v, q·q)        products as tensors for the next layer

    Ideas from PaiNN (Schütt et al., ICML 2021), MACE (Batatia et al., NeurIPS 2022), CACE (Cheng, npj Comput. Mater. 2024)
    and TensorNet (Simeon and De Fabritiis, NeurIPS 2023). Edges must be sorted by central atom.

    Args:
        n_elements: number of chemical elements.
        cutoff: Å.
        width: features per atom, and as many vectors and matrices.
        layers: number of message-passing steps.
        channels: scalars, and as many vectors, that an atom sends.
        n_radial: radial functions for each l.
        n_basis: Bessel functions they are made of.
        hidden: width of the MLP's hidden layer.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.
    """

    conservative: bool = True

    def __init__(
        self,
        n_elements: int,
        cutoff: float = 4.0,
        width: int = 32,
        layers: int = 2,
        channels: int = 8,
        n_radial: int = 6,
        n_basis: int = 8,
        hidden: int = 64,
        avg_neighbors: float = 25.0,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.n_features = width
        self.n_radial, self.n_basis = n_radial, n_basis
        self.norm = math.sqrt(2.0 * cutoff / max(avg_neighbors, 1.0))
        self.embedding = nn.Embedding(n_elements, width)
        self.mark = nn.Parameter(0.5 * torch.randn(width))
        self.radial = nn.Parameter(torch.randn(3 * n_radial, n_basis) / math.sqrt(n_basis))
        self.layers = nn.ModuleList(
            [TideLayer(width, channels, n_radial, hidden, n == 0, n == layers - 1) for n in range(layers)]
        )
        self.gate = nn.Linear(width, width)
        for name in ("harmonics", "coupling", "products"):
            self.register_buffer(name, torch.zeros(0), persistent=False)
        rows = [n + degree * n_radial for degree in (0, 1, 1, 1, 2, 2, 2, 2, 2) for n in range(n_radial)]
        self.register_buffer("radial_row", torch.tensor(rows), persistent=False)
        self.register_buffer("pair_a", torch.triu_indices(3, 3)[0], persistent=False)
        self.register_buffer("pair_b", torch.triu_indices(3, 3)[1], persistent=False)
        a, b = product_pairs()
        self.register_buffer("factor_a", a, persistent=False)
        self.register_buffer("factor_b", b, persistent=False)
        self._fill_tables()

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._fill_tables()  # anew in the new dtype, because √3 rounded to float32 is wrong in float64
        return self

    def _fill_tables(self) -> None:
        like = self.mark.detach()
        self.harmonics = harmonic_table().repeat_interleave(self.n_radial, 0).to(like)
        self.coupling = coupling_table().to(like)
        self.products = product_table().to(like)

    def forward(
        self, species: Tensor, edge_index: Tensor, vectors: Tensor, marks: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and a gated sum of the last layer's vectors as the per-atom vector.

        Args:
            species: [n_atoms] int64, index into the elements.
            edge_index: [2, n_edges] int64, sorted by the first row.
            vectors: [n_edges, 3], Å, from atom i to its neighbor j.
            marks: [n_atoms], 1 for atoms whose molecule lost an atom to the mask, else 0.
            direct: whether the per-atom vector is wanted.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3] (zeros unless `direct`).
        """
        n_atoms = species.shape[0]
        slots, most = neighbor_slots(edge_index[0], n_atoms)
        # Empty slots hold a neighbor at the cutoff, where the envelope is zero.
        nowhere = torch.zeros([1, 3], dtype=vectors.dtype, device=vectors.device)
        nowhere[0, 0] = self.cutoff
        r = torch.cat([vectors, nowhere]).index_select(0, slots).t().contiguous()  # [3, n_slots]
        neighbor = torch.cat([edge_index[1], edge_index.new_zeros([1])]).index_select(0, slots)
        filters = self.filters(r).view(-1, n_atoms, most).transpose(0, 1).contiguous()

        h = self.embedding(species) + marks.to(vectors.dtype).unsqueeze(-1) * self.mark
        x = vectors.new_zeros([8, n_atoms, self.n_features])
        for layer in self.layers:
            h, x = layer(
                h, x, neighbor, filters, self.coupling, self.products, self.factor_a, self.factor_b
            )
        vector = vectors.new_zeros([n_atoms, 3])
        if direct:
            vector = (x[:3] * self.gate(h)).sum(-1).t()
        return h, vector

    def filters(self, r: Tensor) -> Tensor:
        """R_lr(d) Y_lm for neighbor vectors r [3, n_slots]: [9 n_radial, n_slots], harmonics slowest."""
        d = r.square().sum(0, keepdim=True).sqrt()
        unit = r / d
        x = (d / self.cutoff).clamp(max=1.0)
        x3 = x * x * x
        envelope = (1.0 - x3 * x3 * (28.0 - x * (48.0 - 21.0 * x))) / d * self.norm
        n = torch.arange(1, self.n_basis + 1, device=r.device, dtype=r.dtype).unsqueeze(1)
        basis = torch.sin(d * (n * (math.pi / self.cutoff))) * envelope
        pairs = unit.index_select(0, self.pair_a) * unit.index_select(0, self.pair_b)
        monomials = torch.cat([torch.ones_like(d), unit, pairs])
        return (self.radial.index_select(0, self.radial_row) @ basis) * (self.harmonics @ monomials)


class TideLayer(nn.Module):
    """One step of Tide; see there for the equations and the arguments.

    The first layer has only scalars to send; the last has no tensors to pass on.
    """

    def __init__(self, width: int, channels: int, n_radial: int, hidden: int, first: bool, last: bool) -> None:
        super().__init__()
        self.width, self.channels, self.n_radial = width, channels, n_radial
        self.first, self.last = first, last
        self.send = nn.Linear(width, channels)
        nn.init.normal_(self.send.weight, std=width**-0.5)
        rows = 0 if first else width
        self.send_vectors = nn.Parameter(torch.randn(rows, channels) / math.sqrt(width))
        paths = (1, 1, 1) if first else (2, 3, 2)
        n = n_radial * channels
        self.mix = nn.ParameterList([torch.randn(p, n, width) / math.sqrt(p * n) for p in paths])
        self.mlp = nn.Sequential(
            nn.Linear(6 * width, hidden), SiLU(), nn.Linear(hidden, width if last else 6 * width)
        )

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        neighbor: Tensor,
        filters: Tensor,
        coupling: Tensor,
        products: Tensor,
        factor_a: Tensor,
        factor_b: Tensor,
    ) -> tuple[Tensor, Tensor]:
        n = h.shape[0]
        s, y = self.moments(h, x, neighbor, filters, coupling)
        pairs = (y.index_select(0, factor_a) * y.index_select(0, factor_b)).flatten(1)
        vv, qq, qv, vv2, qq2 = (products @ pairs).view(15, n, self.width).split([1, 1, 3, 5, 5])
        v, q = y.split([3, 5])
        invariants = [h, s, vv[0], qq[0], (qv * v).sum(0), (qq2 * q).sum(0)]
        out = self.mlp(torch.cat(invariants, 1))
        if self.last:
            return h + out, y
        dh, g1, g2, g3, g4, g5 = out.split(self.width, 1)
        return h + dh, torch.cat([v * g1 + qv * g2, q * g3 + vv2 * g4 + qq2 * g5])

    def moments(
        self, h: Tensor, x: Tensor, neighbor: Tensor, filters: Tensor, coupling: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars s [n_atoms, width] and tensors y [8, n_atoms, width] (vector, then matrix) from the neighbors."""
        n, k, p, r = h.shape[0], filters.shape[2], self.channels, self.n_radial
        sent = self.send(h)
        if self.first:
            got = sent.index_select(0, neighbor).view(n, k, p)
            a = torch.bmm(got.transpose(1, 2), filters.transpose(1, 2)).view(n, p, 9, r)
            s, v, q = a.permute(2, 0, 1, 3).reshape(9 * n, p * r).split([n, 3 * n, 5 * n])
            return s @ self.mix[0][0], torch.cat([v @ self.mix[1][0], q @ self.mix[2][0]]).view(8, n, self.width)
        vectors = (x[:3].reshape(3 * n, self.width) @ self.send_vectors).view(3, n, p)
        sent = torch.cat([sent.unsqueeze(0), vectors]).transpose(0, 1).reshape(n, 4 * p)
        a = torch.bmm(filters, sent.index_select(0, neighbor).view(n, k, 4 * p)).view(n, 9, r, 4, p)
        coupled = coupling @ a.permute(1, 3, 0, 2, 4).reshape(36, n * r * p)
        s, v, q = coupled.split([2, 9, 10])
        s = torch.bmm(s.reshape(2, n, r * p), self.mix[0]).sum(0)
        v = torch.bmm(v.reshape(3, 3 * n, r * p), self.mix[1]).sum(0)
        q = torch.bmm(q.reshape(2, 5 * n, r * p), self.mix[2]).sum(0)
        return s, torch.cat([v, q]).view(8, n, self.width) + x


def neighbor_slots(center: Tensor, n_atoms: int) -> tuple[Tensor, int]:
    """Edges laid out as a rectangle: as many slots for each atom as the atom with most neighbors needs.

    Args:
        center: [n_edges] int64, ascending.
        n_atoms: number of atoms.

    Returns:
        [n_atoms * most] int64, the edge in each slot, n_edges in empty ones; and most, at least 1.
    """
    n_edges = center.shape[0]
    counts = torch.bincount(center, minlength=n_atoms)
    most = max(int(counts.max()), 1)
    edges = torch.arange(n_edges, device=center.device)
    place = edges - (counts.cumsum(0) - counts).index_select(0, center) + center * most
    slots = torch.full([n_atoms * most], n_edges, dtype=torch.int64, device=center.device)
    return slots.index_copy(0, place, edges), most


def matrix_basis() -> Tensor:
    """Q [5, 3, 3]: symmetric traceless matrices with Y_2m(u) = u·Q_m u and Σ_m Y_2m² = 1 for unit vectors."""
    q = torch.zeros(5, 3, 3, dtype=torch.float64)
    for m, (a, b) in enumerate(((0, 1), (1, 2), (2, 0))):
        q[m, a, b] = q[m, b, a] = S3 / 2
    q[3] = torch.diag(torch.tensor([S3 / 2, -S3 / 2, 0.0], dtype=torch.float64))
    q[4] = torch.diag(torch.tensor([-0.5, -0.5, 1.0], dtype=torch.float64))
    return q


def harmonic_table() -> Tensor:
    """[9, 10]: the harmonics of l = 0, 1, 2 from the monomials 1, x, y, z, xx, xy, xz, yy, yz, zz."""
    table = torch.zeros(N_HARMONICS, 10, dtype=torch.float64)
    table[:4, :4] = torch.eye(4)
    a, b = torch.triu_indices(3, 3)
    table[4:, 4:] = matrix_basis()[:, a, b] * torch.where(a == b, 1.0, 2.0)
    return table


def coupling_table() -> Tensor:
    """[21, 36]: harmonics (9) times what is sent (a scalar s and a vector p: 4), coupled to l = 0 (Y0 s, Y1·p), l = 1
    (Y1 s, Y0 p, Y2 p) and l = 2 (Y2 s, Y1⊗p)."""
    q = matrix_basis()
    table = torch.zeros(21, N_HARMONICS, 4, dtype=torch.float64)
    table[0, 0, 0] = 1
    for a in range(3):
        table[1, 1 + a, 1 + a] = 1
        table[2 + a, 1 + a, 0] = 1
        table[5 + a, 0, 1 + a] = 1
    table[8:11, 4:, 1:] = q.permute(1, 0, 2)
    table[11:16, 4:, 0] = torch.eye(5)
    table[16:, 1:4, 1:] = q
    return table.view(21, 36)


def _products() -> Tensor:
    """[15, 8, 8]: bilinear forms of (v, q): v·v, q:q, q·v (3), and the matrices (5) of v⊗v and q·q; upper triangle."""
    q = matrix_basis()
    table = torch.zeros(15, 8, 8, dtype=torch.float64)
    table[0, :3, :3] = torch.eye(3)
    table[1, 3:, 3:] = torch.eye(5)
    table[2:5, 3:, :3] = q.permute(1, 0, 2)
    table[5:10, :3, :3] = q
    squares = torch.einsum("iab,jbc->ijac", q, q)
    table[10:, 3:, 3:] = torch.einsum("ijac,mac->mij", 0.5 * (squares + squares.transpose(2, 3)), q) / 1.5
    return (table + table.transpose(1, 2)).triu(1) + torch.diag_embed(table.diagonal(dim1=1, dim2=2))


def product_pairs() -> tuple[Tensor, Tensor]:
    """The pairs [n_pairs] of the eight components of (v, q) that occur in `product_table`."""
    used = (_products() != 0).any(0).nonzero()
    return used[:, 0].contiguous(), used[:, 1].contiguous()


def product_table() -> Tensor:
    """[15, n_pairs]: v·v, q:q, q·v, v⊗v, q·q from the products of components in `product_pairs`."""
    a, b = product_pairs()
    return _products()[:, a, b].contiguous()
