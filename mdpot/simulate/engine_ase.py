"""Molecular dynamics by ASE's integrators, with any ASE calculator."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from mdpot.errors import MdpotError
from mdpot.simulate.engine import Dynamics, State, degrees_of_freedom, kinetic_energy, rest
from mdpot.units import BAR

INTEGRATORS = {"nve": "velocity Verlet", "nvt": "Langevin (BAOAB)", "npt": "Langevin piston"}
PISTON = ("p_eps", "force_eps")  # what the integrator knows of the motion of the cell
FORCE_TOLERANCE = 0.1  # eV/Å: where minimization ends


class RestingLangevin(LangevinBAOAB):
    """ASE's Langevin dynamics (BAOAB; Leimkuhler and Matthews, J. Chem. Phys. 138, 174102) without drift.

    The random forces push the center of mass. Taking its motion out after every step leaves the canonical
    ensemble of the 3N − 3 other degrees of freedom, for it is an orthogonal projection in mass-weighted
    coordinates.
    """

    def step(self) -> None:
        """ASE's own step, in which momenta and velocities are turned into each other ten times, in a tenth of the time.

        The kernels need half a millisecond for a small box: what surrounds them counts.
        """
        atoms, half, masses = self.atoms, 0.5 * self.dt, self.masses
        if atoms.constraints or not self.hydrostatic:
            super().step()
            atoms.set_velocities(rest(atoms.get_velocities(), masses[:, 0]))
            return
        velocities = atoms.arrays["momenta"] / masses
        drag = self.gamma
        if self.externalstress is not None:
            self._barostat_BAOAB_B()
            self._scale_cell(half)
            self.gamma_mod = self._barostat_BAOAB_OU_gamma_mod()
            drag += self.gamma_mod
        velocities += half * self.accel
        atoms.positions += half * velocities
        velocities *= np.exp(-drag * self.dt)
        velocities += self.BAOAB_prefactor * (self.rng.normal(size=velocities.shape) / np.sqrt(masses))
        atoms.positions += half * velocities
        if self.externalstress is not None:
            self._barostat_BAOAB_OU()
            self._scale_cell(half)
        self._update_accel()
        if self.externalstress is not None:
            self._update_force_on_volume(velocities)
            self._barostat_BAOAB_B()
        velocities += half * self.accel
        atoms.arrays["momenta"][:] = masses * rest(velocities, masses[:, 0])

    def _scale_cell(self, time: float) -> None:
        """Cell and positions after a time in which the barostat keeps its momentum (`_barostat_BAOAB_A`)."""
        scale = np.exp(time * self.p_eps / self.barostat_mass)
        self.atoms.cell.array[:] *= scale
        self.atoms.positions *= scale

    def _update_force_on_volume(self, velocities: np.ndarray) -> None:
        """The force on the logarithm of the cell's length, Quigley and Probert's eq. 6 (`_update_force_eps`)."""
        twice_kinetic = float((self.masses * velocities * velocities).sum())
        external: Any = self.externalstress
        excess = 3.0 * external - float(self.stress[:3].sum())
        self.force_eps = self.atoms.get_volume() * excess + (1.0 + 3.0 / self.Ndof) * twice_kinetic

    def _update_accel(self) -> None:
        if self.externalstress is not None:
            # Stress first: a calculator that gives the forces with it is then called once a step.
            self.stress = self.atoms.get_stress()
        self.accel = self.atoms.get_forces() / self.masses


class AseEngine:
    """See `Engine`.

    NVE is velocity Verlet, NVT Langevin (BAOAB), and NPT Langevin with an isotropic Langevin piston (Quigley
    and Probert, J. Chem. Phys. 120, 11432).

    Args:
        atoms: structure; the engine works on a copy.
        calculator: any ASE calculator; stress is asked of it for NPT only.
        dynamics: what to integrate.

    Raises:
        MdpotError: NPT with a calculator that has no stress.
    """

    name = "ase"

    def __init__(self, atoms: Atoms, calculator: BaseCalculator, dynamics: Dynamics) -> None:
        self.atoms, self._atoms = atoms.copy(), atoms.copy()
        self._atoms.calc = calculator
        self.dynamics = dynamics
        self.rng = np.random.default_rng(dynamics.seed)
        self._step = 0
        integrator = INTEGRATORS[dynamics.ensemble]
        engine = getattr(calculator, "engine", None)
        forces = type(calculator).__name__ + (f" by {engine}" if engine else "")
        self.description = f"ASE, {integrator}, forces of {forces}"
        self._integrator: Any = None  # made at the first step: it asks for forces
        if dynamics.ensemble == "npt":
            self._check_stress()

    def minimize(self, max_steps: int) -> None:
        FIRE(self._atoms, logfile=os.devnull).run(fmax=FORCE_TOLERANCE, steps=max_steps)

    def set_velocities(self, velocities: np.ndarray) -> None:
        self._atoms.set_velocities(velocities / units.fs)

    def step(self, n_steps: int) -> None:
        if self._integrator is None:
            self._integrator = self._make_integrator()
        # Not `run`, which asks for the forces once more after every step, for loggers that there are none of.
        for _ in range(n_steps):
            self._integrator.step()
        self._step += n_steps

    def state(self) -> State:
        velocities = self._atoms.get_velocities() * units.fs
        return State(
            step=self._step,
            time=self._step * self.dynamics.dt,
            positions=self._atoms.get_positions(),
            velocities=velocities,
            cell=self._atoms.cell.array.copy(),
            potential=float(self._atoms.get_potential_energy()),
            kinetic=kinetic_energy(velocities, self._atoms.get_masses()),
        )

    def is_finite(self) -> bool:
        return bool(np.isfinite(self._atoms.positions).all())

    def snapshot(self) -> dict[str, np.ndarray]:
        return {
            "step": np.array(self._step),
            "positions": self._atoms.get_positions(),
            "momenta": self._atoms.get_momenta(),
            "cell": self._atoms.cell.array.copy(),
            "piston": np.array([getattr(self._integrator, name, 0.0) for name in PISTON]),
            "rng": np.array(json.dumps(self.rng.bit_generator.state)),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._step = int(arrays["step"])
        self._atoms.set_cell(arrays["cell"])
        self._atoms.set_positions(arrays["positions"])
        self._atoms.set_momenta(arrays["momenta"])
        self.rng.bit_generator.state = json.loads(str(arrays["rng"]))
        self._integrator = self._make_integrator()
        # Before the first step a new integrator knows them, and the snapshot, older than any integrator, does not.
        if self.dynamics.ensemble == "npt" and self._step > 0:
            for name, value in zip(PISTON, arrays["piston"].tolist(), strict=True):
                setattr(self._integrator, name, value)

    def _make_integrator(self) -> VelocityVerlet | RestingLangevin:
        d = self.dynamics
        dt = d.dt * units.fs
        if d.ensemble == "nve":
            return VelocityVerlet(self._atoms, dt)
        langevin = {
            "temperature_K": d.temperature,
            "T_tau": 1000 * units.fs / d.friction,
            "hydrostatic": True,
        }
        if d.ensemble == "nvt":
            return RestingLangevin(self._atoms, dt, rng=self.rng, **langevin)
        ndof, tau = degrees_of_freedom(len(self._atoms)), d.pdamp * units.fs
        integrator = RestingLangevin(
            self._atoms,
            dt,
            rng=self.rng,
            externalstress=-d.pressure * BAR,
            P_tau=tau,
            P_mass=(ndof + 3) * units.kB * d.temperature * tau**2,
            **langevin,
        )
        integrator.Ndof = ndof
        return integrator

    def _check_stress(self) -> None:
        try:
            self._atoms.get_stress()
        except PropertyNotImplementedError:
            raise MdpotError("ensemble npt needs the stress, which this potential does not give. Take nvt.") from None
