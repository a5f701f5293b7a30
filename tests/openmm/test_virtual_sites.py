"""Topologies with sites that are no atoms, as TIP4P water has: the potential is for the atoms alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mdpot import MdpotError
from mdpot.openmm import create_system
from mdpot.simulate import water_box

from .conftest import make_context, make_potential, make_tide, reference, results, topology_of

O_H, ANGLE = 0.9572, np.deg2rad(104.52)


@pytest.fixture
def water() -> tuple[Any, Any, Any]:
    """Topology and positions (nm) of 27 waters with TIP4P-Ew's fourth site, and the System of that force field."""
    pytest.importorskip("openmm")
    from openmm import Vec3, app
    from openmm.unit import nanometers  # type: ignore[attr-defined]

    molecule = np.array([[0, 0, 0], [O_H, 0, 0], [O_H * np.cos(ANGLE), O_H * np.sin(ANGLE), 0]])
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    for corner in np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        positions += list(molecule + 3.1 * corner)
    topology.setPeriodicBoxVectors([Vec3(*row) for row in 0.93 * np.eye(3)] * nanometers)
    forcefield = app.ForceField("tip4pew.xml")
    modeller = app.Modeller(topology, [Vec3(*x) for x in np.array(positions) / 10] * nanometers)
    modeller.addExtraParticles(forcefield)
    return modeller.topology, modeller.positions, forcefield.createSystem(modeller.topology, rigidWater=False)


def test_tip4p(water: tuple[Any, Any, Any], backend: str) -> None:
    import openmm
    from openmm import unit
    from openmm.unit import nanometers  # type: ignore[attr-defined]

    topology, positions, classical = water
    atoms = [atom.index for atom in topology.atoms() if atom.element is not None]
    sites = sorted(set(range(topology.getNumAtoms())) - set(atoms))
    assert len(sites) == 27
    potential = make_potential()
    with pytest.raises(MdpotError, match=r"atom 3 .* has no element.*atoms=\[a\.index for a in"):
        create_system(topology, potential, backend)
    system = create_system(topology, potential, backend, atoms=atoms)
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
    assert [i for i, mass in enumerate(masses) if mass == 0] == sites
    assert masses[0] == pytest.approx(15.999, abs=0.01)
    for index in sites:
        site = classical.getVirtualSite(index)
        parts, weights = ([get(i) for i in range(3)] for get in (site.getParticle, site.getWeight))
        system.setVirtualSite(index, openmm.ThreeParticleAverageSite(*parts, *weights))
    context = make_context(system, 10 * np.array(positions.value_in_unit(nanometers)))
    assert len(context.getMolecules()) == 27

    def check() -> None:
        state = context.getState(getPositions=True)
        x = 10 * state.getPositions(asNumpy=True).value_in_unit(nanometers)
        numbers = [atom.element.atomic_number for atom in topology.atoms() if atom.element is not None]
        energy, forces = reference(potential, Atoms(numbers, x[atoms], cell=9.3 * np.eye(3), pbc=True))
        found, found_forces = results(context)
        assert found == pytest.approx(energy, rel=1e-7)
        np.testing.assert_allclose(found_forces[atoms], forces, atol=1e-4)
        assert not found_forces[sites].any()
        # Where the force field has it: at a fixed mixture of the three atoms.
        np.testing.assert_allclose(x[sites[-1]], np.array(weights) @ x[parts], atol=1e-5)

    context.computeVirtualSites()
    check()
    before = context.getState(getPositions=True).getPositions(asNumpy=True)._value[sites]
    context.getIntegrator().step(5)
    assert (before != context.getState(getPositions=True).getPositions(asNumpy=True)._value[sites]).any()
    check()


@pytest.mark.parametrize("backend", ["native", "python"])
@pytest.mark.parametrize("atoms", [None, [0, 1, 2]])
def test_a_particle_that_came_after_the_force(backend: str, atoms: list[int] | None) -> None:
    openmm = pytest.importorskip("openmm")
    water = water_box(4, np.random.default_rng(0))
    potential = make_tide(backend)
    system = create_system(topology_of(water), potential, backend, atoms=atoms)
    system.addParticle(0.0)
    context = make_context(system, np.vstack([water.positions, np.zeros((1, 3))]))
    if atoms and hasattr(openmm.PythonForce, "setParticles"):
        results(context)  # such a force is passed its own atoms alone
        return
    with pytest.raises(openmm.OpenMMException, match=r"made for 12 particles, and OpenMM passes 13\. Make it for all"):
        results(context)
