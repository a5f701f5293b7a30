"""Where a run computes."""

from __future__ import annotations

import math

import torch

from mdpot.device import pick_device
from mdpot.kernels import NoKernel, library
from mdpot.training.schema import Recipe

SMALL = 400
"""Atoms in a batch up to which the kernels, on one core even, are faster than torch on a large GPU; measured at 200."""


def choose_device(name: str | None, recipe: Recipe, alone: bool = True) -> torch.device:
    """The device of that name; without a name the one on which the recipe trains fastest.

    That is a CUDA GPU where there is one, but the CPU for what the kernels train there in small batches: torch sends a
    GPU hundreds of operations a step, and 200 atoms keep it waiting (docs/engine.md).

    Args:
        name: as torch has it, or None.
        recipe: what is trained.
        alone: in one process; several take a GPU each where there is no name.
    """
    device = pick_device(name)
    if name is not None or device.type == "cpu" or not (alone and _trained_by_kernels(recipe)):
        return device
    try:
        library.default()
    except NoKernel:
        return device
    return torch.device("cpu")


def _trained_by_kernels(recipe: Recipe) -> bool:
    """Whether the kernels train all of it where they are installed, in batches that are small."""
    first = [recipe.pretrain] if recipe.pretrain.objective != "none" else []
    if recipe.model.name != "tide" or recipe.property is not None or any(s.vector != "derivative" for s in first):
        return False
    return all(s.engine != "torch" and (s.batch_atoms or math.inf) <= SMALL for s in (*first, recipe.finetune))
