"""From a model file to an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from mdpot.errors import MdpotError
from mdpot.simulate.engine import Engine
from mdpot.simulate.settings import Settings
from mdpot.zoo import find_potential

# What can stand in for a model file: an ASE calculator, or what makes an OpenMM system of an OpenMM topology.
Forces = BaseCalculator | Callable[[Any], Any]


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


def read_facts(model: str, forces: Forces | None) -> ModelFacts:
    """The facts of a model file, or of forces that stand in for it.

    Raises:
        MdpotError: no such file, or not a potential.
    """
    if forces is not None:
        return ModelFacts()
    from mdpot.export import is_exported, load_exported
    from mdpot.modelfile import read_metadata

    path = find_potential(model)
    header = load_exported(path)[1] if is_exported(path) else read_metadata(path)
    return ModelFacts(header["elements"], header.get("min_distances"), header["conservative"])


def make_ase(atoms: Atoms, settings: Settings, seed: int, forces: Forces | None) -> Engine:
    """The ASE engine with the model's calculator, or with another in its place."""
    from mdpot.simulate.engine_ase import AseEngine

    if forces is None:
        from mdpot.calculator import MaskedGNNCalculator

        forces = MaskedGNNCalculator(
            find_potential(settings.model),
            device=settings.device,
            dtype=settings.dtype,
            backend=settings.backend or "auto",
        )
    if not isinstance(forces, BaseCalculator):
        raise MdpotError("engine ase takes an ASE calculator for its forces.")
    return AseEngine(atoms, forces, settings.dynamics(seed))


def make_openmm(atoms: Atoms, settings: Settings, seed: int, forces: Forces | None) -> Engine:
    """The OpenMM engine with the model's system, or with another in its place."""
    from mdpot.openmm.backends import import_openmm

    import_openmm()
    from mdpot.simulate.engine_openmm import OpenMMEngine, make_topology, to_openmm_frame

    atoms = to_openmm_frame(atoms)
    topology = make_topology(atoms)
    platform, properties = openmm_platform(settings.device)
    if forces is None:
        from mdpot.openmm import create_system

        system = create_system(
            topology,
            find_potential(settings.model),
            settings.backend or "auto",
            dtype=settings.dtype,
            # TorchForce runs where the platform does.
            device=None if settings.backend == "torchforce" else settings.device,
        )
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


ENGINES: dict[str, Callable[[Atoms, Settings, int, Forces | None], Engine]] = {
    "ase": make_ase,
    "openmm": make_openmm,
}
