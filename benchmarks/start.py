"""Where the contenders of `speed.py` start: boxes of water and their first femtoseconds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mdpot import Graph, MaskedGNNCalculator
from mdpot.errors import MdpotError
from mdpot.simulate import Dynamics, water_box
from mdpot.simulate.engine import maxwell_boltzmann
from mdpot.simulate.engine_ase import AseEngine

DT = 0.5  # fs
TEMPERATURE = 300.0  # K
N_FRAMES = 40
MAX_MINIMIZATION = 60  # steps: enough that the fresh box does not burst
LISTED_ATOMS = 400_000  # at most, in all frames whose neighbor lists are kept
LARGE = 1000  # waters: larger boxes are put together from smaller ones, since packing them takes longer than all else


@dataclass(frozen=True)
class Start:
    """Where all contenders start.

    Attributes:
        frames: consecutive structures of a trajectory.
        velocities: [n_atoms, 3], Å/fs, at the first of them.
        cutoff: Å, of the potential.
    """

    frames: list[Atoms]
    velocities: np.ndarray
    cutoff: float

    def forth_and_back(self, n_frames: int | None = None) -> Iterator[int]:
        """Indices of the first frames, or of all, without end, each a neighbor in time of the one before."""
        last = (n_frames or len(self.frames)) - 1
        return itertools.cycle([*range(last), *range(last, 0, -1)])

    @property
    def listed(self) -> list[Atoms]:
        """The frames that bare potentials follow: of large boxes the first few, since their lists take much memory."""
        return self.frames[: max(2, LISTED_ATOMS // len(self.frames[0]))]

    @cached_property
    def graphs(self) -> list[Graph]:
        """The listed frames with exact neighbor lists, float64, on the CPU."""
        return [Graph.from_atoms(frame, self.cutoff, torch.float64) for frame in self.listed]


def make_start(model: Path, n_waters: int, seed: int = 0) -> Start:
    """A box of water at 1 g/cm³, minimized, and its first femtoseconds at constant energy from 300 K.

    Raises:
        MdpotError: the potential does not hold the box together.
    """
    rng = np.random.default_rng(seed)
    atoms = packed_box(n_waters, rng)
    calculator = MaskedGNNCalculator(model, device="cpu")
    engine = AseEngine(atoms, calculator, Dynamics("nve", dt=DT))
    engine.minimize(MAX_MINIMIZATION)
    velocities = maxwell_boltzmann(atoms.get_masses(), TEMPERATURE, rng)
    engine.set_velocities(velocities)
    frames = []
    for _ in range(N_FRAMES):
        atoms.positions = engine.state().positions
        frames.append(atoms.copy())
        engine.step(1)
    if engine.state().temperature > 5 * TEMPERATURE:
        raise MdpotError(f"{model.name}: this potential does not hold {n_waters} waters together.")
    return Start(frames, velocities, calculator.metadata["cutoff"])


def packed_box(n_waters: int, rng: np.random.Generator) -> Atoms:
    """A box of water; a large one, where the number allows it, of eight times a smaller one."""
    if n_waters > LARGE and n_waters % 8 == 0:
        return packed_box(n_waters // 8, rng).repeat(2)
    return water_box(n_waters, rng)
