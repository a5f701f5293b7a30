"""Cheap things to run: calculators, structures, an OpenMM system; what stops a run, and what it logged."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.io import write

from mdpot.simulate.log import Row

EPSILON, SIGMA = 0.0103, 3.4  # eV, Å: argon


class Constant(Calculator):
    """The same forces everywhere; an energy that moves by `leak` (eV) with each evaluation.

    Args:
        push: eV/Å, along x, alternately up and down from atom to atom.
        leak: eV.
        rotten: evaluation from which on the forces are NaN.
        stress: whether it gives the stress, which is zero.
        fails: evaluation from which on it raises `error`.
        error: see `fails`.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        push: float = 0.0,
        leak: float = 0.0,
        rotten: float = np.inf,
        stress: bool = True,
        fails: float = np.inf,
        error: Exception | None = None,
    ) -> None:
        super().__init__()
        self.push, self.leak, self.rotten, self.fails, self.error = push, leak, rotten, fails, error
        self.calls = 0
        if not stress:
            self.implemented_properties = ["energy", "forces"]

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.error is not None and self.calls >= self.fails:
            raise self.error
        forces = np.zeros((len(atoms), 3))
        forces[::2, 0], forces[1::2, 0] = self.push, -self.push
        if self.calls >= self.rotten:
            forces[:] = np.nan
        self.results = {"energy": self.calls * self.leak, "forces": forces}
        if "stress" in self.implemented_properties:
            self.results["stress"] = np.zeros(6)


@pytest.fixture
def constant() -> type[Constant]:
    return Constant


@pytest.fixture
def argon() -> Atoms:
    """13 atoms in the gas phase, at rest near their minimum."""
    atoms = Icosahedron("Ar", 2, latticeconstant=5.2)
    return Atoms(atoms.numbers, atoms.positions)


@pytest.fixture
def argon_file(argon: Atoms, tmp_path: Path) -> str:
    write(tmp_path / "argon.xyz", argon)
    return str(tmp_path / "argon.xyz")


@pytest.fixture
def gas_file(tmp_path: Path) -> str:
    """20 atoms in a periodic box, on a lattice."""
    positions = np.stack(np.meshgrid(*[[1.0, 5.0, 9.0]] * 3), axis=-1).reshape(-1, 3)[:20]
    write(tmp_path / "gas.xyz", Atoms("Ar20", positions, cell=[12.0] * 3, pbc=True))
    return str(tmp_path / "gas.xyz")


@pytest.fixture
def lennard_jones() -> Callable[[], LennardJones]:
    return lambda: LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=1000.0)


@pytest.fixture
def lennard_jones_system() -> Callable[[Any], Any]:
    """Makes the OpenMM system of a topology of argon, with the forces of `lennard_jones`."""
    openmm = pytest.importorskip("openmm")

    def make(topology: Any) -> Any:
        from mdpot.units import KJ_PER_MOL

        # Not a NonbondedForce: its sums differ in the last digit from run to run.
        force = openmm.CustomBondForce(f"4*{EPSILON / KJ_PER_MOL}*(x^12-x^6); x={SIGMA / 10}/r")
        system, n_atoms = openmm.System(), topology.getNumAtoms()
        for index in range(n_atoms):
            system.addParticle(1.0)
            for other in range(index):
                force.addBond(index, other)
        system.addForce(force)
        return system

    return make


@pytest.fixture
def ideal_gas_system() -> Callable[[Any], Any]:
    """Makes an OpenMM system without forces, periodic."""
    openmm = pytest.importorskip("openmm")

    def make(topology: Any) -> Any:
        system, force = openmm.System(), openmm.NonbondedForce()
        force.setNonbondedMethod(force.CutoffPeriodic)
        force.setCutoffDistance(0.01)
        for _ in topology.atoms():
            system.addParticle(1.0)
            force.addParticle(0.0, 0.1, 0.0)
        system.addForce(force)
        return system

    return make


def log_without_speed(out: Path) -> list[list[str]]:
    with (out / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


class Interrupter:
    """An observer that presses Ctrl-C after some lines of the log."""

    def __init__(self, after: int) -> None:
        self.left = after

    def phase(self, text: str) -> None:
        pass

    def row(self, row: Row, n_steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
