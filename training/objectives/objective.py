"""The contract of every objective, and what they share."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mdpot.training.data.store import Batch

Prediction = dict[str, Tensor]


class Objective(Protocol):
    """A training objective: any of them works with any model.

    Attributes:
        direct: whether the prediction needs the vector head of the backbone.
        derivative: whether it needs -∂E/∂x, whatever the forces of the model are.
        stress: whether it needs the stress.
    """

    direct: bool
    derivative: bool
    stress: bool

    def at(self, done: float) -> Objective:
        """The objective once a share `done` of the steps is made; that at 1 validates."""
        ...

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Any]:
        """The batch the network sees, and what it is to predict of it."""
        ...

    def loss(self, prediction: Prediction, target: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (scalar), and numbers for the log, each as (sum, count) in a tensor [2]; "loss" is among them."""
        ...


def predicted_vector(prediction: Prediction, direct: bool) -> Tensor:
    """The per-atom vector [n_atoms, 3] of a pretraining task: the vector head, or -∂E/∂x."""
    return prediction["vector"] if direct else prediction["derivative"]


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """a · b / (|a| |b|) over the last dimension, 0 where a vector vanishes; its gradient is finite there too."""
    dot = (a * b).sum(-1)
    return dot / (a.square().sum(-1) + 1e-12).sqrt() / (b.square().sum(-1) + 1e-12).sqrt()


def mean_of(total: Tensor, count: int) -> Tensor:
    """A (sum, count) pair [2], so that means over batches of different size are exact."""
    return torch.stack([total.double(), torch.full_like(total, float(count), dtype=torch.float64)])
