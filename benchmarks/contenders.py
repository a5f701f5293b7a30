"""What is timed of mdpot: the bare potential, the ASE calculator, and dynamics by both engines.

A contender's `run(n)` evaluates energy and forces n times, each time at new positions. Potentials and calculators
follow the frames of a short trajectory, forth and back, at 0.5 fs a frame; dynamics starts at the first of them
and integrates on its own. So all see the same structures, about, and neighbor lists with a skin go stale as
often as they do in use.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.verlet import VelocityVerlet

from mdpot import Graph, MaskedGNNCalculator, load_potential, open_model
from mdpot.errors import MdpotError
from mdpot.export import SKIN
from mdpot.export_aoti import export_aoti
from mdpot.kernels import make_kernel
from mdpot.neighbors import neighbor_list
from mdpot.padded import PaddedPotential, pad_edges
from mdpot.simulate import Dynamics, water_box
from mdpot.simulate.engine import maxwell_boltzmann
from mdpot.simulate.engine_ase import AseEngine
from mdpot.simulate.engine_openmm import VELOCITY, make_topology
from mdpot.units import NM

DT = 0.5  # fs
TEMPERATURE = 300.0  # K
N_FRAMES = 40
MAX_MINIMIZATION = 60  # steps: enough that the fresh box does not burst
BACKEND_OF = {
    "native": "native",
    "torchforce": "torchscript",
    "python": "eager",
}  # what OpenMM's backends run the network with


@dataclass(frozen=True)
class Contender:
    """One way to get energies and forces.

    Attributes:
        name: unique, e.g. "ase torchscript".
        label: for the table.
        group: "bare", "ase", "ase md", "openmm" or "peer".
        run: evaluates n times.
        bare: name of the contender that its overhead is measured over; None where there is none.
        cutoff: Å.
        reset: goes back to the start; not timed. None: there is no need.
    """

    name: str
    label: str
    group: str
    run: Callable[[int], None]
    bare: str | None
    cutoff: float
    reset: Callable[[], None] | None = None


@dataclass(frozen=True)
class Start:
    """Where all contenders start.

    Attributes:
        frames: consecutive structures of a trajectory.
        velocities: [n_atoms, 3], Å/fs, at the first of them.
    """

    frames: list[Atoms]
    velocities: np.ndarray

    def forth_and_back(self) -> Iterator[int]:
        """Indices of frames without end, each a neighbor in time of the one before."""
        last = len(self.frames) - 1
        return itertools.cycle([*range(last), *range(last, 0, -1)])


def make_start(model: Path, n_waters: int, seed: int = 0) -> Start:
    """A box of water at 1 g/cm³, minimized, and its first femtoseconds at constant energy from 300 K.

    Raises:
        MdpotError: the potential does not hold the box together.
    """
    rng = np.random.default_rng(seed)
    atoms = water_box(n_waters, rng)
    engine = AseEngine(atoms, MaskedGNNCalculator(model, device="cpu"), Dynamics("nve", dt=DT))
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
    return Start(frames, velocities)


@cache
def compiled(model: Path) -> Path:
    """The potential as a package of AOTInductor, which takes a minute."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    export_aoti(model, folder / "model.pt2", check=False)
    return folder / "model.pt2"


def calculator_for(model: Path, backend: str) -> MaskedGNNCalculator:
    """`MaskedGNNCalculator` on the CPU, by a backend of its own or "aoti"."""
    if backend == "aoti":
        return MaskedGNNCalculator(compiled(model), device="cpu")
    return MaskedGNNCalculator(model, device="cpu", backend=backend)


def padded_inputs(
    numbers: torch.Tensor,
    positions: torch.Tensor,
    cell: torch.Tensor,
    system: torch.Tensor,
    edge_index: torch.Tensor,
    shifts: torch.Tensor,
    cutoff: float,
) -> tuple[torch.Tensor, ...]:
    """The inputs of `PaddedPotential` from those of `Potential`."""
    return numbers, positions, *pad_edges(edge_index, shifts @ cell[0], len(numbers), cutoff)


def bare(model: Path, start: Start, backend: str) -> Contender:
    """The potential alone: its tensors, the neighbor list of each frame among them, are ready beforehand.

    The kernels get lists with a skin, among which they choose by themselves.
    """
    potential, _ = load_potential(model, "cpu")
    order = start.forth_and_back()
    name = f"bare {backend}"
    if backend == "native":
        kernel, frames = make_kernel(potential), start.frames
        lists = [neighbor_list(f.positions, f.cell.array, f.pbc, potential.cutoff + SKIN) for f in frames]

        def run_kernel(n: int) -> None:
            for _ in range(n):
                at = next(order)
                (i, j), shifts = lists[at]
                kernel(frames[at].numbers, frames[at].positions, frames[at].cell.array, (i, j, shifts))

        return Contender(name, "bare potential, fused kernels", "bare", run_kernel, None, potential.cutoff)
    inputs = [Graph.from_atoms(frame, potential.cutoff, torch.float64).inputs() for frame in start.frames]
    call: Any = potential
    if backend == "torchscript":
        call = torch.jit.script(potential)
    elif backend == "padded":
        call, inputs = PaddedPotential(potential), [padded_inputs(*values, potential.cutoff) for values in inputs]
    elif backend == "aoti":
        call = open_model(compiled(model)).module("cpu").evaluator.potential
    elif backend == "compile":
        potential.backbone.compile(dynamic=True)  # type: ignore[operator]

    def run(n: int) -> None:
        for _ in range(n):
            call(*inputs[next(order)])

    return Contender(name, f"bare potential, {backend}", "bare", run, None, potential.cutoff)


def through_calculator(calculator: BaseCalculator, start: Start) -> Callable[[int], None]:
    """Calls of an ASE calculator for energy and forces."""
    atoms = start.frames[0].copy()
    order = start.forth_and_back()

    def run(n: int) -> None:
        for _ in range(n):
            atoms.positions = start.frames[next(order)].positions
            calculator.get_property("energy", atoms)
            calculator.get_property("forces", atoms)

    return run


def ase_calculator(model: Path, start: Start, backend: str) -> Contender:
    """`MaskedGNNCalculator` as ASE calls it."""
    calculator = calculator_for(model, backend)
    run = through_calculator(calculator, start)
    cutoff = calculator.metadata["cutoff"]
    return Contender(f"ase {backend}", f"ASE calculator, {backend}", "ase", run, f"bare {backend}", cutoff)


def ase_dynamics(model: Path, start: Start, backend: str) -> Contender:
    """ASE's velocity Verlet, one evaluation a step."""
    calculator = calculator_for(model, backend)
    atoms = start.frames[0].copy()
    atoms.calc = calculator
    integrator = VelocityVerlet(atoms, DT * units.fs)

    def reset() -> None:
        atoms.positions = start.frames[0].positions
        atoms.set_velocities(start.velocities / units.fs)
        atoms.get_forces()  # or the first step would evaluate twice

    def run(n: int) -> None:
        integrator.run(n)

    label = f"ASE dynamics, velocity Verlet, {backend}"
    cutoff = calculator.metadata["cutoff"]
    return Contender(f"ase md {backend}", label, "ase md", run, f"bare {backend}", cutoff, reset)


def openmm_dynamics(model: Path, start: Start, backend: str, threads: int) -> Contender:
    """OpenMM's Verlet integrator, one evaluation a step.

    On the platform that `mdpot md` takes: with the kernels Reference, which wakes no threads of its own, else CPU.

    Raises:
        MdpotError: the backend does not work here.
    """
    from mdpot.openmm import create_system
    from mdpot.openmm.backends import import_openmm

    openmm = import_openmm()
    atoms = start.frames[0]
    device = None if backend == "torchforce" else "cpu"  # TorchForce runs where OpenMM's platform does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # copying a System may crash; none is copied here
        system = create_system(make_topology(atoms), model, backend, device=device, check=False)
    name, properties = ("Reference", {}) if backend == "native" else ("CPU", {"Threads": str(threads)})
    integrator = openmm.VerletIntegrator(DT * 1e-3)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(name), properties)

    def reset() -> None:
        context.setPositions(atoms.positions / NM)
        context.setVelocities(start.velocities / VELOCITY)
        context.getState(getForces=True)  # rebuilds the neighbor list, as ASE's dynamics does here

    bare_name = f"bare {BACKEND_OF[backend]}"
    cutoff = load_potential(model, "cpu")[0].cutoff
    label = f"OpenMM dynamics, Verlet, {backend}"
    return Contender(f"openmm {backend}", label, "openmm", integrator.step, bare_name, cutoff, reset)


def make_own(
    model: Path, start: Start, backends: Sequence[str], threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """All contenders of mdpot, and why some are missing: {name: reason}."""
    found = [make(model, start, backend) for make in (bare, ase_calculator, ase_dynamics) for backend in backends]
    missing = {}
    for backend in BACKEND_OF:
        if BACKEND_OF[backend] not in backends:
            continue
        try:
            found.append(openmm_dynamics(model, start, backend, threads))
        except MdpotError as error:
            missing[f"OpenMM, {backend}"] = str(error)
    return found, missing


def make_peers(families: Sequence[str], start: Start, folder: Path) -> tuple[list[Contender], dict[str, str]]:
    """The peers of some families through their own ASE calculators, and why some are missing."""
    from peers import PEERS

    found, missing = [], {}
    for peer in PEERS:
        if peer.family not in families:
            continue
        installed = peer.installed()
        if installed is None:
            missing[peer.label] = f"{peer.package} is not installed."
            continue
        try:
            calculator = peer.build(folder)
        except Exception as error:  # whatever another package raises while it is set up
            missing[peer.label] = f"{peer.package} {installed}: {type(error).__name__}."
            continue
        label = f"{peer.label} ({peer.package} {installed})"
        run = through_calculator(calculator, start)
        found.append(Contender(peer.label, label, "peer", run, None, peer.cutoff))
    return found, missing
