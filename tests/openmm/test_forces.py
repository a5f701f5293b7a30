"""OpenMM forces against the eager potential, over backends, platforms and boxes."""

from __future__ import annotations

import copy
import sys
import threading
from typing import Any, cast

import numpy as np
import pytest
import torch

pytest.importorskip("openmm")

import openmm
from openmm import unit

from mdpot.calculator import MaskedGNNCalculator
from mdpot.errors import MdpotError
from mdpot.export import export_torchscript
from mdpot.heads import build_potential
from mdpot.modelfile import save_potential
from mdpot.openmm import create_force, create_system
from mdpot.openmm.backends import crash_warning
from mdpot.simulate import water_box
from mdpot.simulate.engine_openmm import molecule_bonds

from .conftest import make_atoms, make_context, make_potential, make_tide, reference, results, topology_of

BOXES = ["orthorhombic", "triclinic", "unwrapped", "cluster"]


def quick_system(topology, model, backend, **options):
    return create_system(topology, model, backend, check=False, **options)


def agree(found, expected, rel, atol):
    assert found[0] == pytest.approx(expected[0], rel=rel)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=atol)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-5), ("float64", 1e-9)])
def test_energy_and_forces(backend, platforms, box, dtype, atol):
    potential, atoms = make_potential(), make_atoms(box)
    expected = reference(copy.deepcopy(potential).double(), atoms)
    system = create_system(topology_of(atoms), potential, backend, dtype=dtype)
    assert system.usesPeriodicBoundaryConditions() == (box != "cluster")
    for platform in platforms:
        agree(results(make_context(system, atoms.positions, platform)), expected, 1e-7, atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_numbers_as_the_ase_calculator(tmp_path, backend, dtype):
    save_potential(tmp_path / "p.safetensors", make_potential())
    atoms = make_atoms("unwrapped")
    atoms.calc = MaskedGNNCalculator(tmp_path / "p.safetensors", dtype=dtype, device="cpu")
    system = quick_system(topology_of(atoms), tmp_path / "p.safetensors", backend, dtype=dtype)
    tolerance = 2e-5 if dtype == "float32" else 1e-10
    expected = atoms.get_potential_energy(), atoms.get_forces()
    agree(results(make_context(system, atoms.positions)), expected, 1e-8, tolerance)


def test_system_of_the_topology(backend):
    atoms = make_atoms("triclinic")
    topology = topology_of(atoms)
    system = quick_system(topology, make_potential(), backend)
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    assert masses == pytest.approx(atoms.get_masses(), rel=1e-3)
    box = [v.value_in_unit(unit.angstrom) for v in system.getDefaultPeriodicBoxVectors()]
    np.testing.assert_allclose(box, atoms.cell.array, atol=1e-6)
    assert system.getForce(0).getName() == f"mdpot {backend}"
    assert isinstance(system.getForce(1), openmm.CMMotionRemover)
    assert quick_system(topology, make_potential(), backend, remove_cm_motion=False).getNumForces() == 1


def test_bonds_of_the_topology_make_molecules(backend):
    """A barostat moves them as a whole; energies are those without bonds."""
    atoms = water_box(8, np.random.default_rng(0))
    topology, bonded = topology_of(atoms), topology_of(atoms)
    members = list(bonded.atoms())
    for i, j in molecule_bonds(atoms):
        bonded.addBond(members[i], members[j])
    systems = [quick_system(t, make_potential(), backend, dtype="float64") for t in (topology, bonded)]
    contexts = [make_context(system, atoms.positions) for system in systems]
    assert [len(context.getMolecules()) for context in contexts] == [24, 8]
    agree(results(contexts[1]), results(contexts[0]), 1e-12, 1e-10)  # a GPU adds in another order each time


def test_model_may_be_a_potential_a_file_a_folder_or_an_exported_file(tmp_path, backend):
    potential, atoms = make_potential(), make_atoms("triclinic")
    topology, expected = topology_of(atoms), reference(potential, atoms)
    save_potential(tmp_path / "potential.safetensors", potential)
    export_torchscript(potential, tmp_path / "m.pt", check=False)
    export_torchscript(potential, tmp_path / "n.pt", check=False, numbers=atoms.numbers.tolist())
    for model in (potential, tmp_path / "potential.safetensors", str(tmp_path), tmp_path / "m.pt"):
        system = quick_system(topology, model, backend)
        agree(results(make_context(system, atoms.positions)), expected, 1e-7, 2e-5)
    create_system(topology, tmp_path / "n.pt", backend)
    other = atoms[::-1]
    with pytest.raises(MdpotError, match="exported for other atoms than the topology's, or in another order"):
        create_system(topology_of(other), tmp_path / "n.pt", backend)


def test_atoms_by_their_numbers(backend):
    potential, atoms = make_potential(), make_atoms("triclinic")
    force = create_force(potential, atoms.numbers.tolist(), backend, periodic=True, force_group=3, check=False)
    assert force.backend == backend  # type: ignore[attr-defined]
    assert force.getForceGroup() == 3
    system = quick_system(topology_of(atoms), potential, backend)
    system.removeForce(0)
    system.addForce(force)
    agree(results(make_context(system, atoms.positions)), reference(potential, atoms), 1e-7, 2e-5)


def test_dynamics_keeps_the_numbers_right(backend, platforms):
    """Over a trajectory the neighbor list is reused and rebuilt, and atoms leave the box."""
    potential, atoms = make_potential().double(), make_atoms("triclinic")
    system = quick_system(topology_of(atoms), potential, backend)
    integrator = openmm.LangevinMiddleIntegrator(3000, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    context = make_context(system, atoms.positions, platforms[-1], integrator)
    context.setVelocitiesToTemperature(3000, 1)
    for _ in range(10):
        integrator.step(10)
        atoms.positions = context.getState(getPositions=True).getPositions(asNumpy=True)._value * 10
        agree(results(context), reference(potential, atoms), 1e-9, 1e-8)


def test_forces_are_the_gradient_that_dynamics_needs(backend):
    """The energy error of Verlet falls with the square of the time step."""
    potential, atoms = make_potential().double(), make_atoms("triclinic")
    system = quick_system(topology_of(atoms), potential, backend, remove_cm_motion=False)
    errors = []
    for n_steps in (16, 32):
        integrator = openmm.VerletIntegrator(0.004 / n_steps)
        context = make_context(system, atoms.positions, integrator=integrator)
        context.setVelocitiesToTemperature(300, 1)
        energies = []
        for _ in range(2):
            state = context.getState(getEnergy=True)
            energies.append((state.getPotentialEnergy() + state.getKineticEnergy())._value)
            integrator.step(n_steps)
        errors.append(abs(energies[1] - energies[0]))
    assert errors[1] < 0.35 * errors[0]


def test_box_changes(backend, platforms):
    potential, atoms = make_potential().double(), make_atoms("triclinic")
    system = quick_system(topology_of(atoms), potential, backend)
    for platform in platforms:
        context = make_context(system, atoms.positions, platform)
        for scale in (1.0, 1.004, 0.97, 1.2, 1.0):
            scaled = atoms.copy()
            scaled.set_cell(atoms.cell.array * scale, scale_atoms=True)
            context.setPeriodicBoxVectors(*(scaled.cell.array / 10).tolist())
            context.setPositions(scaled.positions / 10)
            agree(results(context), reference(potential, scaled), 1e-9, 1e-8)


def test_constant_pressure(backend, platforms):
    """Volume moves of the Monte Carlo barostat, taken or not, leave the energy of the box that is there."""
    potential, atoms = make_potential().double(), make_atoms("orthorhombic")
    system = quick_system(topology_of(atoms), potential, backend)
    barostat = openmm.MonteCarloBarostat(1000, 300, 2)
    barostat.setRandomNumberSeed(2)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(3)
    context = make_context(system, atoms.positions, platforms[-1], integrator)
    volumes = set()
    for _ in range(12):
        integrator.step(5)
        state = context.getState(getPositions=True)
        atoms.set_cell(state.getPeriodicBoxVectors(asNumpy=True)._value * 10)
        atoms.positions = state.getPositions(asNumpy=True)._value * 10
        volumes.add(round(atoms.get_volume(), 6))
        agree(results(context), reference(potential, atoms), 1e-9, 1e-8)
    assert len(volumes) > 2


def test_two_potentials_in_one_process(backend):
    first, second = make_potential(0).double(), make_potential(1).double()
    atoms, other = make_atoms("triclinic"), make_atoms("cluster")
    system = quick_system(topology_of(atoms), first, backend)
    system.addForce(create_force(second, topology_of(atoms), backend, force_group=1, check=False))
    context = make_context(system, atoms.positions)
    apart = make_context(quick_system(topology_of(other), first, backend), other.positions)
    for _ in range(3):
        agree(results(context, groups={0}), reference(first, atoms), 1e-9, 1e-8)
        agree(results(apart), reference(first, other), 1e-9, 1e-8)
        agree(results(context, groups={1}), reference(second, atoms), 1e-9, 1e-8)
    both = reference(first, atoms)[1] + reference(second, atoms)[1]
    np.testing.assert_allclose(results(context)[1], both, atol=1e-8)


def test_part_of_the_particles_in_any_order(backend, platforms):
    potential, atoms = make_potential().double(), make_atoms("triclinic")
    chosen = [14, 2, 25, 3, 9, 20]
    expected = reference(potential, atoms[sorted(chosen)])
    for order in (chosen, chosen[::-1], sorted(chosen)):
        system = openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
        system.setDefaultPeriodicBoxVectors(*(atoms.cell.array / 10).tolist())
        system.addForce(create_force(potential, topology_of(atoms), backend, atoms=order, check=False))
        for platform in platforms:
            energy, forces = results(make_context(system, atoms.positions, platform))
            agree((energy, forces[sorted(chosen)]), expected, 1e-9, 1e-8)
            assert not np.delete(forces, chosen, axis=0).any()


READ_BACK = """
import sys
import numpy
{imports}
import openmm
system = openmm.XmlSerializer.deserialize(open(sys.argv[1]).read())
platform = openmm.Platform.getPlatform("Reference")
context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
context.setPositions(numpy.load(sys.argv[2]))
state = context.getState(getEnergy=True, getForces=True)
print(repr(state.getPotentialEnergy()._value), repr(float((state.getForces(asNumpy=True)._value ** 2).sum())))
"""


@pytest.mark.parametrize("part", [False, True])
def test_xml_is_read_back_in_a_new_process(tmp_path, alone, backend, part):
    if backend == "torchforce" and (reason := crash_warning()):
        pytest.skip(reason)
    atoms = make_atoms("triclinic")
    exact: dict[str, Any] = {"dtype": "float64", "check": False}  # a GPU adds in another order each time
    system = create_system(topology_of(atoms), make_potential(), backend, **exact)
    if part:
        system.removeForce(0)
        system.addForce(create_force(make_potential(), topology_of(atoms), backend, atoms=[5, 3, 4], **exact))
    here = make_context(system, atoms.positions).getState(getEnergy=True, getForces=True)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(tmp_path / "positions.npy", atoms.positions / 10)
    imports = "import torch, openmmtorch" if backend == "torchforce" else ""
    printed = alone(READ_BACK.format(imports=imports), str(tmp_path / "system.xml"), str(tmp_path / "positions.npy"))
    energy, squares = map(float, printed.split()[-2:])
    assert energy == pytest.approx(here.getPotentialEnergy()._value, rel=1e-12)
    assert squares == pytest.approx(float((here.getForces(asNumpy=True)._value ** 2).sum()), rel=1e-6)


GO_ON = """
import sys
{imports}
import openmm
system, state, checkpoint = sys.argv[1:]
system = openmm.XmlSerializer.deserialize(open(system).read())
context = openmm.Context(system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatform("Reference"))
if {checkpointed}:
    context.loadCheckpoint(open(checkpoint, "rb").read())
else:
    context.setState(openmm.XmlSerializer.deserialize(open(state).read()))
context.getIntegrator().step(3)
print(repr(context.getState(getEnergy=True).getPotentialEnergy()._value))
"""


@pytest.mark.parametrize("checkpointed", [True, False])
def test_dynamics_goes_on_in_a_new_process(tmp_path, alone, backend, checkpointed):
    """From a checkpoint or a State alone: nothing sets positions."""
    if backend == "torchforce" and (reason := crash_warning()):
        pytest.skip(reason)
    atoms = make_atoms("triclinic")
    system = create_system(topology_of(atoms), make_potential(), backend, dtype="float64", check=False)
    context = make_context(system, atoms.positions)
    context.getIntegrator().step(3)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    state = context.getState(getPositions=True, getVelocities=True)
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(state))
    (tmp_path / "checkpoint").write_bytes(context.createCheckpoint())
    context.getIntegrator().step(3)
    imports = "import torch, openmmtorch" if backend == "torchforce" else ""
    program = GO_ON.format(imports=imports, checkpointed=checkpointed)
    energy = float(alone(program, *(str(tmp_path / name) for name in ("system.xml", "state.xml", "checkpoint"))))
    assert energy == pytest.approx(context.getState(getEnergy=True).getPotentialEnergy()._value, rel=1e-12)


def test_copies_of_a_system_work_alone(backend):
    if backend == "torchforce" and (reason := crash_warning()):
        pytest.skip(reason)
    potential, atoms = make_potential(), make_atoms("triclinic")
    system = quick_system(topology_of(atoms), potential, backend)
    twin = copy.deepcopy(system)
    del system
    agree(results(make_context(twin, atoms.positions)), reference(potential, atoms), 1e-7, 2e-5)


@pytest.mark.parametrize("backend", ["native", "python"])
def test_contexts_in_threads(backend):
    """Replicas of one System, each in its thread; with switches after every bytecode, almost, all of them meet."""
    atoms = water_box(4, np.random.default_rng(0))
    torch.manual_seed(0)
    potential = make_tide(backend)
    system = quick_system(topology_of(atoms), potential, backend)

    def replicas() -> list[openmm.Context]:
        contexts = [make_context(system, atoms.positions + k) for k in range(3)]
        for k, context in enumerate(contexts):
            context.setVelocitiesToTemperature(500 + 500 * k, k + 1)
        return contexts

    def end(context: openmm.Context) -> np.ndarray:
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    alone, together = replicas(), replicas()
    n_steps = 200 if backend == "native" else 20
    for context in alone:
        context.getIntegrator().step(n_steps)
    threads = [threading.Thread(target=context.getIntegrator().step, args=[n_steps]) for context in together]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_allclose(end(second), end(first), rtol=0, atol=1e-9)


def test_broken_positions_are_an_error(backend):
    atoms = make_atoms("triclinic")
    context = make_context(quick_system(topology_of(atoms), make_potential(), backend), atoms.positions)
    atoms.positions[3] = np.nan
    context.setPositions(atoms.positions / 10)
    with pytest.raises(openmm.OpenMMException, match=r"finite|NaN"):
        results(context)


def test_forces_that_are_no_gradient_are_announced_once(backend):
    potential = build_potential("gns", {"cutoff": 3.0, "width": 8}, [1, 8], [0.0, 0.0], 1.0).eval()
    with pytest.warns(UserWarning, match="not the gradient of its energy") as seen:
        create_force(potential, [1, 8], backend, periodic=False, check=False)
    assert sum("not the gradient of its energy" in str(w.message) for w in seen) == 1


def test_errors():
    potential, atoms = make_potential(), make_atoms("triclinic")
    topology = topology_of(atoms)
    with pytest.raises(MdpotError, match=r"trained for H, O; it knows nothing of Si"):
        create_force(potential, [1, 14], periodic=False)
    with pytest.raises(MdpotError, match="periodic: say True or False"):
        create_force(potential, [1, 8])
    with pytest.raises(MdpotError, match="indices must be from 0 to 26; got 5 to 27"):
        create_force(potential, topology, atoms=[27, 5])
    with pytest.raises(MdpotError, match="every index may come once"):
        create_force(potential, topology, atoms=[5, 5])
    with pytest.raises(MdpotError, match="at least one atom"):
        create_force(potential, topology, atoms=[])
    with pytest.raises(MdpotError, match=r"unknown backend 'pyton'\. Did you mean 'python'"):
        create_force(potential, topology, "pyton")
    with pytest.raises(MdpotError, match="unknown dtype 'half'"):
        create_force(potential, topology, dtype="half")
    with pytest.raises(MdpotError, match=r"device 'gpu9' cannot be used here"):
        create_force(potential, topology, device="gpu9")
    with pytest.raises(MdpotError, match="skin must be finite"):
        create_force(potential, topology, skin=float("nan"))
    with pytest.raises(MdpotError, match=r"atoms must be indices .* got booleans\. Of a mask take np\.flatnonzero"):
        create_force(potential, topology, atoms=[True, False])
    with pytest.raises(MdpotError, match=r"atoms must be indices of particles; got \[0\.5\]"):
        create_force(potential, topology, atoms=cast(Any, [0.5]))
    with pytest.raises(MdpotError, match=r"must be a topology, or atomic numbers; got \['O', 'H'\]"):
        create_force(potential, cast(Any, ["O", "H"]), periodic=False)
    with pytest.raises(MdpotError, match="model must be a path, or a name of the zoo; got <Topology"):
        create_force(cast(Any, topology), topology)
    next(iter(topology.atoms())).element = None
    with pytest.raises(MdpotError, match=r"atom 0 \(X of ATM 1\) has no element"):
        create_force(potential, topology)
    create_force(potential, topology, "python", atoms=[3, 4])


def test_errors_of_exported_files(tmp_path):
    topology = topology_of(make_atoms("triclinic"))
    export_torchscript(make_potential(), tmp_path / "m.pt", units="ase", check=False)
    with pytest.raises(MdpotError, match="was exported for ase; export it for openmm"):
        create_force(tmp_path / "m.pt", topology)
    export_torchscript(make_potential(), tmp_path / "m.pt", check=False)
    with pytest.raises(MdpotError, match="was exported in float32; export it again in float64"):
        create_force(tmp_path / "m.pt", topology, dtype="float64")
