"""A potential as an OpenMM Force, and as a System of its own."""

from __future__ import annotations

import operator
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mdpot.device import check_device
from mdpot.electrons import NOTHING_SAID, Electrons, of_multiplicity, or_else
from mdpot.errors import MdpotError, unknown
from mdpot.evaluator import Particles
from mdpot.export import SKIN, require_elements, save_module, write_torchscript
from mdpot.exported import AOTI
from mdpot.heads import AnyPotential
from mdpot.modelfile import ModelFile, open_model
from mdpot.modelformat import DTYPES
from mdpot.neighbors import check_skin
from mdpot.openmm.backends import choose_backend, crash_warning, import_openmm, import_openmmtorch, logger
from mdpot.openmm.compute import Compute, Corrected, NativeCompute, TensorCompute
from mdpot.openmm.topology import add_molecules, formal_charge, has_box, repartition, require_box

if TYPE_CHECKING:
    import openmm
    import openmm.app

# Of `create_force`, and of `create_system` as well.
OPTIONS = ("atoms", "periodic", "dtype", "device", "skin", "force_group", "check", "charge", "multiplicity")


def create_force(
    ckpt: Path | str | ModelFile | AnyPotential,
    topology_or_numbers: openmm.app.Topology | Sequence[int],
    backend: str = "auto",
    *,
    atoms: Sequence[int] | None = None,
    periodic: bool | None = None,
    dtype: str | None = None,
    device: str | None = None,
    skin: float = SKIN,
    force_group: int = 0,
    check: bool = True,
    charge: int | None = None,
    multiplicity: int | None = None,
) -> openmm.Force:
    """A Force with the energy of a potential, to be added to a System.

    The particles of the System must be those of the topology, in its order. The Force has the attribute `backend` and
    the name "mdpot <backend>", and the force field's where the potential corrects one. Written to XML it carries its
    model along. To read it back, PythonForce needs mdpot installed; TorchForce needs `import torch, openmmtorch` first,
    and OpenMM 8.5.

    Args:
        ckpt: potential file, folder of a run, name in `mdpot.zoo.ZOO`, file exported for OpenMM, or a potential.
        topology_or_numbers: OpenMM topology, or the atomic number of every particle.
        backend: "native" (fused kernels on the CPU, by OpenMM's PythonForce), "torchforce" (openmmtorch), "python"
            (torch, by PythonForce), "pythontorch" (openmmtorch's PythonTorchForce), or "auto": the fastest that works
            here.
        atoms: indices of the particles that the potential is for, in any order; None: all of them. The
            others get no force from it.
        periodic: whether the System has a periodic box; None: as the topology. To be given with numbers. OpenMM gives a
            System that nobody gave a box one of 2 nm: set that of the System, or of its Context.
        dtype: "float32" or "float64", precision of the network; None: as in the file.
        device: torch device, for the backends of Python; None takes a CUDA GPU where there is one, else the CPU.
            TorchForce runs where OpenMM's platform does.
        skin: Å, of the neighbor list.
        force_group: of the Force.
        check: whether to compare what is exported for torchforce with the potential, a matter of seconds.
        charge, multiplicity: of the atoms that the potential is for, where it corrects a force field; None: the formal
            charges in the topology, and of what they do not say, what its file does. Such a potential is computed
            together with the force field, by "native" or "python".

    Raises:
        MdpotError: a file that can't be used, an element that was not trained or is missing, indices out of
            range, options that do not go together, or a backend that does not work here.
    """
    import_openmm()
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    check_device(device)
    skin = check_skin(skin)
    model = open_model(ckpt)
    _check_export(model, dtype)
    particles = _choose_atoms(topology_or_numbers, atoms, model.header["elements"])
    stated = formal_charge(topology_or_numbers, particles.atoms or range(particles.count))
    electrons = _electrons(model, charge, multiplicity, stated, particles.numbers)
    if model.exported and model.header["export"]["numbers"] not in (None, particles.numbers):
        raise MdpotError(f"{str(model.path)!r} was exported for other atoms than the topology's, or in another order.")
    for caution in model.cautions:
        warnings.warn(caution, stacklevel=2)
    periodic = _is_periodic(topology_or_numbers, periodic)
    fused = _fused(model, particles, periodic, backend, dtype, device, skin)
    chosen = "native" if fused is not None else _choose(backend, model)
    if chosen == "torchforce":
        if device is not None and backend != "auto":
            raise MdpotError("device: TorchForce runs where OpenMM's platform does; leave it out.")
        if (warning := crash_warning()) is not None:
            warnings.warn(warning, stacklevel=2)
        force = _torch_force(model, particles, dtype or model.dtype, skin, check)
        force.setUsesPeriodicBoundaryConditions(periodic)
    else:
        in_torch = chosen == "pythontorch"
        kind: Any = import_openmmtorch().PythonTorchForce if in_torch else import_openmm().PythonForce
        passed = _passed(kind, particles)
        compute = TensorCompute if in_torch else Compute
        function: Any = fused or compute(model.content, passed, periodic, dtype, device, skin)
        if model.baseline is not None:
            function = Corrected(function, model.baseline, passed, periodic, electrons)
        force = _python_force(kind, function, periodic, particles)
    force.setForceGroup(force_group)
    force.setName(f"mdpot {chosen}" + (f" and {model.baseline}" if model.baseline else ""))
    force.backend = chosen
    return force


def create_system(
    topology: openmm.app.Topology,
    ckpt: Path | str | ModelFile | AnyPotential,
    backend: str = "auto",
    *,
    remove_cm_motion: bool = True,
    hydrogenMass: Any = None,
    **options: Any,
) -> openmm.System:
    """A System in which a potential does everything: masses and box from the topology, no constraints.

    OpenMM learns from the forces of a System which atoms are a molecule, and a barostat moves molecules as a whole.
    So the bonds of the topology, where it has any, come along without strength.

    What has no element in the topology, as the fourth site of TIP4P water, is left out by `atoms` and gets no mass.
    Where it goes is yours to say, by a virtual site; without one it stays where it is.

    >>> atoms = [atom.index for atom in topology.atoms() if atom.element is not None]
    >>> system = create_system(topology, ckpt, atoms=atoms)
    >>> site = openmm.ThreeParticleAverageSite(oxygen, hydrogen1, hydrogen2, 0.786646558, 0.106676721, 0.106676721)
    >>> system.setVirtualSite(index, site)  # for each molecule

    Args:
        topology: OpenMM topology; every atom of the potential needs an element.
        ckpt: as in `create_force`.
        backend: as in `create_force`.
        remove_cm_motion: whether to add a CMMotionRemover.
        hydrogenMass: in u, or with its unit: hydrogens get this mass at the expense of the heavy atoms that they are
            bonded to in the topology, for longer time steps, as by OpenMM's `ForceField.createSystem`. None: theirs.
        options: atoms, periodic, dtype, device, skin, force_group, check, charge and multiplicity of `create_force`.

    Raises:
        MdpotError: as `create_force`; an unknown option; `periodic=True` and a topology without a box; or a
            `hydrogenMass` that cannot be given.
    """
    openmm = import_openmm()
    if strange := sorted(options.keys() - set(OPTIONS)):
        raise unknown("option of create_system", strange[0], (*OPTIONS, "remove_cm_motion", "hydrogenMass"))
    if options.get("periodic"):
        require_box(topology)
    force = create_force(ckpt, topology, backend, **options)
    system = openmm.System()
    for atom in list(topology.atoms()):
        system.addParticle(0.0 if atom.element is None else atom.element.mass)
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(force)
    add_molecules(system, topology)
    if hydrogenMass is not None:
        repartition(system, topology, hydrogenMass)
    if remove_cm_motion:
        system.addForce(openmm.CMMotionRemover())
    return system


def _electrons(
    model: ModelFile, charge: int | None, multiplicity: int | None, stated: int | None, numbers: Sequence[int]
) -> Electrons:
    """What the baseline of a potential is told of the electrons of the atoms, `stated` being their formal charge.

    Raises:
        MdpotError: charge or multiplicity of a potential without baseline; they have to be said, and are not; or they
            are impossible.
    """
    if model.baseline is None:
        if charge is not None or multiplicity is not None:
            raise MdpotError(
                f"charge and multiplicity are for potentials that correct a force field; {str(model.path)!r} is a "
                "network alone, and sees neither."
            )
        return NOTHING_SAID
    found = or_else(of_multiplicity(stated if charge is None else charge, multiplicity), model.electrons)
    if found != NOTHING_SAID:
        found.settled(np.array(numbers))
    return found


def _check_export(model: ModelFile, dtype: str | None) -> None:
    """Refuses what is no potential, and an exported file that is for another program or in another precision."""
    model.require("potential")
    if not model.exported:
        return
    export = model.header["export"]
    if export["for"] not in ("openmm", "any"):
        raise MdpotError(f"{str(model.path)!r} was exported for {export['for']}; export it for openmm.")
    if dtype not in (None, export["dtype"]):
        raise MdpotError(f"dtype: {str(model.path)!r} was exported in {export['dtype']}; export it again in {dtype}.")


def _choose(backend: str, model: ModelFile) -> str:
    """The backend to use, see `choose_backend`; TorchForce takes nothing but TorchScript, and no force field.

    Raises:
        MdpotError: as there, and TorchForce asked for a file of another format or one that corrects a force field.
    """
    if model.baseline is not None and backend in ("torchforce", "pythontorch"):
        raise MdpotError(
            f"backend {backend!r} runs a network alone, and {str(model.path)!r} corrects the force field "
            f"{model.baseline}: take 'native' or 'python', which add both."
        )
    if model.baseline is not None:
        return choose_backend("python")
    if model.format == AOTI:
        if backend == "torchforce":
            raise MdpotError(
                f"backend 'torchforce' takes TorchScript, and {str(model.path)!r} is a package of AOTInductor: take "
                "backend='python', or the model file that it was exported from."
            )
        return choose_backend("python" if backend == "auto" else backend)
    return choose_backend(backend)


def _choose_atoms(topology_or_numbers: Any, atoms: Sequence[int] | None, elements: Sequence[int]) -> Particles:
    """The atoms that the potential is for."""
    if hasattr(topology_or_numbers, "atoms"):
        listed = list(topology_or_numbers.atoms())
        numbers = [None if a.element is None else int(a.element.atomic_number) for a in listed]
    else:
        listed, numbers = [], _integers(topology_or_numbers, "topology_or_numbers", "a topology, or atomic numbers")
    n_particles = len(numbers)
    chosen = list(range(n_particles)) if atoms is None else sorted(_integers(atoms, "atoms", "indices of particles"))
    if not chosen:
        raise MdpotError("atoms: the potential needs at least one atom; got none.")
    if len(set(chosen)) != len(chosen):
        raise MdpotError("atoms: every index may come once; some come more often.")
    if chosen[0] < 0 or chosen[-1] >= n_particles:
        raise MdpotError(f"atoms: indices must be from 0 to {n_particles - 1}; got {chosen[0]} to {chosen[-1]}.")
    for index in chosen:
        if numbers[index] is None:
            atom = listed[index]
            raise MdpotError(
                f"topology: atom {index} ({atom.name} of {atom.residue.name} {atom.residue.id}) has no "
                "element. Set it, or leave virtual sites out: "
                "atoms=[a.index for a in topology.atoms() if a.element is not None]."
            )
    found = [int(numbers[index]) for index in chosen]  # type: ignore[arg-type]
    require_elements(found, elements)
    return Particles(found, None if len(chosen) == n_particles else chosen, n_particles)


def _integers(values: Any, name: str, what: str) -> list[int]:
    """Numbers as such; no fractions, and no mask of booleans, whose two values are indices of other particles.

    Raises:
        MdpotError: there is something else.
    """
    try:
        listed = list(values)
        if any(isinstance(value, (bool, np.bool_)) for value in listed):
            raise MdpotError(f"{name} must be {what}; got booleans. Of a mask take np.flatnonzero(mask).")
        return [operator.index(value) for value in listed]
    except TypeError:
        raise MdpotError(f"{name} must be {what}; got {values!r}.") from None


def _is_periodic(topology_or_numbers: Any, periodic: bool | None) -> bool:
    if periodic is not None:
        return bool(periodic)
    if not hasattr(topology_or_numbers, "getPeriodicBoxVectors"):
        raise MdpotError("periodic: say True or False where atoms are given by their numbers.")
    return has_box(topology_or_numbers)


def _torch_force(model: ModelFile, particles: Particles, dtype: str, skin: float, check: bool) -> Any:
    openmmtorch = import_openmmtorch()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        if model.exported:
            module = model.module()
            particles.enter(module)
            save_module(module, path, model.header)
        else:
            write_torchscript(model, path, "openmm", dtype, skin, particles, check)
        force = openmmtorch.TorchForce(str(path))  # reads the file here and now
    force.setOutputsForces(True)
    logger.debug("TorchForce from %s", model.path)
    return force


def _fused(
    model: ModelFile,
    particles: Particles,
    periodic: bool,
    backend: str,
    dtype: str | None,
    device: str | None,
    skin: float,
) -> NativeCompute | None:
    """The potential in fused kernels, where they are asked for, or for "auto" where there are any; else None.

    Raises:
        MdpotError: they are asked for and there are none, or not for a file or a device like that.
    """
    on_cpu = device.startswith("cpu") if device else not torch.cuda.is_available()
    if backend == "native":
        if model.exported:
            raise MdpotError(f"backend 'native' takes the model file that {str(model.path)!r} was exported from.")
        if device and not on_cpu:
            raise MdpotError(f"backend 'native' computes on a CPU; got device {device!r}.")
    elif backend != "auto" or model.exported or not on_cpu:
        return None
    passed = _passed(import_openmm().PythonForce, particles)
    compute = NativeCompute(model.content, passed, periodic, dtype, skin)
    return compute if compute.load(required=backend == "native") else None


def _passed(kind: Any, particles: Particles) -> Particles:
    """The atoms among what OpenMM passes: before 8.6 all particles, after that those asked for."""
    return Particles(particles.numbers, None, len(particles.numbers)) if hasattr(kind, "setParticles") else particles


def _python_force(kind: Any, function: Any, periodic: bool, particles: Particles) -> Any:
    """A Force of such a kind around a function of the State."""
    force = kind(function)
    if particles.atoms is not None and hasattr(kind, "setParticles"):
        force.setParticles(particles.atoms)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
