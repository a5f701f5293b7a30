"""What a network is trained to predict, and how the prediction is scored."""

from __future__ import annotations

from copy import copy
from typing import Any, Protocol

import torch
from ase.data import atomic_numbers
from torch import Tensor

from mdpot.training.data.store import Batch
from mdpot.training.denoising import add_noise
from mdpot.training.masking import MaskTarget, mask_molecules
from mdpot.training.schema import LabelStage, PretrainConfig
from mdpot.units import MEV

Prediction = dict[str, Tensor]

SECOND_STAGE = 0.75
"""Share of the steps after which `second_energy_weight` holds."""


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


class MaskedAtoms:
    """Predict, for each atom of a molecule that lost one, the direction to the lost atom (eqs. 4, 5 of the paper).

    Args:
        config: ratio, unit, element, target, vector and cosine of the recipe's pretraining stage.
    """

    stress = False

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.element = atomic_numbers[config.element]
        self.direct, self.derivative = config.vector == "direct", config.vector == "derivative"

    def at(self, done: float) -> MaskedAtoms:
        return self

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, MaskTarget]:
        config = self.config
        return mask_molecules(batch, config.ratio, self.element, generator, config.unit, config.target)

    def loss(self, prediction: Prediction, target: MaskTarget) -> tuple[Tensor, dict[str, Tensor]]:
        vector = predicted_vector(prediction, self.direct)[target.atoms]
        per_atom = cosine_similarity(vector, target.displacements)
        n_marked = per_atom.numel()
        if n_marked == 0:
            loss = prediction["interaction"].sum() * 0.0  # it has a gradient whatever the batch is
        elif self.config.cosine == "all":
            loss = 1.0 - cosine_similarity(vector.flatten(), target.displacements.flatten())  # eq. 5
        else:
            loss = 1.0 - per_atom.mean()
        return loss, {
            "loss": _mean(loss.detach() * n_marked, n_marked),
            "cosine": _mean(per_atom.detach().sum(), n_marked),
            "share_masked": _mean(target.share, 1),
        }


class Denoising:
    """Predict the noise ξ that was added to the positions (eqs. 7, 8 of the paper).

    The network predicts the way back, -ξ, in units of σ: a force points against the noise, as -∂E/∂x of the energy
    E = -log p, of which the best prediction is the gradient, is -ξ/σ² (Vincent, Neural Computation 23, 1661, 2011); and
    so does the vector of a network that predicts forces directly. In these units the target has unit variance whatever
    σ is, and a prediction of zero costs 1: the loss is the mean squared error over all components, in σ². The mean of
    the noise over a structure, which no network can see, stays in it.

    Args:
        config: sigma and vector of the recipe's pretraining stage.
        cutoff: of the network, Å.
    """

    stress = False

    def __init__(self, config: PretrainConfig, cutoff: float) -> None:
        self.sigma, self.cutoff = config.sigma, cutoff
        self.direct, self.derivative = config.vector == "direct", config.vector == "derivative"

    def at(self, done: float) -> Denoising:
        return self

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor]:
        noisy, noise = add_noise(batch, self.sigma, self.cutoff, generator)
        return noisy, -noise

    def loss(self, prediction: Prediction, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        vector = predicted_vector(prediction, self.direct)
        squared = (vector - target).square()
        per_atom = cosine_similarity(vector, target).detach()
        # eq. 8; the second term gives it a gradient where no atom has a neighbor.
        loss = squared.mean() + 0.0 * prediction["interaction"].sum()
        return loss, {
            "loss": _mean(squared.detach().sum(), squared.numel()),
            "cosine": _mean(per_atom.sum(), per_atom.numel()),
        }


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """a · b / (|a| |b|) over the last dimension, 0 where a vector vanishes; its gradient is finite there too."""
    dot = (a * b).sum(-1)
    return dot / (a.square().sum(-1) + 1e-12).sqrt() / (b.square().sum(-1) + 1e-12).sqrt()


class Labels:
    """Energies, forces and stress, each of the frames that have it.

    Args:
        config: loss and weights of the stage.
        has_stress: whether any training frame carries a stress.
    """

    direct = derivative = False

    def __init__(self, config: LabelStage, has_stress: bool = False) -> None:
        self.config = config
        self.stress = has_stress and config.stress_weight > 0

    def at(self, done: float) -> Labels:
        """These labels, with the weights of the second stage from `SECOND_STAGE` on."""
        weight = self.config.second_energy_weight
        if weight is None or done < SECOND_STAGE:
            return self
        later = copy(self)
        later.config = self.config.model_copy(update={"energy_weight": weight})
        return later

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Batch]:
        return batch, batch

    def loss(self, prediction: Prediction, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        sizes = torch.bincount(target.graph.system, minlength=target.graph.n_systems)
        energy_error = prediction["interaction"] - target.interaction.to(prediction["interaction"].dtype)
        per_atom = energy_error / sizes
        scored = per_atom if config.energy_per == "atom" else energy_error
        force_error = prediction["forces"] - target.forces
        terms = [
            (config.energy_weight, _labeled(scored, target.energy)),
            (config.force_weight, _labeled(force_error, target.forces)),
        ]
        logs: dict[str, Tensor] = {}
        _log_errors(logs, "energy", _labeled(per_atom, target.energy).detach())
        _log_errors(logs, "force", terms[1][1].detach())
        if self.stress:
            terms.append((config.stress_weight, _labeled(prediction["stress"] - target.stress, target.stress)))
            _log_errors(logs, "stress", terms[2][1].detach(), squares=False)
        used = [weight * self._penalty(error).mean() for weight, error in terms if weight > 0 and error.numel()]
        # Without a label in the batch it still has a gradient, of zero.
        loss = torch.stack(used).sum() if used else 0.0 * prediction["interaction"].sum()
        logs["loss"] = _mean(loss.detach() * sizes.numel(), sizes.numel())
        return loss, logs

    def _penalty(self, error: Tensor) -> Tensor:
        zero = torch.zeros_like(error)
        if self.config.loss == "l1":
            return error.abs()
        if self.config.loss == "l2":
            return error.square()
        return torch.nn.functional.huber_loss(error, zero, reduction="none", delta=self.config.huber_delta)


def _labeled(error: Tensor, label: Tensor) -> Tensor:
    """The errors whose label is there: nothing is ever multiplied with an absent one, which is NaN."""
    there = ~torch.isnan(label).flatten(1).any(1) if label.dim() > 1 else ~torch.isnan(label)
    return error if bool(there.all()) else error[there]


def _log_errors(logs: dict[str, Tensor], name: str, errors: Tensor, squares: bool = True) -> None:
    """Adds absolute and squared errors, in meV of whatever unit, where there are any."""
    if errors.numel():
        logs[f"{name}_mae"] = _mean(errors.abs().sum() / MEV, errors.numel())
        if squares:
            logs[f"{name}_mse"] = _mean(errors.square().sum() / MEV**2, errors.numel())


def pretraining_objective(config: PretrainConfig, cutoff: float, has_stress: bool = False) -> Objective:
    """The objective of a pretraining stage.

    Args:
        config: the recipe's pretraining stage; not "none".
        cutoff: of the network, Å.
        has_stress: whether any training frame carries a stress to learn.
    """
    if config.objective == "forcefield":
        return Labels(config, has_stress)
    return Denoising(config, cutoff) if config.objective == "denoise" else MaskedAtoms(config)


def _mean(total: Tensor, count: int) -> Tensor:
    """A (sum, count) pair [2], so that means over batches of different size are exact."""
    return torch.stack([total.double(), torch.full_like(total, float(count), dtype=torch.float64)])
