"""Labels: energies, forces and stress, each of the frames that have it."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from mdpot.training.data.store import Batch
from mdpot.training.objectives.objective import Prediction, mean_of
from mdpot.training.schema import LabelStage
from mdpot.units import MEV

SECOND_STAGE = 0.75
"""Share of the steps after which `second_energy_weight` holds."""


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
        logs["loss"] = mean_of(loss.detach() * sizes.numel(), sizes.numel())
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
        logs[f"{name}_mae"] = mean_of(errors.abs().sum() / MEV, errors.numel())
        if squares:
            logs[f"{name}_mse"] = mean_of(errors.square().sum() / MEV**2, errors.numel())
