"""What is timed of mdpot: the bare potential, the ASE calculator, and dynamics by both engines.

A contender's `run(n)` evaluates energy and forces n times, each time at new positions. Potentials and calculators
follow the frames of a short trajectory, forth and back, at 0.5 fs a frame; dynamics starts at the first of them
and integrates on its own. So all see the same structures, about, and neighbor lists with a skin go stale as
often as they do in use.

On a GPU, the fused kernels run on the CPU beside it.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.md.verlet import VelocityVerlet
from start import DT, Start

from mdpot import MaskedGNNCalculator, load_potential, open_model
from mdpot.captured import capture
from mdpot.errors import MdpotError
from mdpot.export import SKIN
from mdpot.export_aoti import export_aoti
from mdpot.kernels import make_kernel
from mdpot.neighbors import neighbor_list
from mdpot.padded import PaddedPotential, pad_edges
from mdpot.simulate.engine_openmm import VELOCITY, make_topology
from mdpot.units import NM

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


def compiled(model: Path, device: str) -> Path:
    """The potential as a package of AOTInductor, which takes a minute."""
    if isinstance(found := compiled_once(model, device), Exception):
        raise found
    return found


@cache
def compiled_once(model: Path, device: str) -> Path | Exception:
    """The package, or why there is none: what fails takes as long."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    try:
        export_aoti(model, folder / "model.pt2", device=device, check=False)
    except Exception as error:
        return error
    return folder / "model.pt2"


def calculator_for(model: Path, backend: str, device: str) -> MaskedGNNCalculator:
    """`MaskedGNNCalculator`, by a backend of its own or "aoti"."""
    if backend == "aoti":
        return MaskedGNNCalculator(compiled(model, device), device=device)
    return MaskedGNNCalculator(model, device=device, backend=backend)


def padded_inputs(
    numbers: torch.Tensor,
    positions: torch.Tensor,
    cell: torch.Tensor,
    system: torch.Tensor,
    edge_index: torch.Tensor,
    shifts: torch.Tensor,
    cutoff: float,
    least: int,
) -> tuple[torch.Tensor, ...]:
    """The inputs of `PaddedPotential` from those of `Potential`."""
    return numbers, positions, *pad_edges(edge_index, shifts @ cell[0], len(numbers), cutoff, least)


def replayed(function: PaddedPotential, inputs: tuple[torch.Tensor, ...]) -> Callable[..., torch.Tensor]:
    """Forces by a CUDA graph, of inputs with the shapes of these, which are copied to where the graph reads them."""
    places = tuple(tensor.clone() for tensor in inputs)
    replay = capture(lambda *tensors: function(*tensors)[2], places)

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
        return replay()

    return call


def bare(model: Path, start: Start, backend: str, device: str) -> Contender:
    """The potential alone: its tensors, the neighbor list of each frame among them, are ready beforehand.

    The kernels get lists with a skin, among which they choose by themselves. Every call waits for the GPU.
    """
    potential, _ = load_potential(model, device)
    order = start.forth_and_back(len(start.listed))
    name = f"bare {backend}"
    if backend == "native":
        kernel, frames = make_kernel(potential), start.listed
        lists = [neighbor_list(f.positions, f.cell.array, f.pbc, potential.cutoff + SKIN) for f in frames]

        def run_kernel(n: int) -> None:
            for _ in range(n):
                at = next(order)
                (i, j), shifts = lists[at]
                kernel(frames[at].numbers, frames[at].positions, frames[at].cell.array, (i, j, shifts))

        return Contender(name, "bare potential, fused kernels", "bare", run_kernel, None, potential.cutoff)
    inputs = [graph.to(device).inputs() for graph in start.graphs]
    call: Any = potential
    if backend == "torchscript":
        call = torch.jit.script(potential)
    elif backend == "padded":
        # A graph wants all tables as large as the largest.
        least = 1 if device == "cpu" else max(int(torch.bincount(edges[0]).max()) for *_, edges, _ in inputs)
        inputs = [padded_inputs(*values, potential.cutoff, least) for values in inputs]
        call = PaddedPotential(potential)
        if device != "cpu":
            call = replayed(call, inputs[0])
    elif backend == "aoti":
        call = open_model(compiled(model, device)).module(device).evaluator.potential
    elif backend == "compile":
        potential.backbone.compile(dynamic=True)  # type: ignore[operator]

    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize

    def run(n: int) -> None:
        for _ in range(n):
            call(*inputs[next(order)])
            wait()

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


def ase_calculator(model: Path, start: Start, backend: str, device: str) -> Contender:
    """`MaskedGNNCalculator` as ASE calls it."""
    calculator = calculator_for(model, backend, device)
    run = through_calculator(calculator, start)
    cutoff = calculator.metadata["cutoff"]
    return Contender(f"ase {backend}", f"ASE calculator, {backend}", "ase", run, f"bare {backend}", cutoff)


def ase_dynamics(model: Path, start: Start, backend: str, device: str) -> Contender:
    """ASE's velocity Verlet, one evaluation a step."""
    calculator = calculator_for(model, backend, device)
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
    model: Path, start: Start, backends: Sequence[str], threads: int, device: str
) -> tuple[list[Contender], dict[str, str]]:
    """All contenders of mdpot, and why some are missing: {name: reason}.

    On a GPU the kernels stay on the CPU, OpenMM is left out, and what does not work there is missing, as peers are.
    """
    found, missing = [], {}
    for make, backend in itertools.product((bare, ase_calculator, ase_dynamics), backends):
        place = "cpu" if backend == "native" else device
        try:
            contender = make(model, start, backend, place)
        except Exception as error:
            if device == "cpu":
                raise
            missing[f"mdpot, {make.__name__} {backend}"] = excuse(error)
            continue
        found.append(contender if device == "cpu" else on_gpu(contender, place, threads))
    if device != "cpu":
        return found, missing
    for backend in BACKEND_OF:
        if BACKEND_OF[backend] not in backends:
            continue
        try:
            found.append(openmm_dynamics(model, start, backend, threads))
        except MdpotError as error:
            missing[f"OpenMM, {backend}"] = str(error)
    return found, missing


def on_gpu(contender: Contender, place: str, threads: int) -> Contender:
    """A contender whose label says where it runs beside those on a GPU."""
    label = contender.label.replace("native", "fused kernels").replace("padded", "CUDA graph")
    if place == "cpu":
        label += f" on the CPU, {threads} thread" + ("" if threads == 1 else "s")
    return replace(contender, label=label)


def excuse(error: Exception) -> str:
    """Why a contender is missing, in a line; how it failed goes to stderr. Frees what it left on a GPU."""
    traceback.print_exception(error, limit=-5, file=sys.stderr)
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()
    return " ".join([f"{type(error).__name__}:", *str(error).split()])[:200].rstrip(".:") + "."


def make_peers(
    families: Sequence[str], start: Start, folder: Path, device: str
) -> tuple[list[Contender], dict[str, str]]:
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
            calculator = peer.build(folder, device)
        except Exception as error:  # whatever another package raises while it is set up
            missing[peer.label] = f"{peer.package} {installed}: {excuse(error)}"
            continue
        label = f"{peer.label} ({peer.package} {installed})"
        run = through_calculator(calculator, start)
        found.append(Contender(peer.label, label, "peer", run, None, peer.cutoff))
    return found, missing
