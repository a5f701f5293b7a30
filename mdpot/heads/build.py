"""How a potential is built from an architecture's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdpot.errors import unknown
from mdpot.heads.potential import Potential
from mdpot.models import MODELS
from mdpot.models.hyperparameters import check_hyperparameters


def build_potential(
    model: str,
    hyperparameters: Mapping[str, Any],
    elements: Sequence[int],
    shift: Sequence[float],
    scale: float,
    wall: Sequence[Sequence[float]] | None = None,
    pair: Sequence[Sequence[Sequence[float]]] | None = None,
) -> Potential:
    """A potential with fresh weights.

    Args:
        model: a name in `MODELS`.
        hyperparameters: arguments of that architecture, `n_elements` left out.
        elements: atomic numbers.
        shift: [n_elements], eV.
        scale: eV.
        wall: [n_elements, n_elements], Å, see `Potential`.
        pair: [n_terms, n_elements, n_elements], eV, see `Potential`.

    Raises:
        MdpotError: an unknown model, or hyperparameters that it does not take.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    hyperparameters = check_hyperparameters(model, MODELS[model], hyperparameters)
    backbone = MODELS[model](n_elements=len(elements), **hyperparameters)
    potential = Potential(backbone, elements, shift, scale, wall, pair)
    potential.model = model
    potential.hyperparameters = dict(hyperparameters)
    return potential
