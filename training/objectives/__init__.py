"""What a network is trained to predict, and how the prediction is scored; one module an objective."""

from __future__ import annotations

from collections.abc import Collection

from mdpot.training.objectives.denoising import Denoising
from mdpot.training.objectives.labels import Labels
from mdpot.training.objectives.masking import MaskedAtoms
from mdpot.training.objectives.objective import Objective, Prediction, Score
from mdpot.training.objectives.property import PropertyTarget
from mdpot.training.schema import PretrainConfig

__all__ = [
    "Denoising",
    "Labels",
    "MaskedAtoms",
    "Objective",
    "Prediction",
    "PropertyTarget",
    "Score",
    "pretraining_objective",
]


def pretraining_objective(
    config: PretrainConfig, cutoff: float, known: Collection[str] = (), scale: float = 1.0, n_compositions: float = 1.0
) -> Objective:
    """The objective of a pretraining stage.

    Args:
        config: the recipe's pretraining stage; not "none".
        cutoff: of the network, Å.
        known: names of the labels that any training frame has.
        scale: of the network, eV.
        n_compositions: how many compositions the training frames have.
    """
    if config.objective in ("forcefield", "labels"):
        return Labels(config, known, scale if config.vector == "direct" else None, n_compositions)
    return Denoising(config, cutoff) if config.objective == "denoise" else MaskedAtoms(config)
