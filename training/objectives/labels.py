"""Labels: energies, forces and stress, each of the frames that have it."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy

import torch
from torch import Tensor

from mdpot.training.data.reading import ENERGY_AND_FORCES
from mdpot.training.data.store import INTERACTION, Batch
from mdpot.training.objectives.objective import Prediction, Score, Sum, sum_of
from mdpot.training.schema import LabelStage
from mdpot.units import MEV

SECOND_STAGE = 0.75
"""Share of the steps after which `second_energy_weight` holds."""
MANY_COMPOSITIONS = 20
"""From so many on, an energy weight of "auto" is 1; else it is 0.2."""


class Labels:
    """Energies, forces and stress, each of the frames that have it.

    Args:
        config: loss and weights of the stage.
        known: names of the labels that any training frame has.
        scale: eV, where the forces are to be learned by the network's vector head, of which one unit is worth this
            much per Å; None where they are those of the model.
        n_compositions: how many compositions the training frames have, which decides on a weight of "auto".
    """

    def __init__(
        self,
        config: LabelStage,
        known: Collection[str] = ENERGY_AND_FORCES,
        scale: float | None = None,
        n_compositions: float = 1.0,
    ) -> None:
        if config.energy_weight == "auto":
            weight = 1.0 if n_compositions >= MANY_COMPOSITIONS else 0.2
            config = config.model_copy(update={"energy_weight": weight})
        self.config, self.scale = config, scale
        forces = "forces" if scale is None else "vector"
        wanted = [("forces", config.force_weight, forces), ("stress", config.stress_weight, "stress")]
        self.outputs = ["interaction", *(output for label, weight, output in wanted if label in known and weight > 0)]

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

    def score(self, prediction: Prediction, target: Batch) -> Score:
        config = self.config
        # Where no frame has a label there still is a gradient, of zero.
        terms = {"nothing": (0.0 * prediction["interaction"].sum(), target.graph.system.new_zeros([]))}
        numbers: dict[str, Sum] = {}
        if INTERACTION in target.labels:
            sizes = torch.bincount(target.graph.system, minlength=target.graph.n_systems)
            there = target.gaps(INTERACTION)
            error = prediction["interaction"] - target.labels[INTERACTION].to(prediction["interaction"].dtype)
            per_atom = error / sizes
            terms |= self._term("energy", per_atom if config.energy_per == "atom" else error, there)
            numbers |= errors_to_log("energy", per_atom, there)
        if "forces" in target.labels and {"forces", "vector"} & set(self.outputs):
            forces = prediction["forces"] if self.scale is None else prediction["vector"] * self.scale
            there, error = target.gaps("forces"), forces - target.labels["forces"]
            terms |= self._term("force", error, there)
            numbers |= errors_to_log("force", error, there)
        if "stress" in self.outputs and "stress" in target.labels:
            there, error = target.gaps("stress"), prediction["stress"] - target.labels["stress"]
            terms |= self._term("stress", error, there)
            numbers |= errors_to_log("stress", error, there)
        return Score(terms, numbers, {label: self._weight(label) for label in terms})

    def _term(self, label: str, error: Tensor, there: Tensor | None) -> dict[str, Sum]:
        return {label: sum_of(penalty(self.config, error), there)} if self._weight(label) > 0 else {}

    def _weight(self, label: str) -> float:
        return getattr(self.config, f"{label}_weight", 1.0)


def penalty(config: LabelStage, error: Tensor) -> Tensor:
    """How errors, of any shape, are scored, one by one."""
    if config.loss == "l1":
        return error.abs()
    if config.loss == "l2":
        return error.square()
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=config.huber_delta)


def errors_to_log(label: str, errors: Tensor, there: Tensor | None, unit: float = MEV) -> dict[str, Sum]:
    """Absolute and squared errors of the rows that are there (None: all), in a unit, for the log."""
    scaled = errors.detach().double() / unit
    return {f"{label}_mae": sum_of(scaled.abs(), there), f"{label}_rmse": sum_of(scaled.square(), there)}
