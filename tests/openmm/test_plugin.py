"""`MLPotential("mdpot", modelPath=...)` of openmm-ml, for whole and for mixed systems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openmm")
pytest.importorskip("openmmml")

import openmm
from ase import Atoms
from openmm import Vec3, app
from openmm.unit import Quantity, dalton, nanometers  # type: ignore[attr-defined]
from openmmml import MLPotential

from mdpot.errors import MdpotError
from mdpot.modelfile import save_potential

from .conftest import make_context, make_potential, reference, results

BOX = np.diag([16.0, 16.0, 16.0])


@pytest.fixture
def model(tmp_path) -> str:
    path = tmp_path / "potential.safetensors"
    save_potential(path, make_potential().double())
    return str(path)


def waters(n_side: int = 2) -> tuple[Any, Atoms]:
    """A topology of water molecules with their bonds, and the atoms."""
    from ase.build import molecule

    topology, pieces = app.Topology(), []
    chain = topology.addChain()
    rng = np.random.default_rng(0)
    for site in np.ndindex(n_side, n_side, n_side):
        water = molecule("H2O")
        water.rotate(float(rng.uniform(0, 180)), rng.normal(size=3))
        water.positions += 3.2 * np.array(site) + 2
        residue = topology.addResidue("HOH", chain)
        oxygen, *hydrogens = (
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")
        )
        for hydrogen in hydrogens:
            topology.addBond(oxygen, hydrogen)
        pieces.append(water)
    topology.setPeriodicBoxVectors([Vec3(*row) for row in BOX / 10] * nanometers)
    atoms = pieces[0]
    for piece in pieces[1:]:
        atoms += piece
    atoms.set_cell(BOX)
    atoms.pbc = True
    return topology, atoms


def mm_system(topology: Any) -> Any:
    field = app.ForceField("amber14/tip3p.xml")
    pme: Any = app.PME
    return field.createSystem(topology, nonbondedMethod=pme, nonbondedCutoff=0.7, rigidWater=False, constraints=None)


def test_whole_system(model):
    topology, atoms = waters()
    system = MLPotential("mdpot", modelPath=model).createSystem(topology)
    energy, forces = results(make_context(system, atoms.positions))
    expected = reference(make_potential().double(), atoms)
    assert energy == pytest.approx(expected[0], rel=1e-10)
    np.testing.assert_allclose(forces, expected[1], atol=1e-8)


def test_mixed_system_is_the_sum_of_its_parts(model):
    """ML inside the region, the force field elsewhere; the order in which the region is listed is all one."""
    topology, atoms = waters()
    potential = MLPotential("mdpot", modelPath=model)
    region = [3, 4, 5, 9, 10, 11]
    found = []
    for order in (region, region[::-1], [10, 4, 11, 3, 9, 5]):
        mixed = potential.createMixedSystem(topology, mm_system(topology), order, forceGroup=7)
        context = make_context(mixed, atoms.positions)
        energy, forces = results(context, groups={7})
        expected = reference(make_potential().double(), atoms[region])
        assert energy == pytest.approx(expected[0], rel=1e-10)
        np.testing.assert_allclose(forces[region], expected[1], atol=1e-8)
        assert not np.delete(forces, region, axis=0).any()
        found.append(results(context))
    for energy, forces in found[1:]:
        assert energy == pytest.approx(found[0][0], rel=1e-12)
        np.testing.assert_allclose(forces, found[0][1], atol=1e-8)


@pytest.mark.parametrize("interpolate", [None, False, True])
def test_molecules_stay_whole(model, interpolate):
    """OpenMM wraps molecules into the box, and barostats move them, as a whole: also those of the potential."""
    topology, atoms = waters()
    potential = MLPotential("mdpot", modelPath=model)
    if interpolate is None:
        system = potential.createSystem(topology)
    else:
        system = potential.createMixedSystem(topology, mm_system(topology), range(6), interpolate=interpolate)
    context = make_context(system, atoms.positions - atoms.positions[1] - 0.01)  # a hydrogen just outside of the box
    molecules = [set(molecule) for molecule in context.getMolecules()]
    # For the interpolation, openmm-ml has a force between all atoms of the potential, which makes them one molecule.
    split = [set(range(6))] * bool(interpolate)
    split += [{3 * k, 3 * k + 1, 3 * k + 2} for k in range(2 if interpolate else 0, 8)]
    assert molecules == split
    found = context.getState(getPositions=True, enforcePeriodicBox=True).getPositions(asNumpy=True)._value * 10
    lengths = [np.linalg.norm(found[bond[0].index] - found[bond[1].index]) for bond in topology.bonds()]
    np.testing.assert_allclose(lengths, 0.9686, atol=1e-3)


def test_heavier_hydrogens(model):
    topology, _ = waters(1)
    potential = MLPotential("mdpot", modelPath=model)
    system = potential.createSystem(topology, hydrogenMass=Quantity(3, dalton))
    masses = [system.getParticleMass(i).value_in_unit(dalton) for i in range(3)]
    assert masses == pytest.approx([18.0153 - 6, 3, 3], abs=1e-3)
    with pytest.raises(MdpotError, match=r"hydrogenMass: a mixed System has the masses .* ForceField\.createSystem"):
        potential.createMixedSystem(topology, mm_system(topology), range(3), hydrogenMass=3)


def test_interpolation_between_force_field_and_potential(model):
    topology, atoms = waters()
    potential = MLPotential("mdpot", modelPath=model)
    context = make_context(
        potential.createMixedSystem(topology, mm_system(topology), [3, 4, 5], interpolate=True),
        atoms.positions,
    )
    classical = results(make_context(mm_system(topology), atoms.positions))[0]
    mixed = potential.createMixedSystem(topology, mm_system(topology), [3, 4, 5])
    ends = {0: classical, 1: results(make_context(mixed, atoms.positions))[0]}
    for value, expected in ends.items():
        context.setParameter("lambda_interpolate", value)
        assert results(context)[0] == pytest.approx(expected, abs=1e-3)


def test_mixed_system_runs(model):
    topology, atoms = waters()
    mixed = MLPotential("mdpot", modelPath=model, backend="python").createMixedSystem(
        topology, mm_system(topology), range(6)
    )
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    context = make_context(mixed, atoms.positions, "CPU", integrator)
    integrator.step(20)
    assert np.isfinite(results(context)[1]).all()


def test_errors(model):
    topology, _ = waters(1)
    with pytest.raises(MdpotError, match="modelPath: MLPotential"):
        MLPotential("mdpot")
    with pytest.raises(MdpotError, match=r"unknown option of MLPotential\('mdpot'\) 'bakend'\. Did you mean 'backend'"):
        MLPotential("mdpot", modelPath=model, bakend="python")
    with pytest.raises(MdpotError, match="is not there"):
        MLPotential("mdpot", modelPath=model + "x").createSystem(topology)
