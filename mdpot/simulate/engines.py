"""From a model file to an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from mdpot.errors import MdpotError
from mdpot.modelfile import ModelFile
from mdpot.simulate.engine import Engine
from mdpot.simulate.settings import Settings

# What gives the forces: a model file, or in its place an ASE calculator, or what makes an OpenMM system of an OpenMM
# topology.
Forces = ModelFile | BaseCalculator | Callable[[Any], Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the driver needs to know of a model; None where it is not known.

    Attributes:
        elements: atomic numbers it was trained on.
        min_distances: Å, smallest distances in its training set, as {"H-O": 0.8, ...}.
        conservative: its forces are the gradient of its energy.
    """

    elements: list[int] | None = None
    min_distances: dict[str, float] | None = None
    conservative: bool = True


def read_facts(forces: Forces) -> ModelFacts:
    """What is known of the forces: of a model file all, of what stands in for one nothing.

    Raises:
        MdpotError: the file holds no potential.
    """
    if not isinstance(forces, ModelFile):
        return ModelFacts()
    header = forces.require("potential").header
    return ModelFacts(header["elements"], header.get("min_distances"), header["conservative"])


def make_ase(atoms: Atoms, settings: Settings, seed: int, forces: Forces) -> Engine:
    """The ASE engine with the calculator of a model file, or with another."""
    from mdpot.simulate.engine_ase import AseEngine

    if isinstance(forces, ModelFile):
        from mdpot.calculator import MaskedGNNCalculator

        forces = MaskedGNNCalculator(
            forces,
            device=settings.device,
            dtype=settings.dtype,
            backend=settings.backend or "auto",
        )
    if not isinstance(forces, BaseCalculator):
        raise MdpotError("engine ase takes an ASE calculator for its forces.")
    return AseEngine(atoms, forces, settings.dynamics(seed))


def make_openmm(atoms: Atoms, settings: Settings, seed: int, forces: Forces) -> Engine:
    """The OpenMM engine with the system of a model file, or with another."""
    from mdpot.openmm.backends import import_openmm

    import_openmm()
    from mdpot.simulate.engine_openmm import OpenMMEngine, make_topology, to_openmm_frame

    atoms = to_openmm_frame(atoms)
    topology = make_topology(atoms)
    platform, properties = openmm_platform(settings.device)
    if isinstance(forces, ModelFile):
        from mdpot.openmm import create_system

        system = create_system(
            topology,
            forces,
            settings.backend or "auto",
            dtype=settings.dtype,
            # TorchForce runs where the platform does.
            device=None if settings.backend == "torchforce" else settings.device,
            **settings.electrons,
        )
        # The potential has threads of its own. To wake OpenMM's for what is left costs more than they save, and its
        # random numbers would depend on how many there are.
        properties["Threads"] = "1"
        if any(force.getName().startswith(NATIVE) for force in system.getForces()):
            # The CPU platform wakes a thread several times a step even so: for a small box 0.1 ms that this one saves,
            # and what it does by itself is nothing beside the kernels, for a large box, too.
            platform, properties = "Reference", {}
    elif isinstance(forces, BaseCalculator):
        raise MdpotError("engine openmm takes a function that makes a system of a topology, not an ASE calculator.")
    else:
        system = forces(topology)
    return OpenMMEngine(atoms, system, settings.dynamics(seed), platform, properties)


def openmm_platform(device: str | None) -> tuple[str | None, dict[str, str]]:
    """The OpenMM platform, and its properties, of a device such as "cpu" or "cuda:1"; None is the fastest.

    Raises:
        MdpotError: OpenMM has no such device.
    """
    if device is None:
        return None, {}
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return "CPU", {}
    if kind == "cuda":
        return "CUDA", {"DeviceIndex": index} if index else {}
    raise MdpotError(f"engine openmm runs on device cpu or cuda; got {device!r}.")


NATIVE = "mdpot native"  # begins the name of a force that is computed by the kernels


ENGINES: dict[str, Callable[[Atoms, Settings, int, Forces], Engine]] = {
    "ase": make_ase,
    "openmm": make_openmm,
}
