"""Structures to pretrain on that need no data: short trajectories by a cheap force field, with its labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin

from mdpot.electrons import NOTHING_SAID
from mdpot.errors import MdpotError
from mdpot.forcefields import find_forcefield
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.data.frames import Frame, fingerprint
from mdpot.training.kept import SAVE_EVERY, Tell, keep_arrays, kept_arrays, tell_nobody
from mdpot.training.schema import PretrainConfig

STEP, EVERY, LENGTH = 1.0, 5, 20
"""fs; steps from one structure to the next; structures of a trajectory."""
FRICTION = 0.03
"""1/fs."""
LARGEST_FORCE = 20.0
"""eV/Å; a trajectory ends where an atom feels more."""
FARTHEST = 1e6
"""Å; an atom that is farther away has left for good."""
MOST_BARREN = 20
"""Trajectories in a row that give nothing, after which no more are tried, if each structure has had its turn."""


class _Lost(Exception):
    """The force field does not describe where a trajectory has come to."""


def sample_dynamics(
    starts: Sequence[Frame],
    n: int,
    stage: PretrainConfig,
    seed: Sequence[int],
    file: Path,
    tell: Tell = tell_nobody,
) -> list[Frame]:
    """Structures from Langevin dynamics by a force field, with its energies and forces.

    Trajectories begin at the structures in turn, in random order, with velocities and a bath of a temperature of their
    own. They are 0.1 ps long, of which every 5 fs are kept, and end early where the force field fails or a force is
    huge. Structures that the force field does not describe are passed over.

    Args:
        starts: structures; their labels are not read.
        n: how many to return.
        stage: its `forcefield`, and its `temperature`, K, the range from which temperatures are drawn.
        seed: of all that is random; the same structures for the same seed.
        file: keeps what is done, for a run that is stopped and goes on.
        tell: called with the number of structures so far, and of all.

    Raises:
        MdpotError: nothing comes of any of the structures; `file` is damaged, or of other structures.
        Stopped: on SIGINT or SIGTERM; finished trajectories are kept.
    """
    found, trajectory = _kept(file, starts) if file.is_file() else ([], 0)
    order = np.random.default_rng(seed).permutation(len(starts))
    saved, barren = time.monotonic(), 0
    with StopSignal() as stop:
        while len(found) < n:
            index, rng = int(order[trajectory % len(starts)]), np.random.default_rng([*seed, trajectory])
            new: list[Frame] = []
            for frame in _trajectory(starts[index], stage, rng):
                new.append(replace(frame, index=index))
                tell(len(found) + len(new), n)
                if stop.requested or len(found) + len(new) == n:
                    break
            if stop.requested and len(new) < LENGTH and len(found) + len(new) < n:
                break  # this one is made again, and ends as it would have
            found, trajectory, barren = found + new, trajectory + 1, 0 if new else barren + 1
            if stop.requested:
                break
            if len(found) == n or time.monotonic() - saved > SAVE_EVERY:
                _keep(file, starts, found, trajectory)
                saved = time.monotonic()
            if barren == max(MOST_BARREN, len(starts)):
                raise MdpotError(
                    f"{barren} trajectories in a row gave no structure: the force field {stage.forcefield} does not "
                    "describe where they begin, or they fall apart at once. Choose another by pretrain.forcefield, "
                    "lower pretrain.temperature, or set pretrain.dynamics=none."
                )
    if stop.requested:
        _keep(file, starts, found, trajectory)
        raise Stopped(f"stopped after {len(found)} of {n} structures of dynamics, which are kept.")
    return found


def _trajectory(start: Frame, stage: PretrainConfig, rng: np.random.Generator) -> Iterator[Frame]:
    """The structures of one trajectory, without its start, as far as the force field describes them."""
    kelvin = float(rng.uniform(*stage.temperature))
    atoms = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * kelvin * atoms.get_masses())[:, None])
    atoms.calc = _ForceField(start, stage.forcefield)
    bath = Langevin(atoms, STEP * units.fs, temperature_K=kelvin, friction=FRICTION / units.fs, fixcm=False, rng=rng)
    for _ in range(LENGTH):
        try:
            bath.run(EVERY)
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        except _Lost:
            return
        if not np.isfinite(energy) or not np.abs(forces).max() < LARGEST_FORCE:
            return
        moved = {"positions": atoms.positions.copy(), "energy": energy, "forces": forces}
        yield replace(start, **moved, stress=None, properties={})


class _ForceField(Calculator):
    """A force field of the training as a calculator of ASE, for the atoms of one structure."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE has it

    def __init__(self, frame: Frame, name: str) -> None:
        super().__init__()
        self._frame, self._label = frame, find_forcefield(name).labels_of_steps()

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        there = bool((np.abs(atoms.positions) < FARTHEST).all())  # NaN is not
        labels = self._label(replace(self._frame, positions=atoms.positions.copy())) if there else None
        if labels is None:
            raise _Lost
        self.results = {"energy": float(labels[0]), "forces": np.asarray(labels[1])}


def _told(starts: Sequence[Frame]) -> str:
    """What a force field is told of the starts, as a digest."""
    said = [repr(start.electrons) for start in starts]
    return fingerprint(starts) + ("".join(said) if any(start.electrons != NOTHING_SAID for start in starts) else "")


def _keep(file: Path, starts: Sequence[Frame], found: Sequence[Frame], trajectories: int) -> None:
    """Writes what `_kept` reads."""
    arrays = {
        "starts": np.array([frame.index for frame in found], dtype=np.int64),
        "positions": np.concatenate([np.zeros((0, 3)), *(frame.positions for frame in found)]),
        "forces": np.concatenate([np.zeros((0, 3)), *(np.asarray(frame.forces) for frame in found)]),
        "energies": np.array([frame.energy for frame in found], dtype=np.float64),
        "trajectories": np.array(trajectories),
        "of": np.array(_told(starts)),
    }
    keep_arrays(file, arrays)


def _kept(file: Path, starts: Sequence[Frame]) -> tuple[list[Frame], int]:
    """The structures in a file, and the number of trajectories that they are from.

    Raises:
        MdpotError: it was changed since, or is of other structures.
    """
    with kept_arrays(file, "to begin the dynamics anew") as kept:
        if str(kept["of"]) != _told(starts):
            raise ValueError("it is of other structures")
        places, energies, trajectories = kept["starts"], kept["energies"], int(kept["trajectories"])
        cuts = np.cumsum([len(starts[place]) for place in places])[:-1]
        rows = [np.split(kept[name], cuts) if len(places) else [] for name in ("positions", "forces")]
        return [
            replace(starts[at], positions=x, energy=float(e), forces=f, stress=None, properties={}, index=int(at))
            for at, e, x, f in zip(places, energies, *rows, strict=True)
        ], trajectories
