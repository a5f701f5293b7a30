"""The contract of every objective, and what they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from mdpot.training.data.store import Batch

Prediction = dict[str, Tensor]
Sum = tuple[Tensor, Tensor]
"""A sum [] and the count [] of what is in it, so that means over batches of different size are exact."""


@dataclass(frozen=True)
class Score:
    """How good a prediction is.

    Attributes:
        terms: by name, penalties and how many they are. The loss is the weighted sum of their means; penalties and
            numbers add up over batches and over processes.
        weights: of the terms; 1 where there is none.
        numbers: for the log; keys in `mdpot.training.metrics.LOGGED`; of a root mean square the sum of the squares.
    """

    terms: dict[str, Sum]
    numbers: dict[str, Sum]
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, Tensor]:
        """The numbers of penalties, by term."""
        return {name: count for name, (_, count) in self.terms.items()}

    def nothing(self) -> Score:
        """The same with sums and counts of zero."""
        terms, numbers = (
            {name: (0.0 * total, 0 * count) for name, (total, count) in pairs.items()}
            for pairs in (self.terms, self.numbers)
        )
        return Score(terms, numbers, self.weights)

    def loss(self, counts: dict[str, Tensor] | None = None) -> Tensor:
        """The loss [], to be differentiated; a term without a penalty counts zero.

        Args:
            counts: by term, if the batch is a part of a larger one: the number of penalties in all of it.
        """
        known = counts or self.counts
        means = {name: total / known[name].clamp(min=1).to(total.dtype) for name, (total, _) in self.terms.items()}
        return torch.stack([self.weights.get(name, 1.0) * mean for name, mean in means.items()]).sum()


class Objective(Protocol):
    """A training objective: any of them works with any model.

    Attributes:
        outputs: what the loss reads of the prediction, by the names of `Potential.forward`; empty for a head with one.
    """

    outputs: list[str]

    def at(self, done: float) -> Objective:
        """The objective once a share `done` of the steps is made; that at 1 validates."""
        ...

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Any]:
        """The batch the network sees, and what it is to predict of it."""
        ...

    def score(self, prediction: Prediction, target: Any) -> Score:
        """How good the prediction is; no number of it is asked from the device."""
        ...


VECTORS = {"direct": "vector", "derivative": "derivative"}
"""The output that a pretraining task predicts a per-atom vector by, for each choice of the recipe's `vector`."""


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """a · b / (|a| |b|) over the last dimension, 0 where a vector vanishes; its gradient is finite there too."""
    dot = (a * b).sum(-1)
    return dot / (a.square().sum(-1) + 1e-12).sqrt() / (b.square().sum(-1) + 1e-12).sqrt()


def sum_of(values: Tensor, there: Tensor | None = None) -> Sum:
    """The sum of values [n, ...] and how many they are.

    Args:
        values: of each row.
        there: [n] bool, the rows that count; what the others hold is not even multiplied. All of them without it.
    """
    if there is None:
        return values.sum(), torch.full([], values.numel(), dtype=torch.float64, device=values.device)
    width = values[0].numel() if len(values) else 0
    shape = [-1] + [1] * (values.dim() - 1)
    return torch.where(there.view(shape), values, 0.0).sum(), there.sum().double() * width
