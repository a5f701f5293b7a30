"""A potential as the flat description that the C interface takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mdpot.heads import Potential
from mdpot.kernels import library
from mdpot.kernels.errors import NoKernel
from mdpot.models import Tide
from mdpot.models.angular import message_table, product_table
from mdpot.radial import PAIR_DECAY, WALL_STRENGTH


@dataclass(frozen=True)
class Description:
    """Sizes and constants by the names of `mdpot_tide`, and its arrays, all float64."""

    numbers: dict[str, float]
    products: np.ndarray
    weights: np.ndarray

    def structure(self) -> library.Tide:
        """What is passed to the library; valid as long as this description."""
        arrays = {name: getattr(self, name).ctypes.data for name in ("products", "weights")}
        return library.Tide(**self.numbers, **arrays, n_weights=self.weights.size)


def describe(potential: Potential) -> Description:
    """The description of a potential.

    Raises:
        NoKernel: the architecture has no kernel.
    """
    tide = getattr(potential, "backbone", potential)  # an ensemble has none of its own
    if not isinstance(tide, Tide):
        raise NoKernel(f"only Tide has fused kernels; this potential is {type(tide).__name__}.")
    first, second, table = product_table(tide.order)
    n = (tide.order + 1) ** 2 - 1
    products = np.zeros((table.shape[0], n, n))
    products[:, first, second] = table.numpy()
    fixed = [potential.wall * potential.has_wall, potential.pair * potential.has_pair, potential.shift]
    parts = [*trained_weights(potential), *fixed]
    weights = np.concatenate([part.detach().cpu().double().numpy().ravel() for part in parts])
    layer: Any = tide.layers[0]
    sizes = {
        "n_elements": len(potential.elements),
        "order": tide.order,
        "sent_order": tide.sent_order,
        "layers": len(tide.layers),
        "width": layer.width,
        "channels": layer.channels,
        "n_radial": tide.n_radial,
        "n_basis": tide.n_basis,
        "hidden": layer.mlp[0].out_features,
        "n_pair_terms": potential.pair.shape[0],
        "message_rows": message_table(tide.order, tide.sent_order).shape[0],
        "product_rows": products.shape[0],
    }
    constants = {
        "cutoff": potential.cutoff,
        "norm": tide.norm,
        "scale": potential.scale,
        "wall_strength": WALL_STRENGTH,
        "pair_decay": PAIR_DECAY,
    }
    return Description({**sizes, **constants}, products, weights)


def trained_weights(potential: Potential) -> list[Tensor]:
    """The weights of a Tide that its energies depend on, in the order of the `weights` of `mdpot_tide`."""
    tide: Any = potential.backbone
    embedding: Any = potential.embedding
    readout: Any = potential.readout
    parts: list[Tensor] = [embedding.element.weight, embedding.mark, tide.radial]
    for layer in tide.layers:
        parts += [layer.send.weight, layer.send.bias, layer.send_vector]
        parts += [] if layer.send_tensor is None else [layer.send_tensor]
        parts.append(layer.mix)
        for linear in (layer.mlp[0], layer.mlp[2]):
            parts += [linear.weight, linear.bias]
    for linear in (readout[0], readout[2]):
        parts += [linear.weight, linear.bias]
    return parts
