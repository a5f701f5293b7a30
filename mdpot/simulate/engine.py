"""What the driver asks of an engine, and the few formulas that all engines share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.molecules import heavier_hydrogens
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.units import AMU_A2_PER_FS2, BOLTZMANN

U_PER_A3 = 1.66053906660  # g/cm^3: density of one atomic mass unit per Å^3
ENSEMBLES = ("nve", "nvt", "npt")


@dataclass(frozen=True)
class Dynamics:
    """What an engine integrates.

    Attributes:
        ensemble: "nve", "nvt" or "npt".
        dt: time step, fs.
        temperature: K, of the thermostat.
        pressure: bar, of the barostat.
        friction: 1/ps, of the Langevin thermostat.
        pdamp: fs, time scale of a barostat that has one.
        seed: of the thermostat's and barostat's random numbers.
    """

    ensemble: str = "nvt"
    dt: float = 0.5
    temperature: float = 300.0
    pressure: float = 1.0
    friction: float = 2.0
    pdamp: float = 500.0
    seed: int = 0


@dataclass(frozen=True)
class State:
    """What an engine shows of itself at one step.

    Attributes:
        step: steps since the start of the run.
        time: fs.
        positions: [n_atoms, 3], Å.
        velocities: [n_atoms, 3], Å/fs.
        cell: [3, 3], Å, lattice vectors as rows.
        potential: eV.
        kinetic: eV.
    """

    step: int
    time: float
    positions: np.ndarray
    velocities: np.ndarray
    cell: np.ndarray
    potential: float
    kinetic: float

    @property
    def total(self) -> float:
        """Potential and kinetic energy, eV."""
        return self.potential + self.kinetic

    @property
    def temperature(self) -> float:
        """K, with the center of mass at rest: 2 E_kin / (k_B · (3 n_atoms − 3))."""
        return 2.0 * self.kinetic / (BOLTZMANN * degrees_of_freedom(len(self.positions)))

    @property
    def volume(self) -> float:
        """Å³; 0 without a full cell."""
        return float(abs(np.linalg.det(self.cell)))


class Engine(Protocol):
    """Moves atoms. Total momentum stays zero; `snapshot` and `restore` carry on as if nothing had happened.

    Attributes:
        name: "ase" or "openmm".
        atoms: the structure it was made from, in the frame that it works in (numbers, masses, pbc, cell).
        description: its integrator and what gives the forces, in a few words.
    """

    name: str
    description: str
    atoms: Atoms

    def minimize(self, max_steps: int) -> None:
        """Relaxes the positions in the fixed cell, for at most about `max_steps` evaluations."""
        ...

    def set_velocities(self, velocities: np.ndarray) -> None:
        """Takes velocities [n_atoms, 3], Å/fs, of the time of the positions."""
        ...

    def step(self, n_steps: int) -> None:
        """Goes `n_steps` steps forward.

        Raises:
            MdpotError: the forces refuse what the positions have become.
        """
        ...

    def state(self) -> State:
        """Where it is now."""
        ...

    def is_finite(self) -> bool:
        """Whether its positions are numbers; asks for no forces."""
        ...

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that `restore` needs, random number generators included, as arrays without objects."""
        ...

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes back to a snapshot."""
        ...


def degrees_of_freedom(n_atoms: int) -> int:
    """3 n − 3: the center of mass rests. A lone atom keeps its 3."""
    return 3 * n_atoms - 3 if n_atoms > 1 else 3


def maxwell_boltzmann(masses: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """Random velocities of a temperature, the center of mass at rest.

    Args:
        masses: [n_atoms], u.
        temperature: K.
        rng: where the random numbers come from.

    Returns:
        [n_atoms, 3], Å/fs. Their temperature, by `degrees_of_freedom`, scatters around the one asked for.
    """
    sigma = np.sqrt(BOLTZMANN * temperature / (AMU_A2_PER_FS2 * masses))
    return rest(rng.normal(size=(len(masses), 3)) * sigma[:, None], masses)


def rest(velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The velocities [n_atoms, 3] without the motion of the center of mass; a lone atom keeps its own."""
    if len(masses) == 1:
        return velocities
    return velocities - masses @ velocities / masses.sum()


def kinetic_energy(velocities: np.ndarray, masses: np.ndarray) -> float:
    """Σ m v² / 2, eV, of velocities [n_atoms, 3] in Å/fs and masses [n_atoms] in u."""
    return float(0.5 * AMU_A2_PER_FS2 * (masses @ np.einsum("ij,ij->i", velocities, velocities)))


def density(masses: np.ndarray, volume: float) -> float | None:
    """g/cm³ of masses [n_atoms] in u, in a volume in Å³; None where there is no volume."""
    return U_PER_A3 * float(masses.sum()) / volume if volume > 0 else None


def repartition(atoms: Atoms, hydrogen_mass: float) -> np.ndarray:
    """Masses [n_atoms], u, in which hydrogens are heavier at the expense of the nearest heavy atom.

    Raises:
        MdpotError: a hydrogen has no heavy atom within 1.4 Å, or as `heavier_hydrogens`.
    """
    pairs, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 1.4)
    distances = np.linalg.norm(pair_vectors(atoms.positions, atoms.cell.array, pairs, shifts), axis=1)
    i, j = pairs
    heavy = atoms.numbers[j] > 1
    parents: dict[int, int] = {}
    for hydrogen in np.flatnonzero(atoms.numbers == 1):
        bonds = np.flatnonzero((i == hydrogen) & heavy)
        if len(bonds) == 0:
            raise MdpotError(f"hydrogen mass: atom {hydrogen} is a hydrogen without a heavy atom within 1.4 Å.")
        parents[int(hydrogen)] = int(j[bonds[np.argmin(distances[bonds])]])
    return heavier_hydrogens(atoms.get_masses(), parents, hydrogen_mass)
