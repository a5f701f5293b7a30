"""From a recipe to what a run trains on: frames found, checked, split, referenced, and laid out as tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import covalent_radii

from mdpot.errors import MdpotError
from mdpot.models import MODELS, Potential, build_potential
from mdpot.models.potential import edge_vectors
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.data.reference import fit_reference, rms_force
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.splits import limit_frames, split_by_group
from mdpot.training.data.store import Store, batches
from mdpot.training.schema import DataConfig, ModelConfig, Recipe

CHUNK_ATOMS = 5000
WALL = 0.9


@dataclass
class Prepared:
    """All that a run needs to know of its data.

    Attributes:
        dataset: the frames and where they came from.
        splits: frame indices by name: train, validation, test.
        stores: the frames of each split as tensors, on the device, and of every further test set.
        elements: atomic numbers, ascending.
        shift: [n_elements], eV, reference energies from the training split.
        scale: eV, the RMS force of the training split (eV/Å) times 1 Å.
    """

    dataset: Dataset
    splits: dict[str, np.ndarray]
    stores: dict[str, Store]
    elements: list[int]
    shift: np.ndarray
    scale: float

    @cached_property
    def smallest_distances(self) -> dict[tuple[int, int], float]:
        """The smallest distance, Å, between each pair of elements in the training frames."""
        return smallest_distances(self.train)

    @property
    def train(self) -> Store:
        return self.stores["train"]

    @property
    def validation(self) -> Store:
        return self.stores["validation"]


def prepare(
    recipe: Recipe,
    data: Path | None,
    seed: int,
    device: torch.device,
    splits: Mapping[str, Sequence[int]] | None = None,
    need_labels: bool = True,
) -> Prepared:
    """Finds, checks and splits the frames of a recipe and builds their neighbor lists.

    Args:
        recipe: which data, which split, which cutoff.
        data: file or folder given by the user.
        seed: of the split.
        device: where the tensors go.
        splits: those of an earlier start of the same run; made anew without it.
        need_labels: False for pretraining alone, which reads no energies or forces.

    Raises:
        MdpotError: data that cannot be found, read or used.
    """
    config = recipe.data
    dataset = load_dataset(config.source, data, allow_download=config.download, need_labels=need_labels)
    frames = dataset.frames
    if splits is not None and max((max(v, default=-1) for v in splits.values()), default=-1) >= len(frames):
        raise MdpotError(
            f"the run began with other data: its splits reach beyond the {len(frames)} frames of {dataset.origin}. "
            "Give the same data again by --data, or start a new run."
        )
    chosen = _split(dataset, config, seed) if splits is None else {k: np.asarray(v) for k, v in splits.items()}
    training = [frames[i] for i in chosen["train"]]
    # Elements that only validation or test frames hold belong to the potential too; their reference is zero.
    elements = sorted({int(z) for frame in frames for z in np.unique(frame.numbers)})
    if need_labels:
        elements, shift = fit_reference(training, elements)
        scale = rms_force(training)
    else:
        shift, scale = np.zeros(len(elements)), 1.0
    table = dict(zip(elements, shift.tolist(), strict=True))
    parts = {name: [frames[i] for i in indices] for name, indices in chosen.items() if len(indices)}
    parts |= {name: extra.frames for name, extra in dataset.tests.items()}
    stores = {name: Store(part, recipe.model.cutoff, table, config.molecule).to(device) for name, part in parts.items()}
    return Prepared(dataset, chosen, stores, elements, shift, scale)


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
        hyperparameters = {"cutoff": model.cutoff, **model.hyperparameters}
        takes = inspect.signature(MODELS[model.name].__init__).parameters
        if "avg_neighbors" in takes and "avg_neighbors" not in hyperparameters:
            hyperparameters["avg_neighbors"] = average_neighbors(prepared.train)
    torch.manual_seed(seed)
    wall = wall_starts(prepared.elements, prepared.smallest_distances) if model.repulsion else None
    return build_potential(
        model.name, hyperparameters, prepared.elements, prepared.shift.tolist(), prepared.scale, wall
    )


def average_neighbors(store: Store) -> float:
    """Mean number of neighbors per atom inside the cutoff."""
    return round(float(store.n_edges_per_frame.sum() / store.n_atoms_per_frame.sum()), 2)


def smallest_distances(store: Store) -> dict[tuple[int, int], float]:
    """The smallest distance, Å, that occurs between each pair of elements (Z1 <= Z2) inside the cutoff."""
    smallest: dict[tuple[int, int], float] = {}
    for frames in batches(store, n_atoms=CHUNK_ATOMS):
        graph = store.batch(frames, torch.float64).graph
        distance = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts).norm(dim=1)
        low, high = graph.numbers[graph.edge_index].sort(0)[0]
        for pair in torch.unique(torch.stack([low, high]), dim=1).t().tolist():
            found = float(distance[(low == pair[0]) & (high == pair[1])].min())
            smallest[tuple(pair)] = min(found, smallest.get(tuple(pair), np.inf))
    return smallest


def wall_starts(elements: Sequence[int], smallest: Mapping[tuple[int, int], float]) -> list[list[float]]:
    """Where the repulsive wall of each pair of elements starts, Å.

    At `WALL` of the smallest distance in the training frames, for a network is still good a little beyond its data; and
    where a pair does not occur there, at `WALL` of the sum of the covalent radii.
    """
    return [
        [round(WALL * smallest.get((min(a, b), max(a, b)), covalent_radii[a] + covalent_radii[b]), 4) for b in elements]
        for a in elements
    ]


def sample_structures(frames: Sequence[Frame], n_structures: int = 3, n_atoms: int = 200) -> list[dict[str, Any]]:
    """A few structures, small ones first, as plain lists: kept in the potential file to check exports with."""
    small = sorted((f for f in frames if len(f) <= n_atoms), key=len)
    step = max(len(small) // n_structures, 1)
    return [
        {
            "numbers": frame.numbers.tolist(),
            "positions": frame.positions.round(6).tolist(),
            "cell": frame.cell.tolist(),
            "pbc": frame.pbc.tolist(),
        }
        for frame in small[::step][:n_structures]
    ]


def _split(dataset: Dataset, config: DataConfig, seed: int) -> dict[str, np.ndarray]:
    """The official split where there is one, else one by groups or frames; the training part cut to what is asked."""
    names = [frame.group if config.split_by == "group" else str(n) for n, frame in enumerate(dataset.frames)]
    splits = dataset.splits or split_by_group(names, config.fractions, seed)
    for name in ("train", "validation"):
        if len(splits.get(name, ())) == 0:
            raise MdpotError(
                f"the {name} split of {dataset.origin} is empty: {len(dataset)} frames in {len(set(names))} groups are "
                "too few for data.fractions. Give more frames, or set data.split_by=frame."
            )
    return {**splits, "train": limit_frames(splits["train"], names, config.max_train_frames, seed)}
