"""Properties of structures, from a model file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from ase import Atoms

from mdpot.device import check_device, pick_device
from mdpot.errors import MdpotError, name_elements
from mdpot.graph import Graph
from mdpot.heads.potential import edge_vectors
from mdpot.modelfile import ModelFile, open_model
from mdpot.structures import MIN_DISTANCE, refuse_placeholder

BATCH_ATOMS = 2048


@dataclass(frozen=True)
class Predictions:
    """What a model says of some structures.

    Attributes:
        values: [n_structures], in the unit of the property.
        std: [n_structures], the standard deviation over the members of an ensemble; None without one.
    """

    values: np.ndarray
    std: np.ndarray | None


class PropertyPredictor:
    """A trained model of a property, for ASE structures.

    >>> predictor = PropertyPredictor("runs/matbench-jdft2d")
    >>> predictor.predict(atoms)            # a number
    >>> predictor.predict([atoms, others])  # an array

    Args:
        file: a model file with a property or an ensemble of such, or the folder of a run.
        device: torch device; None takes a CUDA GPU where there is one, else the CPU.
        batch_atoms: how many atoms are computed at a time, or one structure where that has more.

    Attributes:
        name, unit: of the property.
        header: of the file.

    Raises:
        MdpotError: a file that cannot be used, or that holds a potential; on use, an element that was not trained or a
            structure without atoms or with overlapping ones.
    """

    def __init__(
        self,
        file: str | Path | ModelFile,
        device: str | torch.device | None = None,
        batch_atoms: int = BATCH_ATOMS,
    ) -> None:
        if batch_atoms < 1:
            raise MdpotError(f"batch_atoms must be at least 1; got {batch_atoms}.")
        model = open_model(file)
        self.path, self.header, self.batch_atoms = model.path, model.header, batch_atoms
        self.name, self.unit = str(self.header.get("property")), str(self.header.get("unit"))
        check_device(device)
        self.device = pick_device(device)
        self.model = model.property(self.device)
        for caution in model.cautions:
            warnings.warn(f"{self.path}: {caution}", stacklevel=2)

    @overload
    def predict(self, structures: Atoms) -> float: ...

    @overload
    def predict(self, structures: Sequence[Atoms]) -> np.ndarray: ...

    def predict(self, structures: Atoms | Sequence[Atoms]) -> float | np.ndarray:
        """The property of a structure, a number, or of several, [n_structures], in `unit`."""
        if isinstance(structures, Atoms):
            return float(self.evaluate([structures]).values[0])
        return self.evaluate(structures).values

    def evaluate(self, structures: Sequence[Atoms]) -> Predictions:
        """The property of some structures, with the spread between the members where the file is an ensemble."""
        for index, atoms in enumerate(structures):
            self._check(index, atoms)
        found: dict[str, list[torch.Tensor]] = {"property": [], "property_std": []}
        n_before = 0
        for batch in self._batches(structures):
            graph = Graph.from_atoms(batch, self.model.cutoff, torch.float64).to(self.device)
            refuse_overlaps(graph, n_before)
            n_before += len(batch)
            with torch.no_grad():
                out = self.model(*graph.inputs())
            for name in found.keys() & out.keys():
                found[name].append(out[name].cpu())
        values, std = (torch.cat(parts).numpy() if parts else None for parts in found.values())
        return Predictions(np.zeros(0) if values is None else values, std)

    def _batches(self, structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
        batch: list[Atoms] = []
        for atoms in structures:
            if batch and sum(map(len, batch)) + len(atoms) > self.batch_atoms:
                yield batch
                batch = []
            batch.append(atoms)
        if batch:
            yield batch

    def _check(self, index: int, atoms: Atoms) -> None:
        if len(atoms) == 0:
            raise MdpotError(f"structure {index} has no atoms.")
        refuse_placeholder(atoms, f"structure {index}")
        strange = sorted(set(atoms.numbers.tolist()) - set(self.model.elements))
        if strange:
            raise MdpotError(
                f"structure {index} holds {name_elements(strange)}, which {self.path} was not trained for; it knows "
                f"{name_elements(self.model.elements)}."
            )


def refuse_overlaps(graph: Graph, n_before: int = 0) -> None:
    """Refuses structures, counted from `n_before`, in which atoms or their images are nearer than `MIN_DISTANCE`.

    Raises:
        MdpotError: which structure, and how near they are.
    """
    vectors = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    if len(lengths) and float(lengths.min()) < MIN_DISTANCE:
        edge = int(lengths.argmin())
        index = n_before + int(graph.system[graph.edge_index[0, edge]])
        raise MdpotError(
            f"structure {index}: atoms overlap: they are {float(lengths[edge]):.3f} Å apart, and at least "
            f"{MIN_DISTANCE} Å is expected. Check the units and the cell."
        )
