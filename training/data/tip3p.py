"""Liquid water by the TIP3P force field, computed on the spot by OpenMM: the second data set of the masked-pretraining
paper."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdpot.errors import MdpotError, unknown
from mdpot.files import atomic, locked
from mdpot.stopping import Stopped, StopSignal
from mdpot.threads import n_cores
from mdpot.units import KJ_PER_MOL, NM

# The masked-pretraining paper, section "Experiment Set up on Water Datasets"; it does not give the temperature.
N_WATERS, BOX, CUTOFF, SPACING = 258, 20.0, 10.0, 50  # molecules, Å, Å, steps between frames
TEMPERATURE, FREQUENCY = 300.0, 25.0  # K; 1/ps, of the Nosé-Hoover chain
# fs. The paper's 2 fs are for rigid molecules; the O-H bond of flexible ones oscillates within 10 fs.
RIGID_STEP, FLEXIBLE_STEP = 2.0, 1.0
SEED = 0


@dataclass(frozen=True)
class Size:
    """How much to compute.

    Attributes:
        n_starts: trajectories, each from its own random positions.
        n_frames: of each trajectory, `SPACING` steps apart.
        n_settle: steps before the first frame.
    """

    n_starts: int
    n_frames: int
    n_settle: int = 1000

    @property
    def n_steps(self) -> int:
        """Steps of one trajectory."""
        return self.n_settle + self.n_frames * SPACING


#: "small" takes about a minute on two cores; "paper" has the 10 x 50,000 steps and 10,000 frames of the paper.
SIZES = {"small": Size(20, 20), "paper": Size(10, 1000)}


def generate(folder: Path, size: str, rigid: bool = False) -> Path:
    """Computes the data set, or what is missing of it, and writes it as one archive that `read_water_npz` reads.

    The trajectories run side by side, one on each core. One that is finished is kept, so that the next call goes on
    where one was stopped; a second process waits for the first. Each starts from random positions, which are relaxed
    first. Every frame holds the energy and the forces of the force field: PME, molecules that are flexible (harmonic
    bonds and angles) or rigid. The forces on rigid ones are those before the constraints act, and hold no bonds and
    angles: what learns from them cannot hold a molecule together.

    Args:
        folder: where the archive goes; made where it is missing.
        size: in `SIZES`.
        rigid: rigid molecules, as in the paper.

    Returns:
        The archive, `tip3p-SIZE.npz` or `tip3p-rigid-SIZE.npz`.

    Raises:
        MdpotError: an unknown size, or no OpenMM.
        Stopped: on Ctrl-C or SIGTERM; finished trajectories are kept.
    """
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    plan = SIZES[size]
    target = folder / f"tip3p-{'rigid-' if rigid else ''}{size}.npz"
    if target.is_file():
        return target
    try:
        import openmm  # noqa: F401
    except ImportError as error:
        raise MdpotError(f"the TIP3P data are computed by OpenMM ({error}). pip install 'mdpot[openmm]'") from None
    with locked(folder / f".{target.stem}.lock"):
        if not target.is_file():
            _compute(target, plan, rigid)
    return target


def _compute(target: Path, plan: Size, rigid: bool) -> None:
    """The trajectories that are missing, and the archive of all."""
    starts = target.with_name(f"{target.stem}-starts")
    starts.mkdir(exist_ok=True)
    parts = [starts / f"{k:03d}.npz" for k in range(plan.n_starts)]
    missing = [k for k, part in enumerate(parts) if not part.is_file()]
    done = (plan.n_starts - len(missing)) * plan.n_steps
    with _bar() as bar, StopSignal() as stop:
        task = bar.add_task(target.stem, total=plan.n_starts * plan.n_steps, completed=done)

        def run(k: int) -> dict[str, np.ndarray] | None:
            if stop.requested:
                return None
            return _trajectory(k, plan, rigid, lambda: bar.advance(task, SPACING), lambda: stop.requested)

        failures = []
        # OpenMM's steps leave Python to other threads, so processes are not needed.
        with ThreadPoolExecutor(n_cores()) as pool:
            futures = {pool.submit(run, k): k for k in missing}
            for future in as_completed(futures):
                failure = future.exception()
                if failure is not None:
                    stop.requested = True
                    failures.append(failure)
                elif (arrays := future.result()) is not None:
                    _save(parts[futures[future]], arrays)
        if failures:
            raise failures[0]
        if stop.requested:
            raise Stopped(f"stopped; the finished starts are kept in {starts}, and the next call goes on.")
    _join(parts, target)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic(path) as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


def _join(parts: list[Path], target: Path) -> None:
    """Puts trajectories into one archive and removes them."""
    arrays: dict[str, list[np.ndarray]] = {}
    for part in parts:
        with np.load(part) as archive:
            for key in archive.files:
                arrays.setdefault(key, []).append(archive[key])
    joined = {key: np.concatenate(values) for key, values in arrays.items()}
    _save(target, {**joined, "numbers": arrays["numbers"][0]})
    shutil.rmtree(parts[0].parent)


def _trajectory(
    k: int, plan: Size, rigid: bool, stepped: Callable[[], None], stopped: Callable[[], bool]
) -> dict[str, np.ndarray] | None:
    """The frames of one start, as the arrays of a water-scan archive; None when stopped.

    Args:
        k: which start, the seed of its positions and velocities.
        plan: how many steps and frames.
        rigid: rigid molecules.
        stepped: called after every `SPACING` steps.
        stopped: whether to give up.
    """
    import openmm
    from openmm import unit

    atoms = _random_start(k)
    platform = openmm.Platform.getPlatformByName("CPU")
    step = RIGID_STEP if rigid else FLEXIBLE_STEP
    integrator = openmm.NoseHooverIntegrator(TEMPERATURE, FREQUENCY, step / 1000)  # ps
    context = openmm.Context(tip3p_system(N_WATERS, BOX, rigid), integrator, platform, {"Threads": "1"})
    context.setPositions(atoms.positions / NM)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 100)  # kJ/mol/nm, steps
    context.setVelocitiesToTemperature(TEMPERATURE, k + 1)
    positions, forces, energies = [], [], []
    for done in range(SPACING, plan.n_steps + 1, SPACING):
        if stopped():
            return None
        integrator.step(SPACING)
        stepped()
        if done > plan.n_settle:
            # Molecules are moved into the box as a whole.
            state = context.getState(positions=True, forces=True, energy=True, enforcePeriodicBox=True)
            positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
            forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom))
            energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    return {
        "numbers": atoms.numbers,
        "positions": np.array(positions, dtype=np.float32),
        "forces": (np.array(forces) * KJ_PER_MOL).astype(np.float32),
        "energies": np.array(energies) * KJ_PER_MOL,
        "cells": np.repeat(BOX * np.eye(3, dtype=np.float32)[None], len(energies), axis=0),
        "source": np.full(len(energies), f"start {k}"),
    }


def _random_start(k: int) -> Any:
    """Molecules at random in the box, as ASE atoms; `k` seeds them."""
    from mdpot.simulate.box import WATER_MASS, water_box
    from mdpot.simulate.engine import U_PER_A3

    return water_box(N_WATERS, np.random.default_rng([SEED, k]), N_WATERS * WATER_MASS * U_PER_A3 / BOX**3)


def tip3p_system(n_waters: int, box: float, rigid: bool) -> Any:
    """OpenMM's System of TIP3P molecules (O, H, H each) in a cube with edges of `box` Å, PME."""
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(n_waters):
        molecule = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, molecule)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, molecule))
    topology.setPeriodicBoxVectors(np.eye(3) * box / NM)
    # OpenMM's annotations want the class of NoCutoff and quantities with units.
    return app.ForceField("tip3p.xml").createSystem(
        topology,
        nonbondedMethod=app.PME,  # type: ignore[arg-type]
        nonbondedCutoff=CUTOFF / NM,  # type: ignore[arg-type]
        rigidWater=rigid,
    )


def _bar() -> Any:
    """A rich progress bar of steps on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("computing {task.description} by OpenMM: steps"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
