"""The frames of the accuracy benchmark, and a stopwatch for what other packages do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from mdpot.training.data.frames import Dataset

SEED = 0


@dataclass(frozen=True)
class Frames:
    """The frames inside the package, split as `mdpot train water-rpbe` splits them.

    Attributes:
        max_train: train on at most this many of them; None takes all.
    """

    max_train: int | None = None

    @cached_property
    def overrides(self) -> list[str]:
        """What the recipe is told of the data."""
        return [] if self.max_train is None else [f"data.max_train_frames={self.max_train}"]

    @cached_property
    def file(self) -> Path:
        """The frames as mdpot reads them."""
        from mdpot.training.data.catalog import SOURCES

        sample = SOURCES["water-rpbe"].sample
        assert sample is not None
        return sample

    @cached_property
    def dataset(self) -> Dataset:
        from mdpot.training.data.sources import load_dataset

        return load_dataset("water-rpbe", self.file)

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Frame indices of train, validation and test."""
        from mdpot.training.config import load_recipe
        from mdpot.training.data.splits import limit_frames, split_by_group

        groups = [frame.group for frame in self.dataset.frames]
        splits = split_by_group(groups, load_recipe("water-rpbe").data.fractions, SEED)
        splits["train"] = limit_frames(splits["train"], groups, self.max_train, SEED)
        return {name: indices.tolist() for name, indices in splits.items()}

    @cached_property
    def _reference(self) -> dict[int, float]:
        from mdpot.training.data.reference import fit_reference

        elements, energies = fit_reference([self.dataset.frames[i] for i in self.splits["train"]])
        return dict(zip(elements, energies.tolist(), strict=True))

    def reference(self, numbers: np.ndarray) -> float:
        """The reference energies of some atoms together, eV, fitted to the training frames."""
        return sum(self._reference[int(z)] for z in numbers)

    def atoms(self, split: str) -> list[Atoms]:
        """The frames of a split, with "REF_energy" (eV, without the reference) and "REF_forces" (eV/Å)."""
        from ase import Atoms

        found = []
        for index in self.splits[split]:
            frame = self.dataset.frames[index]
            atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
            atoms.info["REF_energy"] = frame.energy - self.reference(frame.numbers)
            atoms.arrays["REF_forces"] = frame.forces
            found.append(atoms)
        return found


@dataclass
class Calls:
    """How long the calls of a function took: when each began and ended, s, and the arguments of the last."""

    times: list[tuple[float, float]] = field(default_factory=list)
    arguments: tuple[Any, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(end - begin for begin, end in self.times)


@contextmanager
def timed(owner: Any, name: str) -> Iterator[Calls]:
    """Times every call of a function of another package while the block runs."""
    calls, function = Calls(), getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.arguments, begin = args, time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            calls.times.append((begin, time.perf_counter()))

    with patch.object(owner, name, wrapped):
        yield calls
