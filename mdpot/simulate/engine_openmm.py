"""Molecular dynamics by OpenMM's integrators, with the forces of an OpenMM system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import covalent_radii

from mdpot import molecules
from mdpot.errors import MdpotError
from mdpot.exported import without_traceback
from mdpot.molecules import is_bond
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.simulate.barostat import Barostat, Structure
from mdpot.simulate.engine import Dynamics, State, kinetic_energy, rest
from mdpot.units import AMU_A2_PER_FS2, KJ_PER_MOL, NM

BOND_FACTOR = 1.2  # of the covalent radii: tighter than for masking, for the run must not part what is bonded
BAROSTAT_INTERVAL = 25  # steps between trial moves of the volume
DRIFT = "CMMotionRemover"
NONMETALS = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)  # H, C, N, O, F, P, S, Cl, Br, I
# Of a platform that knows them: a seed decides a run to the last bit; energy drifts less than in single.
PROPERTIES = {"DeterministicForces": "true", "Precision": "mixed"}
FORCE_TOLERANCE = 100  # kJ/mol/nm, root mean square: where minimization ends
VELOCITY = 1e-2  # Å/fs in nm/ps
FORCE = KJ_PER_MOL / NM  # kJ/mol/nm in eV/Å


def to_openmm_frame(atoms: Atoms) -> Atoms:
    """A copy turned and described as OpenMM wants it: a lower triangular cell in reduced form, or no cell.

    The lattice and the distances are those of the original.

    Raises:
        MdpotError: periodic in some directions only.
    """
    atoms = atoms.copy()
    if not atoms.pbc.any():
        atoms.set_cell(None)
        return atoms
    if not atoms.pbc.all():
        raise MdpotError(
            f"engine openmm takes structures that are periodic in all directions or in none; got pbc = "
            f"{atoms.pbc.tolist()}. Use engine ase."
        )
    lower, rotation = atoms.cell.standard_form()
    # Of lower = cell @ rotation.T only the orientation is new; the positions turn along.
    positions = atoms.positions @ rotation.T
    a, b, c = lower.array
    c = c - b * round(c[1] / b[1])
    c = c - a * round(c[0] / a[0])
    b = b - a * round(b[0] / a[0])
    atoms.set_cell(Cell(np.array([a, b, c])))
    atoms.set_positions(positions)
    return atoms


def molecule_bonds(atoms: Atoms) -> np.ndarray:
    """The bonds [n_bonds, 2] of all finite molecules; what is bonded to its own image has none."""
    return find_molecules(atoms)[2]


def find_molecules(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The finite molecules; the atoms of what is bonded to its own image are each on their own.

    Two nonmetal atoms are bonded that are closer than `BOND_FACTOR` times the sum of their covalent radii: what holds
    together for the length of a run. A barostat that moves as a whole what falls apart would give a wrong
    pressure.

    Returns:
        The molecule of each atom [n_atoms], from 0 on; the image of the cell [n_atoms, 3] in which it is next to the
        others of its molecule; and the bonds [n_bonds, 2].
    """
    numbers, n_atoms = atoms.numbers, len(atoms)
    nonmetal = np.isin(numbers, NONMETALS)
    reach = 2.0 * BOND_FACTOR * covalent_radii[numbers[nonmetal]].max(initial=0.0)
    pairs, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach or BOND_FACTOR)
    squared = np.square(pair_vectors(atoms.positions, atoms.cell.array, pairs, shifts)).sum(axis=1)
    i, j = pairs
    bonded = is_bond(numbers[i], numbers[j], squared, BOND_FACTOR) & nonmetal[i] & nonmetal[j]
    pairs, shifts = pairs[:, bonded], shifts[bonded]
    molecule, images = molecules.find_molecules(numbers, pairs, shifts)
    # By its first atom each, so that those without a molecule are one each and all are in the order of the atoms.
    first = np.full(n_atoms, n_atoms)
    np.minimum.at(first, molecule[molecule >= 0], np.flatnonzero(molecule >= 0))
    root = np.where(molecule < 0, np.arange(n_atoms), first[molecule])
    keep = (pairs[0] < pairs[1]) & (molecule[pairs[0]] >= 0)
    return np.unique(root, return_inverse=True)[1], images, pairs[:, keep].T


def make_topology(atoms: Atoms) -> Any:
    """An OpenMM topology of the atoms, in their order, all in one residue."""
    from openmm import Vec3, app

    topology = app.Topology()
    residue = topology.addResidue("SYS", topology.addChain())
    for index, number in enumerate(atoms.numbers):
        topology.addAtom(f"A{index}", app.Element.getByAtomicNumber(int(number)), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([Vec3(*row) for row in atoms.cell.array / NM])
    return topology


@contextmanager
def one_line() -> Iterator[None]:
    """Turns OpenMM's exceptions (what a force raised, a coordinate that is NaN) into a MdpotError."""
    from openmm import OpenMMException

    try:
        yield
    except OpenMMException as error:
        raise MdpotError(without_traceback(str(error)) or "the forces failed.") from error


class OpenMMEngine:
    """See `Engine`.

    NVE is OpenMM's Verlet integrator, NVT its Langevin middle integrator, and NPT that with a Monte Carlo barostat
    of ours.

    Args:
        atoms: structure in the frame of `to_openmm_frame`; its masses are used.
        system: OpenMM system with the forces; masses, integrator and removal of drift are set up here.
        dynamics: what to integrate.
        platform: name of an OpenMM platform; None takes the fastest.
        properties: of the platform, where it knows them.
    """

    name = "openmm"

    def __init__(
        self,
        atoms: Atoms,
        system: Any,
        dynamics: Dynamics,
        platform: str | None = None,
        properties: dict[str, str] | None = None,
    ) -> None:
        self.atoms, self.dynamics = atoms.copy(), dynamics
        self._step = 0
        self._masses = self.atoms.get_masses()
        for index, mass in enumerate(self._masses):
            system.setParticleMass(index, float(mass))
        self._remove_drift(system)
        forces = ", ".join(force.getName() for force in system.getForces() if force.getName() != DRIFT)
        if atoms.pbc.all():
            system.setDefaultPeriodicBoxVectors(*(self.atoms.cell.array / NM).tolist())
        self._barostat: Barostat | None = None
        if dynamics.ensemble == "npt":
            molecules, images, _ = find_molecules(self.atoms)
            self._barostat = Barostat(dynamics.pressure, dynamics.temperature, molecules, images, dynamics.seed)
        self._context = self._make_context(system, platform, properties or {})
        self._context.setPositions(self.atoms.positions / NM)
        used = self._context.getPlatform().getName()
        self.description = f"OpenMM on {used}, {type(self._context.getIntegrator()).__name__}, {forces}"

    def minimize(self, max_steps: int) -> None:
        import openmm

        with one_line():
            openmm.LocalEnergyMinimizer.minimize(self._context, FORCE_TOLERANCE, max_steps)

    def set_velocities(self, velocities: np.ndarray) -> None:
        if self.dynamics.ensemble == "nve":  # leapfrog: its velocities are those of half a step before
            velocities = velocities - self._half_kick(self._get(forces=True))
        self._context.setVelocities(velocities / VELOCITY)

    def step(self, n_steps: int) -> None:
        end = self._step + n_steps
        with one_line():
            while self._step < end:
                n_steps = end - self._step
                if self._barostat is not None:
                    n_steps = min(n_steps, BAROSTAT_INTERVAL - self._step % BAROSTAT_INTERVAL)
                self._context.getIntegrator().step(n_steps)
                self._step += n_steps
                if self._barostat is not None and self._step % BAROSTAT_INTERVAL == 0:
                    self._change_volume(self._barostat)

    def state(self) -> State:
        raw = self._get(positions=True, velocities=True, energy=True, forces=True)
        velocities = raw.getVelocities(asNumpy=True)._value * VELOCITY
        if self.dynamics.ensemble == "nve":
            velocities = velocities + self._half_kick(raw)
        velocities = rest(velocities, self._masses)  # drift is removed at the start of a step, and this is its end
        periodic = self.atoms.pbc.all()
        return State(
            step=self._step,
            time=self._step * self.dynamics.dt,
            positions=raw.getPositions(asNumpy=True)._value * NM,
            velocities=velocities,
            cell=raw.getPeriodicBoxVectors(asNumpy=True)._value * NM if periodic else np.zeros((3, 3)),
            potential=raw.getPotentialEnergy()._value * KJ_PER_MOL,
            kinetic=kinetic_energy(velocities, self._masses),
        )

    def is_finite(self) -> bool:
        return bool(np.isfinite(self._get(positions=True).getPositions(asNumpy=True)._value).all())

    def snapshot(self) -> dict[str, np.ndarray]:
        raw = self._get(positions=True, velocities=True)
        arrays = {
            "step": np.array(self._step),
            "positions": raw.getPositions(asNumpy=True)._value * NM,
            "raw_velocities": raw.getVelocities(asNumpy=True)._value.copy(),
            "checkpoint": np.frombuffer(self._context.createCheckpoint(), dtype=np.uint8),
        }
        if self.atoms.pbc.all():
            arrays["cell"] = raw.getPeriodicBoxVectors(asNumpy=True)._value * NM
        if self._barostat is not None:
            arrays["barostat"] = self._barostat.snapshot()
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        from openmm import OpenMMException

        self._step = int(arrays["step"])
        if self._barostat is not None and "barostat" in arrays:  # version 0.3 left it to OpenMM
            self._barostat.restore(arrays["barostat"])
        try:
            self._context.loadCheckpoint(arrays["checkpoint"].tobytes())
        except OpenMMException:  # of another platform, machine or version: all but the random numbers carries on
            if "cell" in arrays:
                self._context.setPeriodicBoxVectors(*(arrays["cell"] / NM).tolist())
            self._context.setPositions(arrays["positions"] / NM)
            self._context.setVelocities(arrays["raw_velocities"])

    def _get(self, **what: bool) -> Any:
        with one_line():
            return self._context.getState(**what)

    def _half_kick(self, raw: Any) -> np.ndarray:
        """What the forces do to the velocities in half a step, [n_atoms, 3], Å/fs."""
        forces = raw.getForces(asNumpy=True)._value * FORCE
        return 0.5 * self.dynamics.dt * forces / (AMU_A2_PER_FS2 * self._masses[:, None])

    def _make_context(self, system: Any, name: str | None, properties: dict[str, str]) -> Any:
        """A context on a platform of that name, or on the fastest that works."""
        import openmm

        platforms = [openmm.Platform.getPlatform(k) for k in range(openmm.Platform.getNumPlatforms())]
        if name is not None:
            platforms = [platform for platform in platforms if platform.getName() == name]
        reason = "it is not installed"
        for platform in sorted(platforms, key=lambda platform: -platform.getSpeed()):
            known = platform.getPropertyNames()
            wanted = {key: value for key, value in (PROPERTIES | properties).items() if key in known}
            try:
                return openmm.Context(system, self._make_integrator(), platform, wanted)
            except openmm.OpenMMException as error:
                reason = without_traceback(str(error))
        raise MdpotError(f"OpenMM's platform {name or 'of any name'} cannot be used here: {reason}.")

    def _make_integrator(self) -> Any:
        import openmm

        d = self.dynamics
        if d.ensemble == "nve":
            return openmm.VerletIntegrator(d.dt * 1e-3)
        integrator = openmm.LangevinMiddleIntegrator(d.temperature, d.friction, d.dt * 1e-3)
        integrator.setRandomNumberSeed(d.seed % (2**31 - 2) + 1)  # 0 would mean a seed by chance
        return integrator

    def _remove_drift(self, system: Any) -> None:
        import openmm

        for index in reversed(range(system.getNumForces())):
            if system.getForce(index).getName() == DRIFT:
                system.removeForce(index)
        if len(self.atoms) > 1:
            system.addForce(openmm.CMMotionRemover(1))

    def _change_volume(self, barostat: Barostat) -> None:
        raw = self._get(positions=True)
        before = raw.getPositions(asNumpy=True)._value, raw.getPeriodicBoxVectors(asNumpy=True)._value
        new = barostat.trial(before[0] * NM, before[1] * NM, self._energy_at)
        if new is None:
            self._place(*before)
        else:
            self._place(new[0] / NM, new[1] / NM)

    def _energy_at(self, structure: Structure) -> float:
        self._place(structure[0] / NM, structure[1] / NM)
        return self._get(energy=True).getPotentialEnergy()._value * KJ_PER_MOL

    def _place(self, positions: np.ndarray, box: np.ndarray) -> None:
        """Positions [n_atoms, 3] and box [3, 3], nm."""
        self._context.setPeriodicBoxVectors(*box.tolist())
        self._context.setPositions(positions)
