"""New networks for prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mdpot.heads import Potential, PropertyModel, build_potential, build_property
from mdpot.models import MODELS
from mdpot.models.hyperparameters import MEASURED, complete, hyperparameters_of
from mdpot.training.contacts import wall_starts
from mdpot.training.data.store import Store
from mdpot.training.elements import relate
from mdpot.training.prepared import Prepared
from mdpot.training.schema import ModelConfig, PropertyConfig


def new_potential(
    model: ModelConfig, prepared: Prepared, seed: int, hyperparameters: Mapping[str, Any] | None = None
) -> Potential:
    """A potential with fresh weights, the same for the same seed, for prepared data.

    Where the architecture normalizes by the average number of neighbors and the recipe leaves it open, it is
    measured on the training split.

    Args:
        model: the recipe's table.
        prepared: data.
        seed: of the weights.
        hyperparameters: all of them, to rebuild a given network; those of the recipe without it.
    """
    if hyperparameters is None:
        hyperparameters = measured_hyperparameters(model, prepared)
    wall = wall_starts(prepared.elements, prepared.closest) if model.repulsion else None
    pair = None if prepared.pair is None else prepared.pair.tolist()
    with _seeded(seed):
        potential = build_potential(
            model.name, hyperparameters, prepared.elements, prepared.shift.tolist(), prepared.scale, wall, pair
        )
    relate(potential.embedding.element.weight, prepared.elements)
    # The energies of isolated atoms stay what they are; that atoms bind is where the network starts from.
    with torch.no_grad():
        potential.readout[-1].bias += prepared.offset / prepared.scale  # type: ignore[union-attr]
    return potential


def new_property(
    model: ModelConfig, head: PropertyConfig, prepared: Prepared, seed: int, hyperparameters: Mapping[str, Any]
) -> PropertyModel:
    """A model of a property with fresh weights, the same for the same seed.

    Args:
        model: the recipe's table.
        head: the recipe's table of the property.
        prepared: data; mean and scale of the target are those of the training split.
        seed: of the weights.
        hyperparameters: all of them.
    """
    name = prepared.dataset.property
    targets = prepared.train.labels[name]
    spread = float(targets.std(correction=0))
    with _seeded(seed):
        predictor = build_property(
            model.name,
            hyperparameters,
            prepared.elements,
            name,
            prepared.dataset.unit,
            head.pooling,
            float(targets.mean()),
            spread if spread > 0 else 1.0,
        )
    relate(predictor.embedding.element.weight, prepared.elements)
    return predictor


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """While the block runs, torch's own random numbers, of which modules make their weights, are those of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def measured_hyperparameters(model: ModelConfig, prepared: Prepared) -> dict[str, Any]:
    """The cutoff and hyperparameters of the recipe, with the average number of neighbors where it is left open."""
    hyperparameters = model.arguments
    takes = hyperparameters_of(MODELS[model.name])
    if MEASURED in takes and MEASURED not in hyperparameters:
        hyperparameters[MEASURED] = average_neighbors(prepared.train)
    return hyperparameters


def with_normalization_of(
    source: Potential | None, model: ModelConfig, hyperparameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The hyperparameters for a network that begins from the weights of `source`: a normalization that was measured on
    the pretraining data belongs to the weights."""
    if source is None or source.model != model.name or MEASURED not in hyperparameters:
        return dict(hyperparameters)
    return {**hyperparameters, MEASURED: complete(type(source.backbone), source.hyperparameters)[MEASURED]}


def average_neighbors(store: Store) -> float:
    """Mean number of neighbors per atom inside the cutoff."""
    return round(float(store.n_edges_per_frame.sum() / store.n_atoms_per_frame.sum()), 2)
