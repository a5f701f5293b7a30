"""What a network is trained to predict, and how the prediction is scored; one module an objective."""

from __future__ import annotations

from mdpot.training.objectives.denoising import Denoising
from mdpot.training.objectives.labels import Labels
from mdpot.training.objectives.masking import MaskedAtoms
from mdpot.training.objectives.objective import Objective, Prediction
from mdpot.training.schema import PretrainConfig

__all__ = ["Denoising", "Labels", "MaskedAtoms", "Objective", "Prediction", "pretraining_objective"]


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
