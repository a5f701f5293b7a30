"""Engines: what they conserve, what they sample, and that the two of them agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.md.langevinbaoab import LangevinBAOAB

from mdpot.errors import MdpotError
from mdpot.simulate import Dynamics, water_box
from mdpot.simulate.engine import (
    Engine,
    degrees_of_freedom,
    density,
    kinetic_energy,
    maxwell_boltzmann,
    repartition,
    rest,
)
from mdpot.simulate.engine_ase import AseEngine
from mdpot.units import BAR, BOLTZMANN

Make = Callable[..., Any]


def start(engine: Engine, temperature: float) -> Engine:
    rng = np.random.default_rng(0)
    engine.set_velocities(maxwell_boltzmann(engine.atoms.get_masses(), temperature, rng))
    return engine


def openmm_engine(atoms: Atoms, make: Make, dynamics: Dynamics) -> Engine:
    pytest.importorskip("openmm")
    from mdpot.simulate.engine_openmm import OpenMMEngine, make_topology

    return OpenMMEngine(atoms, make(make_topology(atoms)), dynamics, platform="Reference")


def test_kinetic_energy_and_density_are_those_of_ase() -> None:
    atoms = molecule("CH3CH2OH")
    atoms.set_cell([5, 6, 7])
    velocities = np.random.default_rng(0).normal(size=(9, 3)) * 0.01
    atoms.set_velocities(velocities / units.fs)
    ours = kinetic_energy(velocities, atoms.get_masses())
    assert ours == pytest.approx(atoms.get_kinetic_energy(), rel=1e-6)
    ase = atoms.get_masses().sum() * units._amu * 1e3 / (210 * 1e-24)
    assert density(atoms.get_masses(), 210.0) == pytest.approx(ase, rel=1e-6)
    assert density(atoms.get_masses(), 0.0) is None


def test_maxwell_boltzmann() -> None:
    masses = np.tile([15.999, 1.008, 1.008], 2000)
    velocities = maxwell_boltzmann(masses, 300.0, np.random.default_rng(0))
    assert np.abs(masses @ velocities).max() < 1e-9
    temperature = 2 * kinetic_energy(velocities, masses) / (BOLTZMANN * degrees_of_freedom(len(masses)))
    assert temperature == pytest.approx(300, rel=0.03)
    per_element = [masses[0] * (velocities[::3] ** 2).mean(), masses[1] * (velocities[1::3] ** 2).mean()]
    assert per_element[0] == pytest.approx(per_element[1], rel=0.06)
    again = maxwell_boltzmann(masses, 300.0, np.random.default_rng(0))
    assert np.array_equal(velocities, again)


def test_nve_conserves_energy_and_momentum(argon: Atoms, lennard_jones: Make) -> None:
    engine = start(AseEngine(argon, lennard_jones(), Dynamics(ensemble="nve", dt=2.0)), 20.0)
    first = engine.state()
    totals = []
    for _ in range(20):
        engine.step(50)
        totals.append(engine.state().total)
    last = engine.state()
    assert last.step == 1000
    assert last.time == pytest.approx(2000.0)
    assert np.abs(last.positions - first.positions).max() > 0.05
    assert np.abs(np.array(totals) - first.total).max() / len(argon) < 1e-4
    assert np.abs(argon.get_masses() @ last.velocities).max() < 1e-9


def test_halving_the_step_quarters_the_error(argon: Atoms, lennard_jones: Make) -> None:
    """Velocity Verlet is of second order; a wrong unit of time or mass would spoil that or the scale."""
    errors = []
    for dt in (8.0, 4.0):
        engine = start(AseEngine(argon, lennard_jones(), Dynamics(ensemble="nve", dt=dt)), 20.0)
        first, totals = engine.state().total, []
        for _ in range(round(1600 / dt)):
            engine.step(1)
            totals.append(engine.state().total)
        errors.append(np.abs(np.array(totals) - first).max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)


def test_ase_and_openmm_go_the_same_way(argon: Atoms, lennard_jones: Make, lennard_jones_system: Make) -> None:
    dynamics = Dynamics(ensemble="nve", dt=2.0)
    ase = start(AseEngine(argon, lennard_jones(), dynamics), 20.0)
    openmm = start(openmm_engine(argon, lennard_jones_system, dynamics), 20.0)
    for _ in range(3):
        one, two = ase.state(), openmm.state()
        assert two.positions == pytest.approx(one.positions, abs=1e-7)
        assert two.velocities == pytest.approx(one.velocities, abs=1e-9)
        assert two.kinetic == pytest.approx(one.kinetic, rel=1e-6)
        assert two.potential == pytest.approx(one.potential, rel=1e-6)
        assert (two.step, two.time) == (one.step, one.time)
        ase.step(100)
        openmm.step(100)


@pytest.mark.parametrize("which", ["ase", "openmm"])
def test_nvt_has_its_temperature(which: str, argon: Atoms, constant: Make, ideal_gas_system: Make) -> None:
    """Free particles forget their velocities at the rate of the friction; samples are then independent."""
    dynamics = Dynamics(ensemble="nvt", dt=10.0, temperature=300.0, friction=20.0, seed=1)
    argon.set_cell([30.0] * 3)
    argon.pbc = True
    engine = (
        AseEngine(argon, constant(), dynamics) if which == "ase" else openmm_engine(argon, ideal_gas_system, dynamics)
    )
    start(engine, 300.0)
    temperatures = []
    for _ in range(400):
        engine.step(6)
        temperatures.append(engine.state().temperature)
    # Standard deviation of a temperature with 36 degrees of freedom: sqrt(2/36) of it.
    assert np.std(temperatures) == pytest.approx(300 * np.sqrt(2 / 36), rel=0.2)
    assert np.mean(temperatures) == pytest.approx(300, abs=4 * 300 * np.sqrt(2 / 36) / np.sqrt(200))
    assert np.abs(engine.atoms.get_masses() @ engine.state().velocities).max() < 1e-6


@pytest.mark.parametrize("which", ["ase", "openmm"])
def test_npt_of_an_ideal_gas(which: str, constant: Make, ideal_gas_system: Make) -> None:
    """⟨V⟩ = (N + 1) k_B T / P, and the relative fluctuation is 1 / sqrt(N + 1)."""
    n, pressure, temperature = 20, 1000.0, 300.0
    expected = (n + 1) * BOLTZMANN * temperature / (pressure * BAR)
    length = expected ** (1 / 3)
    positions = np.random.default_rng(0).uniform(0, length, (n, 3))
    atoms = Atoms(f"Ar{n}", positions, cell=[length] * 3, pbc=True)
    dynamics = Dynamics("npt", 10.0, temperature, pressure, friction=10.0, pdamp=300.0, seed=3)
    engine = (
        AseEngine(atoms, constant(), dynamics) if which == "ase" else openmm_engine(atoms, ideal_gas_system, dynamics)
    )
    start(engine, temperature)
    engine.step(200)
    volumes = []
    for _ in range(300):
        engine.step(20 if which == "ase" else 200)
        volumes.append(engine.state().volume)
    assert np.mean(volumes) == pytest.approx(expected, rel=0.12)
    assert np.std(volumes) / expected == pytest.approx(1 / np.sqrt(n + 1), rel=0.35)


def test_npt_needs_a_stress(argon: Atoms, constant: Make) -> None:
    argon.set_cell([20.0] * 3)
    argon.pbc = True
    with pytest.raises(MdpotError, match="needs the stress"):
        AseEngine(argon, constant(stress=False), Dynamics(ensemble="npt"))


def test_minimize(argon: Atoms, lennard_jones: Make, lennard_jones_system: Make) -> None:
    argon.rattle(0.2, seed=1)
    energies = []
    for engine in (
        AseEngine(argon, lennard_jones(), Dynamics()),
        openmm_engine(argon, lennard_jones_system, Dynamics()),
    ):
        before = engine.state().potential
        engine.minimize(300)
        energies.append(engine.state().potential)
        assert energies[-1] < before
    assert energies[0] == pytest.approx(energies[1], abs=0.15)


def test_npt_from_a_snapshot_before_the_first_step() -> None:
    """What is saved then knows no integrator yet."""
    ends = []
    snapshot: dict[str, np.ndarray] = {}
    for restored in (False, True):
        atoms = bulk("Ar", "fcc", a=5.2, cubic=True).repeat(2)
        engine = AseEngine(
            atoms,
            LennardJones(sigma=3.4, epsilon=0.01, rc=7.0),
            Dynamics("npt", 20.0, pressure=1.0, pdamp=100.0, seed=2),
        )
        if restored:
            engine.restore(snapshot)
        else:
            start(engine, 20.0)
            snapshot = engine.snapshot()
        engine.step(10)
        ends.append(np.vstack([engine.state().cell, engine.state().positions]))
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-10)


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_a_langevin_step_is_ases(ensemble: str) -> None:
    ends = []
    for ours in (True, False):
        atoms = bulk("Ar", "fcc", a=5.2, cubic=True).repeat(2)
        dynamics = Dynamics(ensemble, 20.0, pressure=2000.0, friction=5.0, pdamp=100.0, seed=2)
        engine = AseEngine(atoms, LennardJones(sigma=3.4, epsilon=0.01, rc=7.0), dynamics)
        start(engine, 60.0)
        engine.step(1)
        moved = engine._atoms
        for _ in range(30):
            if ours:
                engine.step(1)
            else:
                LangevinBAOAB.step(engine._integrator)
                moved.set_velocities(rest(moved.get_velocities(), moved.get_masses()))
        ends.append(np.vstack([moved.cell.array, moved.positions, moved.get_velocities()]))
    assert ensemble == "nvt" or abs(ends[0][0, 0] - 10.4) > 0.05
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-11, atol=1e-12)


def test_npt_asks_once_a_step(constant: Make) -> None:
    calculator = constant()
    atoms = bulk("Cu", cubic=True)
    engine = start(AseEngine(atoms, calculator, Dynamics(ensemble="npt")), 300.0)
    engine.step(1)
    before = calculator.calls
    engine.step(50)
    engine.state()
    assert calculator.calls - before == 50


def test_repartition_keeps_the_mass() -> None:
    atoms = water_box(3, np.random.default_rng(0))
    masses = repartition(atoms, 3.0)
    assert masses.sum() == pytest.approx(atoms.get_masses().sum())
    assert (masses[atoms.numbers == 1] == 3.0).all()
    with pytest.raises(MdpotError, match="without a heavy atom"):
        repartition(Atoms("H"), 3.0)
    with pytest.raises(MdpotError, match="leaves a heavy atom"):
        repartition(atoms, 9.0)
    heavy = Atoms("OH2", atoms.positions[:3], masses=[15.999, 1.008, 2.014])
    assert repartition(heavy, 3.0).tolist() == pytest.approx([15.999 - 1.992 - 0.986, 3.0, 3.0])
    with pytest.raises(MdpotError, match=r"must not be below what hydrogens have; atom 2 has 2\.014 u, got 1\.5 u"):
        repartition(heavy, 1.5)


def test_openmm_frame_is_the_same_lattice() -> None:
    pytest.importorskip("openmm")
    from mdpot.simulate.engine_openmm import to_openmm_frame

    rng = np.random.default_rng(0)
    for seed in range(5):
        cell = 6 * np.eye(3) + rng.normal(size=(3, 3)) * 2
        if np.linalg.det(cell) < 0:
            cell = -cell
        atoms = Atoms("Ar4", rng.uniform(0, 6, (4, 3)), cell=cell, pbc=True)
        turned = to_openmm_frame(atoms)
        a, b, c = turned.cell.array
        assert a[1] == a[2] == b[2] == 0, seed
        assert a[0] > 0
        assert b[1] > 0
        assert c[2] > 0
        assert a[0] >= 2 * abs(b[0]) - 1e-9
        assert a[0] >= 2 * abs(c[0]) - 1e-9
        assert b[1] >= 2 * abs(c[1]) - 1e-9
        assert turned.get_volume() == pytest.approx(atoms.get_volume())
        one, two = atoms.get_all_distances(mic=True), turned.get_all_distances(mic=True)
        assert two == pytest.approx(one, abs=1e-9)
    slab = Atoms("Ar", cell=[5, 5, 0], pbc=[True, True, False])
    with pytest.raises(MdpotError, match="all directions or in none"):
        to_openmm_frame(slab)


def test_molecule_bonds() -> None:
    pytest.importorskip("openmm")
    from mdpot.simulate.engine_openmm import molecule_bonds

    box = water_box(16, np.random.default_rng(0))
    box.wrap()  # breaks molecules across the boundary
    expected = [[3 * k, 3 * k + h] for k in range(16) for h in (1, 2)]
    assert sorted(molecule_bonds(box).tolist()) == expected
    assert len(molecule_bonds(bulk("C", cubic=True))) == 0, "a crystal is not a molecule"
    assert len(molecule_bonds(bulk("NaCl", "rocksalt", a=5.64, cubic=True))) == 0
    ethanol = molecule("CH3CH2OH")
    assert len(molecule_bonds(ethanol)) == 8
