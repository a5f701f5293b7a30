"""A Monte Carlo barostat whose whole state is at hand, so that a run that is resumed is the same to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from mdpot.units import BAR, BOLTZMANN

Structure = tuple[np.ndarray, np.ndarray]  # positions [n_atoms, 3] and cell [3, 3], Å


class Barostat:
    """Isotropic Monte Carlo barostat that moves molecules as a whole (Chow and Ferguson, Comput. Phys. Commun. 91).

    A trial changes the volume by ΔV and scales the centers of the N molecules; it is accepted with the probability
    min(1, exp(-(ΔE + P ΔV - N k_B T ln(V'/V)) / k_B T)). The size of the trials follows their acceptance as in OpenMM,
    whose own barostat does the same but keeps that size, and its count of trials, to itself.

    Args:
        pressure: bar.
        temperature: K.
        molecules: [n_atoms], the molecule of each atom, from 0 on without gaps.
        images: [n_atoms, 3] int, in which image of the cell an atom is next to the others of its molecule.
        seed: of its random numbers.
    """

    def __init__(
        self, pressure: float, temperature: float, molecules: np.ndarray, images: np.ndarray, seed: int
    ) -> None:
        self.pressure, self.kT = pressure * BAR, BOLTZMANN * temperature
        self.molecules, self.images = molecules, images
        self.sizes = np.bincount(molecules)
        self.rng = np.random.default_rng(seed)
        self.step = 0.0  # Å³, largest change of the volume; set at the first trial
        self.n_tried = self.n_accepted = 0

    def trial(self, positions: np.ndarray, cell: np.ndarray, energy: Callable[[Structure], float]) -> Structure | None:
        """One trial.

        Args:
            positions: [n_atoms, 3], Å.
            cell: [3, 3], Å.
            energy: of a structure, eV.

        Returns:
            The new positions and cell, or None where the old ones stay.
        """
        volume = abs(float(np.linalg.det(cell)))
        self.step = self.step or 0.01 * volume
        now = energy((positions, cell))
        changed = volume + self.step * float(self.rng.uniform(-1, 1))
        scale = (changed / volume) ** (1 / 3)
        new = self._scaled(positions, cell, scale)
        work = energy(new) - now + self.pressure * (changed - volume)
        exponent = -work / self.kT + len(self.sizes) * np.log(changed / volume)
        accepted = bool(np.log(self.rng.uniform()) < exponent)  # False for NaN
        self._adapt(accepted, volume)
        return new if accepted else None

    def snapshot(self) -> np.ndarray:
        """All that changes, as an array of one text."""
        state = [self.step, self.n_tried, self.n_accepted, self.rng.bit_generator.state]
        return np.array(json.dumps(state))

    def restore(self, snapshot: np.ndarray) -> None:
        """Goes back to a snapshot."""
        self.step, self.n_tried, self.n_accepted, self.rng.bit_generator.state = json.loads(str(snapshot))

    def _scaled(self, positions: np.ndarray, cell: np.ndarray, scale: float) -> Structure:
        whole = positions + self.images @ cell
        sums = [np.bincount(self.molecules, weights=whole[:, axis]) for axis in range(3)]
        centers = np.stack(sums, axis=1) / self.sizes[:, None]
        moved = whole + (scale - 1) * centers[self.molecules]
        return moved - self.images @ (scale * cell), scale * cell

    def _adapt(self, accepted: bool, volume: float) -> None:
        self.n_tried, self.n_accepted = self.n_tried + 1, self.n_accepted + accepted
        if self.n_tried < 10:
            return
        if self.n_accepted < 0.25 * self.n_tried:
            self.step /= 1.1
        elif self.n_accepted > 0.75 * self.n_tried:
            self.step = min(1.1 * self.step, 0.3 * volume)
        else:
            return
        self.n_tried = self.n_accepted = 0
