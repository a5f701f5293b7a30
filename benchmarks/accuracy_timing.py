"""How long energy and forces take each contender of the accuracy benchmark, in turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_data import SEED, Frames
from trainers import Trainer

# torch and the rest only inside functions: threads are set before they load.
if TYPE_CHECKING:
    from start import Start

N_WATERS = 64
MIN_ATOMS = 192  # of a crystal, as many as 64 waters have
BLOCK = 0.4  # seconds that one contender runs in a round, at least one call


def time_steps(
    trainers: Mapping[str, Trainer], folders: Mapping[str, Path], start: Start, rounds: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds per energy and forces at new positions in every call, as `speed.py` takes them.

    All take turns in an order drawn anew in each round. Neighbor lists are included.

    Args:
        trainers: the contenders by name.
        folders: with the trained potential of each; no others are timed.
        start: the structures.
        rounds: how often each has its turn.

    Returns:
        For each: "n_atoms", "ms" of each round, "median_ms", "quartiles_ms".
    """
    import numpy as np
    from contenders import Contender, through_calculator
    from speed import warm_up

    n_atoms = len(start.frames[0])
    runs, calls = {}, {}
    for name, folder in folders.items():
        trainer = trainers[name]
        runs[name] = through_calculator(trainer.calculator(folder, trainer.settings, True), start)
        each = warm_up(Contender(name, trainer.label, "peer", runs[name], None, 0.0))
        calls[name] = max(1, round(BLOCK / each))
        say(f"{name}: {1e3 * each:.1f} ms for {n_atoms} atoms")
    ms: dict[str, list[float]] = {name: [] for name in runs}
    rng = np.random.default_rng(SEED)
    for _ in range(rounds):
        for name in rng.permutation(list(runs)):
            begin = time.perf_counter()
            runs[name](calls[name])
            ms[name].append(1e3 * (time.perf_counter() - begin) / calls[name])
    middle = {name: np.percentile(taken, [25, 50, 75]).tolist() for name, taken in ms.items()}
    return {
        name: {"n_atoms": n_atoms, "ms": ms[name], "median_ms": median, "quartiles_ms": [low, high]}
        for name, (low, median, high) in middle.items()
    }


def water_start() -> Start:
    """The box of water that `speed.py` has."""
    from start import make_start

    from mdpot.zoo import ZOO, find_model

    return make_start(find_model(next(iter(ZOO))), N_WATERS, SEED)


def crystal_start(frames: Frames, trainer: Trainer, folder: Path) -> Start:
    """The largest test frame, repeated until it has `MIN_ATOMS`, and its first steps from 300 K.

    Args:
        frames: that were trained on.
        trainer, folder: of the potential that leads them.
    """
    import numpy as np
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from start import DT, N_FRAMES, TEMPERATURE, Start

    from mdpot.simulate.engine import maxwell_boltzmann

    atoms = max(frames.atoms("test"), key=len)
    while len(atoms) < MIN_ATOMS:
        atoms *= np.eye(3, dtype=int)[atoms.cell.lengths().argmin()] + 1
    velocities = maxwell_boltzmann(atoms.get_masses(), TEMPERATURE, np.random.default_rng(SEED))
    atoms.set_velocities(velocities / units.fs)
    atoms.calc = trainer.calculator(folder, trainer.settings, True)
    integrator, found = VelocityVerlet(atoms, DT * units.fs), []
    for _ in range(N_FRAMES):
        found.append(atoms.copy())
        integrator.run(1)
    return Start(found, velocities, cutoff=0.0)  # which bare potentials need, and none is timed


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
