"""What a network is trained to predict, and how the prediction is scored."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mdpot.training.data.store import Batch
from mdpot.training.masking import MaskTarget, mask_molecules
from mdpot.training.schema import FinetuneConfig, PretrainConfig
from mdpot.units import MEV

Prediction = dict[str, Tensor]


class Objective(Protocol):
    """A training objective: any of them works with any model.

    Attributes:
        name: for logs.
        direct: whether the prediction needs the vector head of the backbone.
        stress: whether it needs the stress.
    """

    name: str
    direct: bool
    stress: bool

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Any]:
        """The batch the network sees, and what it is to predict of it."""
        ...

    def loss(self, prediction: Prediction, target: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (scalar), and numbers for the log, each as (sum, count) in a tensor [2]; "loss" is among them."""
        ...


def predicted_vector(prediction: Prediction, direct: bool) -> Tensor:
    """The per-atom vector [n_atoms, 3] of a pretraining task: the vector head, or -∂E/∂x."""
    return prediction["vector"] if direct else prediction["forces"]


class MaskedAtoms:
    """Predict, for each atom of a molecule that lost one, the direction to the lost atom (eqs. 4, 5 of the paper).

    Args:
        config: ratio, element, vector and loss of the recipe's pretraining stage.
    """

    name = "mask"
    stress = False

    def __init__(self, config: PretrainConfig) -> None:
        self.ratio = config.ratio
        self.element = atomic_numbers[config.element]
        self.direct = config.vector == "direct"
        self.over_all = config.loss == "all"

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, MaskTarget]:
        return mask_molecules(batch, self.ratio, self.element, generator)

    def loss(self, prediction: Prediction, target: MaskTarget) -> tuple[Tensor, dict[str, Tensor]]:
        vector = predicted_vector(prediction, self.direct)[target.atoms]
        per_atom = cosine_similarity(vector, target.displacements)
        n_marked = per_atom.numel()
        if n_marked == 0:
            loss = prediction["interaction"].sum() * 0.0  # it has a gradient whatever the batch is
        elif self.over_all:
            loss = 1.0 - cosine_similarity(vector.flatten(), target.displacements.flatten())  # eq. 5
        else:
            loss = 1.0 - per_atom.mean()
        return loss, {
            "loss": _mean(loss.detach() * n_marked, n_marked),
            "cosine": _mean(per_atom.detach().sum(), n_marked),
            "share_masked": _mean(target.share, 1),
        }


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """a · b / (|a| |b|) over the last dimension, 0 where a vector vanishes; its gradient is finite there too."""
    dot = (a * b).sum(-1)
    return dot / (a.square().sum(-1) + 1e-12).sqrt() / (b.square().sum(-1) + 1e-12).sqrt()


class Labels:
    """Energies, forces and, where a frame has one, stress.

    Args:
        config: loss and weights of the recipe's finetuning stage.
        has_stress: whether any training frame carries a stress.
    """

    name = "labels"
    direct = False

    def __init__(self, config: FinetuneConfig, has_stress: bool = False) -> None:
        self.config = config
        self.stress = has_stress and config.stress_weight > 0

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Batch]:
        return batch, batch

    def loss(self, prediction: Prediction, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        sizes = torch.bincount(target.graph.system, minlength=target.graph.n_systems)
        energy_error = prediction["interaction"] - target.interaction.to(prediction["interaction"].dtype)
        per_atom = energy_error / sizes
        scored = per_atom if config.energy_per == "atom" else energy_error
        force_error = prediction["forces"] - target.forces
        loss = config.energy_weight * self._penalty(scored).mean()
        loss = loss + config.force_weight * self._penalty(force_error).mean()
        logs = {
            "energy_mae": _mean(per_atom.detach().abs().sum() / MEV, per_atom.numel()),
            "force_mae": _mean(force_error.detach().abs().sum() / MEV, force_error.numel()),
            "force_mse": _mean(force_error.detach().square().sum() / MEV**2, force_error.numel()),
        }
        if self.stress:
            labelled = ~torch.isnan(target.stress).flatten(1).any(1)
            stress_error = (prediction["stress"] - target.stress)[labelled]
            if stress_error.numel():
                loss = loss + config.stress_weight * self._penalty(stress_error).mean()
                logs["stress_mae"] = _mean(stress_error.detach().abs().sum() / MEV, stress_error.numel())
        logs["loss"] = _mean(loss.detach() * sizes.numel(), sizes.numel())
        return loss, logs

    def _penalty(self, error: Tensor) -> Tensor:
        zero = torch.zeros_like(error)
        if self.config.loss == "l1":
            return error.abs()
        if self.config.loss == "l2":
            return error.square()
        return torch.nn.functional.huber_loss(error, zero, reduction="none", delta=self.config.huber_delta)


def _mean(total: Tensor, count: int) -> Tensor:
    """A (sum, count) pair [2], so that means over batches of different size are exact."""
    return torch.stack([total.double(), torch.full_like(total, float(count), dtype=torch.float64)])
