"""What a System takes from the topology: heavier hydrogens, and whether there is a box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openmm")

import openmm
from ase import Atoms
from ase.build import molecule
from openmm import Vec3, app
from openmm.unit import Quantity, dalton, grams, mole, nanometers  # type: ignore[attr-defined]

from mdpot.errors import MdpotError
from mdpot.openmm import create_force, create_system

from .conftest import make_context, make_potential, topology_of

PDB = """\
CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1
HETATM    1  O   HOH A   1       0.000   0.000   0.119  1.00  0.00           O
HETATM    2  H1  HOH A   1       0.000   0.763  -0.477  1.00  0.00           H
HETATM    3  H2  HOH A   1       0.000  -0.763  -0.477  1.00  0.00           H
END
"""


def bonded(atoms: Atoms, *bonds: tuple[int, int]) -> Any:
    topology = topology_of(atoms)
    listed = list(topology.atoms())
    for i, j in bonds:
        topology.addBond(listed[i], listed[j])
    return topology


def masses(system: Any) -> list[float]:
    return [system.getParticleMass(i).value_in_unit(dalton) for i in range(system.getNumParticles())]


@pytest.mark.parametrize("mass", [3, 3.0, Quantity(3, dalton), Quantity(3, grams / mole)])
def test_hydrogens_get_heavier_as_by_a_force_field_of_openmm(mass):
    field = app.ForceField("amber14/tip3p.xml")
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[2], atoms[0])  # either order
    expected = masses(field.createSystem(topology, rigidWater=False, hydrogenMass=Quantity(3, dalton)))
    found = masses(create_system(topology, make_potential(), "python", hydrogenMass=mass))
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[1] == pytest.approx(3, abs=1e-6)
    assert sum(found) == pytest.approx(sum(masses(create_system(topology, make_potential(), "python"))), rel=1e-12)


def test_hydrogens_get_heavier_beside_sites_without_mass():
    topology = bonded(molecule("H2O"), (0, 1), (0, 2))
    topology.addAtom("M", None, topology.addResidue("M", next(iter(topology.chains()))))
    found = masses(create_system(topology, make_potential(), "python", atoms=[0, 1, 2], periodic=False, hydrogenMass=2))
    assert found == pytest.approx([18.0153 - 4, 2, 2, 0], abs=1e-3)


@pytest.mark.parametrize(
    ("mass", "bonds", "message"),
    [
        (3, [(0, 1)], r"hydrogenMass: hydrogen 2 \(X of ATM 3\) has no bond to a heavy atom.*topology\.addBond"),
        (3, [(0, 1), (1, 2)], "hydrogenMass: hydrogen 2 .* has no bond to a heavy atom"),
        (8.6, [(0, 1), (0, 2)], r"hydrogen mass of 8\.6 u leaves a heavy atom with 0\.82 u"),
        (1, [(0, 1), (0, 2)], r"must not be below what hydrogens have; atom 1 has 1.0079. u, got 1 u"),
        (float("nan"), [(0, 1), (0, 2)], "hydrogen mass must not be below"),
        ("heavy", [(0, 1), (0, 2)], "hydrogenMass must be a mass, in u or with its unit; got 'heavy'"),
        (Quantity(3, nanometers), [(0, 1), (0, 2)], "hydrogenMass must be a mass, in u or with its unit; got "),
    ],
)
def test_hydrogen_masses_that_cannot_be(mass, bonds, message):
    with pytest.raises(MdpotError, match=message):
        create_system(bonded(molecule("H2O"), *bonds), make_potential(), "python", hydrogenMass=mass)


def test_unknown_options():
    with pytest.raises(MdpotError, match=r"option of create_system 'removeCMMotion'\. Did you mean 'remove_cm_motion'"):
        create_system(topology_of(molecule("H2O")), make_potential(), "python", removeCMMotion=False)


def test_the_box_of_a_pdb_file_that_has_none(tmp_path):
    (tmp_path / "water.pdb").write_text(PDB)
    pdb, potential = app.PDBFile(str(tmp_path / "water.pdb")), make_potential()
    for make in (create_system, lambda *given: create_force(*given[::-1])):
        with pytest.raises(MdpotError, match=r"box is a cube of 1 Å.*topology\.setPeriodicBoxVectors\(None\)"):
            make(pdb.topology, potential)
    with pytest.raises(MdpotError, match="box is a cube of 1 Å"):
        create_system(pdb.topology, potential, "python", periodic=True)
    positions = molecule("H2O").positions
    with_box = openmm.System()
    for mass in (16, 1, 1):
        with_box.addParticle(mass)
    with_box.setDefaultPeriodicBoxVectors(*(Vec3(*row) for row in 3 * np.eye(3)))
    with_box.addForce(create_force(potential, pdb.topology, "python", periodic=True))
    energy = make_context(with_box, positions).getState(getEnergy=True).getPotentialEnergy()._value
    pdb.topology.setPeriodicBoxVectors(None)
    with pytest.raises(MdpotError, match=r"topology has no box, and OpenMM would take a cube of 2 nm"):
        create_system(pdb.topology, potential, "python", periodic=True)
    free = make_context(create_system(pdb.topology, potential, "python"), positions)
    assert energy == pytest.approx(free.getState(getEnergy=True).getPotentialEnergy()._value, abs=1e-2)
