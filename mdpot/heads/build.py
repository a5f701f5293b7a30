"""How a potential, or a model of a property, is built from an architecture's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mdpot.errors import unknown
from mdpot.heads.potential import Potential
from mdpot.heads.property import PropertyModel
from mdpot.models import MODELS
from mdpot.models.backbone import AtomEmbedding, Backbone
from mdpot.models.hyperparameters import check_hyperparameters, complete


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
        hyperparameters: arguments of that architecture, those that it has a default for may be left out.
        elements: atomic numbers.
        shift: [n_elements], eV.
        scale: eV.
        wall: [n_elements, n_elements], Å, see `Potential`.
        pair: [n_terms, n_elements, n_elements], eV, see `Potential`.

    Raises:
        MdpotError: an unknown model, or hyperparameters that it does not take.
    """
    embedding, backbone, given = build_network(model, hyperparameters, len(elements))
    potential = Potential(embedding, backbone, elements, shift, scale, wall, pair)
    potential.model, potential.hyperparameters = model, given
    return potential


def build_property(
    model: str,
    hyperparameters: Mapping[str, Any],
    elements: Sequence[int],
    name: str,
    unit: str = "",
    pooling: str = "sum",
    mean: float = 0.0,
    scale: float = 1.0,
) -> PropertyModel:
    """A model of a property with fresh weights.

    Args:
        model: a name in `MODELS`.
        hyperparameters: arguments of that architecture, those that it has a default for may be left out.
        elements: atomic numbers.
        name: of the property.
        unit: of the property, as text; empty where it has none.
        pooling: "sum" or "mean" over the atoms, see `PropertyModel`.
        mean: of the training targets, in `unit`.
        scale: in `unit`, as a rule the standard deviation of the training targets.

    Raises:
        MdpotError: an unknown model or pooling, or hyperparameters that the model does not take.
    """
    embedding, backbone, given = build_network(model, hyperparameters, len(elements))
    network = PropertyModel(embedding, backbone, elements, name, unit, pooling, mean, scale)
    network.model, network.hyperparameters = model, given
    return network


def build_network(
    model: str, hyperparameters: Mapping[str, Any], n_elements: int
) -> tuple[AtomEmbedding, Backbone, dict[str, Any]]:
    """What every head stands on: the embedding and the architecture, with fresh weights, and the checked
    hyperparameters.

    Args:
        model: a name in `MODELS`.
        hyperparameters: arguments of that architecture, those that it has a default for may be left out.
        n_elements: number of chemical elements.

    Raises:
        MdpotError: an unknown model, or hyperparameters that it does not take.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    architecture = MODELS[model]
    given = check_hyperparameters(model, architecture, hyperparameters)
    embedding = AtomEmbedding(n_elements, architecture.features(complete(architecture, given)))
    sizes = {"n_elements": n_elements} if architecture.per_element else {}
    return embedding, architecture(**sizes, **given), given
