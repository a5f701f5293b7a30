"""Tide: per-atom moments of the neighbors, multiplied into many-body features. The default architecture."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError, unknown
from mdpot.models.activation import SiLU
from mdpot.models.angular import (
    MAX_ORDER,
    MAX_SENT_ORDER,
    harmonics,
    message_paths,
    message_table,
    monomials,
    product_paths,
    product_table,
)
from mdpot.models.backbone import Backbone
from mdpot.models.hyperparameters import Count, Cutoff, Neighbors, Order, SentOrder, Width
from mdpot.models.slots import pad_neighbors
from mdpot.radial import polynomial_envelope

SIZES = {
    "small": {"width": 32, "channels": 8, "layers": 2, "order": 2, "n_radial": 6},
    "medium": {"width": 64, "channels": 16, "layers": 2, "order": 2, "n_radial": 8},
    "large": {"width": 128, "channels": 32, "layers": 3, "order": 2, "n_radial": 8},
}
"""Named sizes; every hyperparameter can be given on its own as well."""


def sizes(size: str, **given: int | None) -> dict[str, int]:
    """The hyperparameters of a named size, with those that are given in their place.

    Raises:
        MdpotError: an unknown size.
    """
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    return SIZES[size] | {name: value for name, value in given.items() if value is not None}


class Tide(Backbone):
    """An equivariant network that does its work per atom, not per edge.

    With v_ij the vector from atom i to its neighbor j, d_ij its length, u_ij its direction, Y_l the real spherical
    harmonics, R_bl learned combinations of Bessel functions times an envelope that is zero at the cutoff, an atom has
    scalars h_i and features x_i of angular momentum l = 1 … order. One layer, n the average number of neighbors:

        A_i = 1/√n Σ_j R_bl(d_ij) Y_l(u_ij) ⊗ (W h_j, W_l x_j[l])     moments of the neighborhood
        s_i, y_i = linear(A_i);  y_i ← y_i + x_i                      mixed over radial functions and channels
        y_i ← y_i / √(1 + ⟨y_i²⟩)                                     no growth where atoms come too close
        B_i = y_i ⊗ y_i,  I_i = y_i · y_i,  J_i = (y_i ⊗ y_i) · y_i   three- and four-body products
        Δh_i, g_i = MLP(h_i, s_i, I_i, J_i)
        h_i ← h_i + Δh_i;  x_i = g_i (y_i, B_i)

    Of x_j neighbors send l = 1 … `sent_order`. The sum over neighbors is one matrix product per atom. It has few
    channels, its radial functions do not depend on the atoms, and they are the same in all layers: the linear map that
    follows sees every combination of them, so nothing as wide as the features is ever computed for an edge. The first
    layer is the atomic cluster expansion up to four-body terms (Drautz, Phys. Rev. B 99, 014104, 2019), the later ones
    pass messages (Batatia et al., MACE, NeurIPS 2022); gates as in PaiNN (Schütt et al., ICML 2021).

    Args:
        cutoff: Å.
        size: values for the next five where they are not given.
        width: features per atom.
        channels: features that each neighbor sends.
        layers: number of message-passing steps.
        order: largest angular momentum.
        n_radial: radial functions for each angular momentum.
        hidden: width of the hidden layer of the MLPs, by default twice `width`.
        n_basis: Bessel functions they are made of.
        avg_neighbors: average number of neighbors per atom in the training data, for normalization.
        sent_order: largest angular momentum of the features that neighbors send, from the second layer on.

    Raises:
        MdpotError: an unknown size, an order out of range, or a `sent_order` above it.
    """

    angular: Tensor
    frequencies: Tensor
    products: Tensor
    messages: Tensor
    rows: Tensor
    monomial: Tensor
    axis: Tensor
    first: Tensor
    second: Tensor

    def __init__(
        self,
        cutoff: Cutoff = 4.0,
        size: Literal["small", "medium", "large"] = "small",
        width: Width | None = None,
        channels: Width | None = None,
        layers: Count | None = None,
        order: Order | None = None,
        n_radial: Count | None = None,
        hidden: Width | None = None,
        n_basis: Count = 8,
        avg_neighbors: Neighbors = 25.0,
        sent_order: SentOrder = 1,
    ) -> None:
        super().__init__()
        chosen = sizes(size, width=width, channels=channels, layers=layers, order=order, n_radial=n_radial)
        width, channels, layers = chosen["width"], chosen["channels"], chosen["layers"]
        order, n_radial = chosen["order"], chosen["n_radial"]
        hidden = 2 * width if hidden is None else hidden
        if not 1 <= order <= MAX_ORDER:
            raise MdpotError(f"order must be between 1 and {MAX_ORDER}; got {order}.")
        most = min(order, MAX_SENT_ORDER)
        if not 1 <= sent_order <= most:
            raise MdpotError(f"sent_order must be between 1 and {most} where order is {order}; got {sent_order}.")
        self.cutoff = cutoff
        self.n_features = width
        self.order, self.sent_order, self.n_radial, self.n_basis = order, sent_order, n_radial, n_basis
        self.norm = math.sqrt(2.0 * cutoff / max(avg_neighbors, 1.0))
        self.radial = nn.Parameter(torch.randn((order + 1) * n_radial, n_basis) / math.sqrt(n_basis))
        self.layers = nn.ModuleList(
            [
                TideLayer(width, channels, n_radial, order, sent_order, hidden, n == 0, n == layers - 1)
                for n in range(layers)
            ]
        )
        self.gate = nn.Linear(width, width)
        self._set_constants()

    @classmethod
    def features(cls, hyperparameters: Mapping[str, Any]) -> int:
        return sizes(hyperparameters["size"], width=hyperparameters["width"])["width"]

    def _set_constants(self) -> None:
        """Tables in the precision of the weights: converted to float64, those of float32 would not be exact."""
        weight = self.radial
        angular = harmonics(self.order).repeat_interleave(self.n_radial, 0)
        frequencies = torch.arange(1, self.n_basis + 1, dtype=torch.float64).unsqueeze(1) * (math.pi / self.cutoff)
        first, second, products = product_table(self.order)
        floats = {
            "angular": angular,
            "frequencies": frequencies,
            "products": products,
            "messages": message_table(self.order, self.sent_order),
        }
        momenta = [degree for degree in range(self.order + 1) for _ in range(2 * degree + 1)]
        rows = [degree * self.n_radial + b for degree in momenta for b in range(self.n_radial)]
        _, monomial, axis = monomials(self.order)
        indices = {"rows": rows, "monomial": monomial, "axis": axis, "first": first, "second": second}
        for name, table in floats.items():
            self.register_buffer(name, table.to(weight.device, weight.dtype), persistent=False)
        for name, index in indices.items():
            table = torch.tensor(index, dtype=torch.int64, device=weight.device)
            self.register_buffer(name, table, persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._set_constants()
        return self

    def forward(
        self, h: Tensor, species: Tensor, edge_index: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Per-atom features, and a per-atom vector; the arguments are those of `Backbone`.

        Returns:
            features [n_atoms, width] and vector [n_atoms, 3] (zeros unless `direct`).
        """
        n_atoms = species.shape[0]
        slots, neighbors = pad_neighbors(edge_index, vectors, self.cutoff, n_atoms)
        # Empty slots hold a neighbor at the cutoff, where every function of the distance is zero.
        empty = vectors.new_zeros([1, 3])
        empty[0, 0] = self.cutoff
        filled = torch.cat([vectors, empty]).index_select(0, slots.flatten())
        return self.padded(h, species, neighbors.view_as(slots), filled.view(n_atoms, slots.shape[1], 3), direct)

    def padded(
        self, h: Tensor, species: Tensor, neighbors: Tensor, vectors: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """`forward` of a table of neighbors; the arguments are those of `Backbone.padded`."""
        n_atoms, n_slots = neighbors.shape
        basis = self.basis(vectors.reshape(n_atoms * n_slots, 3).t().contiguous())
        basis = basis.view(-1, n_atoms, n_slots).transpose(0, 1).contiguous()
        neighbors = neighbors.flatten()
        x = h.new_zeros([0])
        for layer in self.layers:
            h, x = layer(h, x, neighbors, basis, self.messages, self.first, self.second, self.products)
        vector = h.new_zeros([n_atoms, 3])
        if direct:
            vector = (x[:3] * self.gate(h)).sum(-1).t()
        return h, vector

    def basis(self, vectors: Tensor) -> Tensor:
        """R_bl(d) Y_lm(u) of vectors [3, n], Å, as [(order + 1)^2 n_radial, n], rows by l, m, then b.

        Neighbors go along the last dimension, where elementwise operations are fastest.
        """
        distance = vectors.square().sum(0, keepdim=True).sqrt()
        direction = vectors / distance
        envelope = polynomial_envelope(distance, self.cutoff) * (self.norm / distance)
        bessel = torch.sin(self.frequencies * distance) * envelope
        powers, start = torch.cat([torch.ones_like(distance), direction]), 0
        for degree in range(2, self.order + 1):
            stop = start + (degree + 1) * (degree + 2) // 2
            axis = powers.index_select(0, self.axis[start:stop])
            powers = torch.cat([powers, axis * powers.index_select(0, self.monomial[start:stop])])
            start = stop
        return (self.radial.index_select(0, self.rows) @ bessel) * (self.angular @ powers)


class TideLayer(nn.Module):
    """One layer of `Tide`; see there for the equations.

    Features x and y are [(order + 1)^2 - 1, n_atoms, width], rows by l, m from l = 1. The first layer has only scalars
    to send and no x to add; the last one returns y for x.
    """

    outputs: list[int]
    in_invariants: list[bool]
    send_tensor: Tensor | None

    def __init__(
        self,
        width: int,
        channels: int,
        n_radial: int,
        order: int,
        sent_order: int,
        hidden: int,
        is_first: bool,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.is_first, self.is_last, self.order = is_first, is_last, order
        self.width, self.channels, self.n_radial = width, channels, n_radial
        degrees = range(order + 1)
        self.sent_rows = (sent_order + 1) ** 2
        self.paths = [1 if is_first else len(message_paths(order, degree, sent_order)) for degree in degrees]
        self.moment_rows = [n * (2 * degree + 1) for degree, n in enumerate(self.paths)]
        self.momenta = [2 * degree + 1 for degree in degrees[1:]]
        self.outputs = [l3 for _, _, l3 in product_paths(order)]
        self.in_invariants = [l2 <= l3 for _, l2, l3 in product_paths(order)]
        self.product_rows = [order] + [2 * l3 + 1 for l3 in self.outputs]

        self.send = nn.Linear(width, channels)
        nn.init.normal_(self.send.weight, std=width**-0.5)
        self.send_vector = nn.Parameter(torch.randn(width, 0 if is_first else channels) / math.sqrt(width))
        # Absent, not empty: the weights of a network that sends no l = 2 are those that files of before hold.
        sends_tensor = sent_order > 1 and not is_first
        tensor = nn.Parameter(torch.randn(width, channels) / math.sqrt(width)) if sends_tensor else None
        self.register_parameter("send_tensor", tensor)
        fan_in = n_radial * channels
        weights = [torch.randn(n, fan_in, width) / math.sqrt(n * fan_in) for n in self.paths]
        self.mix = nn.Parameter(torch.cat(weights))
        n_in = 2 + order + sum(self.in_invariants)
        n_out = 1 if is_last else 1 + order + len(self.outputs)
        self.mlp = nn.Sequential(nn.Linear(n_in * width, hidden), SiLU(), nn.Linear(hidden, n_out * width))

    def forward(
        self,
        h: Tensor,
        x: Tensor,
        neighbors: Tensor,
        basis: Tensor,
        messages: Tensor,
        first: Tensor,
        second: Tensor,
        products: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """h [n_atoms, width] and x [(order + 1)^2 - 1, n_atoms, width] after this layer.

        Args:
            h: [n_atoms, width].
            x: as returned; [0] in the first layer.
            neighbors: [n_atoms · n_slots] int64, see `pad_neighbors`.
            basis: [n_atoms, (order + 1)^2 n_radial, n_slots], see `Tide.basis`.
            messages: [n_coupled, (order + 1)^2 (sent_order + 1)^2], see `message_table`.
            first, second: [n_pairs] int64, rows of y that are multiplied.
            products: [n_products, n_pairs], what they are coupled to, see `product_table`.
        """
        n_atoms, width = h.shape
        moments = self.moments(h, x, neighbors, basis, messages).split(self.moment_rows)
        mixed: list[Tensor] = []
        weights = self.mix.split(self.paths)
        for n, weight in enumerate(weights):
            by_path = moments[n].reshape(weight.shape[0], -1, weight.shape[1])  # with sizes of 1, strides may be odd
            mixed.append(torch.bmm(by_path, weight).sum(0).view(-1, n_atoms, width))
        y = torch.cat(mixed[1:])
        if not self.is_first:
            y = y + x
        y = y * (1.0 + y.square().sum(0).mean(-1, keepdim=True) / y.shape[0]).rsqrt()
        parts = y.split(self.momenta)
        pairs = y.index_select(0, first) * y.index_select(0, second)
        blocks = (products @ pairs.flatten(1)).view(-1, n_atoms, width).split(self.product_rows)
        inputs = [h, mixed[0].squeeze(0)]
        for invariant in blocks[0].unbind(0):
            inputs.append(invariant)
        for n, degree in enumerate(self.outputs):
            if self.in_invariants[n]:
                inputs.append((blocks[n + 1] * parts[degree - 1]).sum(0))
        out = self.mlp(torch.cat(inputs, 1))
        if self.is_last:
            return h + out, y
        gates = out.split(width, 1)
        new: list[Tensor] = []
        for n, part in enumerate(parts):
            new.append(part * gates[n + 1])
        for n, degree in enumerate(self.outputs):
            new[degree - 1] = new[degree - 1] + blocks[n + 1] * gates[n + 1 + self.order]
        return h + gates[0], torch.cat(new)

    def moments(self, h: Tensor, x: Tensor, neighbors: Tensor, basis: Tensor, messages: Tensor) -> Tensor:
        """A_i coupled to l = 0 … order: [n_rows, n_atoms · n_radial · channels], rows by l, path, m."""
        n_atoms, n_rows, n_slots = basis.shape
        b, c = self.n_radial, self.channels
        sent = self.send(h)
        if self.is_first:
            sent = sent.index_select(0, neighbors).view(n_atoms, n_slots, c)
            found = torch.bmm(sent.transpose(1, 2), basis.transpose(1, 2)).view(n_atoms, c, n_rows // b, b)
            return found.permute(2, 0, 3, 1).reshape(n_rows // b, n_atoms * b * c)
        parts = [sent.unsqueeze(0), (x[:3].reshape(3 * n_atoms, self.width) @ self.send_vector).view(3, n_atoms, c)]
        send_tensor = self.send_tensor
        if send_tensor is not None:
            parts.append((x[3:8].reshape(5 * n_atoms, self.width) @ send_tensor).view(5, n_atoms, c))
        s = self.sent_rows
        sent = torch.cat(parts).transpose(0, 1).reshape(n_atoms, s * c)
        found = torch.bmm(basis, sent.index_select(0, neighbors).view(n_atoms, n_slots, s * c))
        found = found.view(n_atoms, n_rows // b, b, s, c).permute(1, 3, 0, 2, 4)
        return messages @ found.reshape(s * n_rows // b, n_atoms * b * c)
