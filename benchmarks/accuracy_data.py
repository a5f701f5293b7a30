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

    from mdpot.training.data.frames import Dataset, Frame

SEED = 0
BATCH = 5  # frames, for the peers: about 400 atoms


@dataclass(frozen=True)
class Frames:
    """The frames inside the package, split as `mdpot train water-rpbe` splits them, or those of a file.

    Attributes:
        max_train: train on at most this many of them; None takes all.
        own: a file, split as `mdpot train custom` splits it; None takes the water.
        more: a file whose frames are all for testing, beside those of the test split; None where there is none.
    """

    max_train: int | None = None
    own: Path | None = None
    more: Path | None = None

    @property
    def recipe(self) -> str:
        """The recipe that mdpot trains by."""
        return "water-rpbe" if self.own is None else "custom"

    @cached_property
    def overrides(self) -> list[str]:
        """What the recipe is told of the data."""
        return [] if self.max_train is None else [f"data.max_train_frames={self.max_train}"]

    @cached_property
    def file(self) -> Path:
        """The frames as mdpot reads them."""
        if self.own is not None:
            return self.own
        from mdpot.training.data.catalog import SOURCES

        sample = SOURCES["water-rpbe"].sample
        assert sample is not None
        return sample

    @cached_property
    def dataset(self) -> Dataset:
        from mdpot.training.data.sources import load_dataset

        return load_dataset(self.recipe, self.file)

    @cached_property
    def splits(self) -> dict[str, list[int]]:
        """Frame indices of train, validation and test."""
        from mdpot.training.config import load_recipe
        from mdpot.training.prepare import split_frames

        splits = split_frames(self.dataset, load_recipe(self.recipe, overrides=self.overrides).data, SEED)
        return {name: splits[name].tolist() for name in ("train", "validation", "test")}

    @cached_property
    def _reference(self) -> dict[int, float]:
        from mdpot.training.data.reference import fit_reference

        elements, energies = fit_reference([self.dataset.frames[i] for i in self.splits["train"]])
        return dict(zip(elements, energies.tolist(), strict=True))

    def reference(self, numbers: np.ndarray) -> float:
        """The reference energies of some atoms together, eV, fitted to the training frames."""
        return sum(self._reference[int(z)] for z in numbers)

    @cached_property
    def elements(self) -> list[int]:
        """The atomic numbers of the training frames."""
        return list(self._reference)

    @cached_property
    def has_stress(self) -> bool:
        """Whether every frame of the training and the validation has a stress."""
        used = [*self.splits["train"], *self.splits["validation"]]
        return all(self.dataset.frames[i].stress is not None for i in used)

    def atoms(self, split: str) -> list[Atoms]:
        """The frames of a split, or of the file `more`, see `labeled`."""
        if split != "more":
            return [self.labeled(self.dataset.frames[index]) for index in self.splits[split]]
        from mdpot.training.data.sources import load_dataset

        return [self.labeled(frame) for frame in load_dataset("custom", self.more).frames]

    def labeled(self, frame: Frame) -> Atoms:
        """With "REF_energy" (eV, without the reference), "REF_forces" (eV/Å) and, if known, "REF_stress" (eV/Å³)."""
        from ase import Atoms

        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        assert frame.energy is not None  # other frames were not let in
        assert frame.forces is not None
        atoms.info["REF_energy"] = frame.energy - self.reference(frame.numbers)
        atoms.arrays["REF_forces"] = frame.forces
        if frame.stress is not None:
            atoms.info["REF_stress"] = frame.stress
        return atoms


@dataclass
class Calls:
    """How long the calls of a function took: when each began and ended, s, and the arguments of the last.

    Attributes:
        cpu_seconds: that all threads of the process together were at work.
    """

    times: list[tuple[float, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    arguments: tuple[Any, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(end - begin for begin, end in self.times)


@contextmanager
def timed(owner: Any, name: str) -> Iterator[Calls]:
    """Times every call of a function of another package while the block runs."""
    calls, function = Calls(), getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.arguments, begin, cpu = args, time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            calls.times.append((begin, time.perf_counter()))
            calls.cpu_seconds += time.process_time() - cpu

    with patch.object(owner, name, wrapped):
        yield calls
