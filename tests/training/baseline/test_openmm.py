"""Potentials that correct a force field, in OpenMM: both together, with the charge that is stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from mdpot import MaskedGNNCalculator, MdpotError
from mdpot.kernels import library

from .conftest import atoms_of, with_electrons


@pytest.mark.parametrize(
    ("backend", "atoms"), [("auto", None), ("native", [5, 4, 3, 0, 1, 2]), ("python", None), ("python", [0, 1, 2, 5])]
)
@pytest.mark.parametrize("periodic", [True, False])
def test_openmm_adds_both(backend: str, atoms: list[int] | None, periodic: bool, trained: Path) -> None:
    """As the calculator does, also for some of the particles, and after it was written to XML."""
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force
    from mdpot.units import KJ_PER_MOL, NM

    if backend == "native" and library.is_off():
        pytest.skip("no kernels here")
    structure = atoms_of(periodic)
    chosen = list(range(len(structure))) if atoms is None else sorted(atoms)
    force: Any = create_force(
        trained, structure.numbers.tolist(), backend, atoms=atoms, periodic=periodic, dtype="float64", device="cpu"
    )
    assert force.getName() == f"mdpot {'python' if backend == 'python' else force.backend} and spcfw"
    system = openmm.System()
    for mass in structure.get_masses():
        system.addParticle(mass)
    system.addForce(openmm.XmlSerializer.clone(force))
    if periodic:
        system.setDefaultPeriodicBoxVectors(*(structure.cell.array / NM))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(structure.positions / NM)
    found = context.getState(energy=True, forces=True)
    part = structure[chosen]
    part.calc = MaskedGNNCalculator(trained, dtype="float64")
    assert found.getPotentialEnergy()._value * KJ_PER_MOL == pytest.approx(part.get_potential_energy(), abs=1e-8)
    forces = found.getForces(asNumpy=True)._value * KJ_PER_MOL / NM
    np.testing.assert_allclose(forces[chosen], part.get_forces(), atol=1e-7)
    np.testing.assert_array_equal(np.delete(forces, chosen, 0), 0.0)


def test_openmm_runs_a_force_field_by_python_alone(trained: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    with pytest.raises(MdpotError, match=r"'torchforce' runs a network alone.*spcfw: take 'native' or 'python'"):
        create_force(trained, atoms_of().numbers.tolist(), "torchforce", periodic=False)


@pytest.mark.usefixtures("by_charge")
def test_openmm_is_told_the_charge(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    structure = atoms_of()

    def energy(file: Path, **options) -> float:
        force = create_force(file, structure.numbers.tolist(), "python", periodic=False, **options)
        return energy_in_openmm(force, structure)

    neutral = energy(trained)
    assert energy(trained, charge=-1) == pytest.approx(neutral - 1, abs=1e-6)
    file = with_electrons(trained, {"charge": 2, "unpaired": 2}, tmp_path / "ion.safetensors")
    assert energy(file) == pytest.approx(neutral + 202, abs=1e-6)
    assert energy(file, multiplicity=1) == pytest.approx(neutral + 2, abs=1e-6)
    with pytest.warns(UserWarning, match="has a charge of 0; the potential was trained at 2"):
        assert energy(file, charge=0) == pytest.approx(neutral + 200, abs=1e-6)
    with pytest.raises(MdpotError, match="18 electrons, of which -1 cannot be unpaired"):
        energy(file, multiplicity=0)
    file = with_electrons(trained, "stated", tmp_path / "both.safetensors")
    with pytest.raises(MdpotError, match="several charges"):
        energy(file)
    with pytest.raises(MdpotError, match="a network alone, and sees neither"):
        energy(Path("water-rpbe-small"), charge=1)


@pytest.mark.usefixtures("by_charge")
def test_openmm_takes_the_formal_charges_of_the_topology(trained: Path, tmp_path: Path) -> None:
    """Those of the atoms that the potential is for, unless the charge is said; zeros say nothing."""
    app = pytest.importorskip("openmm.app")
    from mdpot.openmm import create_force

    structure = atoms_of()

    def energy(*formal: int | None, file: Path = trained, **options) -> float:
        topology = app.Topology()
        residue = topology.addResidue("X", topology.addChain())
        for index, number in enumerate(structure.numbers):
            element = app.Element.getByAtomicNumber(int(number))
            topology.addAtom("X", element, residue, formalCharge=formal[index] if index < len(formal) else None)
        return energy_in_openmm(create_force(file, topology, "python", **options), structure)

    neutral, part = energy(), range(1, len(structure))
    assert energy(-1) == pytest.approx(neutral - 1, abs=1e-6)
    assert energy(-1, 1, -2, 0) == pytest.approx(neutral - 2, abs=1e-6)
    assert energy(1, None, 1, atoms=part) == pytest.approx(energy(atoms=part) + 1, abs=1e-6)
    assert energy(-2, charge=2) == pytest.approx(neutral + 2, abs=1e-6)
    file = with_electrons(trained, {"charge": 2}, tmp_path / "ion.safetensors")
    assert energy(0, 0, 0, file=file) == pytest.approx(neutral + 2, abs=1e-6)
    with pytest.warns(UserWarning, match="has a charge of 1; the potential was trained at 2"):
        assert energy(1, file=file) == pytest.approx(neutral + 1, abs=1e-6)


def energy_in_openmm(force: Any, structure: Atoms) -> float:
    import openmm

    from mdpot.units import KJ_PER_MOL, NM

    system = openmm.System()
    for mass in structure.get_masses():
        system.addParticle(mass)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(structure.positions / NM)
    return context.getState(energy=True).getPotentialEnergy()._value * KJ_PER_MOL
