"""A property: one number of the whole structure."""

from __future__ import annotations

import torch

from mdpot.heads import PropertyModel
from mdpot.training.data.store import Batch
from mdpot.training.objectives.labels import errors_to_log, penalty
from mdpot.training.objectives.objective import Prediction, Score, sum_of
from mdpot.training.schema import LabelStage


class PropertyTarget:
    """Predict a property; what is scored is its error over the spread of the training targets.

    Args:
        config: loss of the stage.
        model: what is trained; its name, mean and scale are those of the target.
    """

    def __init__(self, config: LabelStage, model: PropertyModel) -> None:
        self.config = config
        self.name, self.mean, self.scale = model.name, model.mean, model.scale
        self.outputs: list[str] = []

    def at(self, done: float) -> PropertyTarget:
        return self

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Batch]:
        return batch, batch

    def score(self, prediction: Prediction, target: Batch) -> Score:
        there, label = target.gaps(self.name), target.labels[self.name]
        normalized = prediction["normalized"]
        error = normalized - ((label - self.mean) / self.scale).to(normalized.dtype)
        numbers = errors_to_log("property", prediction["property"] - label, there, unit=1.0)
        return Score({"property": sum_of(penalty(self.config, error), there)}, numbers)
