"""The watch: does the run still make sense?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.simulate.engine import State, degrees_of_freedom

MEMORY = ("first_energy", "first_volume", "mean_temperature", "mean_at")
CHANCE = 1e-9  # of a right run to be stopped for its temperature, at one look


class Strike(Exception):
    """The watch struck; the message is one line that says what happened and when."""


@dataclass(frozen=True)
class Limits:
    """When the watch strikes.

    Attributes:
        distance: share of the smallest distance of the training set (or, where that is not known, of the sum
            of the covalent radii) under which two atoms are too close.
        hot: times the target at which a temperature ends a run at once, and
        temperature: relative deviation of the mean temperature from the target, once the run has had time to
            equilibrate; of a small system what its canonical scatter exceeds once in 10⁹ looks, where that is more.
        equilibration: ps before the mean temperature counts.
        averaging: ps, time constant of the running mean of the temperature.
        drift: eV/atom that the total energy may be off its start in NVE at any time, plus
        drift_rate: eV/atom/ps.
        volume: factor by which the volume may change in NPT, up or down.
    """

    distance: float = 0.5
    hot: float = 5.0
    temperature: float = 0.3
    equilibration: float = 5.0
    averaging: float = 1.0
    drift: float = 0.010
    drift_rate: float = 0.001
    volume: float = 2.0


class Watch:
    """Looks at states in turn and raises a `Strike` at the first that makes no sense.

    Args:
        atoms: for numbers and periodicity.
        ensemble: "nve", "nvt" or "npt".
        temperature: K, target.
        min_distances: smallest distances in the training set, Å, as {"H-O": 0.8, ...}; pairs that are not
            listed, or all pairs with None, fall back to the sum of the covalent radii.
        limits: when to strike.
    """

    def __init__(
        self,
        atoms: Atoms,
        ensemble: str,
        temperature: float,
        min_distances: Mapping[str, float] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.ensemble, self.target = ensemble, temperature
        self._numbers, self._pbc = atoms.numbers, atoms.pbc
        self._too_close = self.limits.distance * shortest_distances(atoms.numbers, min_distances or {})
        self._coldest, self._hottest = canonical_range(degrees_of_freedom(len(atoms)))
        self._first_energy: float | None = None
        self._first_volume: float | None = None
        self._mean_temperature: float | None = None
        self._mean_at = 0.0

    def look(self, state: State) -> None:
        """Checks one state.

        Raises:
            Strike: it makes no sense.
        """
        reason = (
            self._not_a_number(state)
            or self._distance(state)
            or self._temperature(state)
            or self._drift(state)
            or self._volume(state)
        )
        if reason:
            raise Strike(f"stopped at step {state.step} ({state.time / 1000:.3f} ps): {reason}")

    def memory(self) -> dict[str, float | None]:
        """What it remembers of earlier states; for the restart file."""
        values = (self._first_energy, self._first_volume, self._mean_temperature, self._mean_at)
        return dict(zip(MEMORY, values, strict=True))

    def recall(self, memory: Mapping[str, float | None]) -> None:
        """Takes up the memory of an earlier watch."""
        self._first_energy, self._first_volume = memory["first_energy"], memory["first_volume"]
        self._mean_temperature = memory["mean_temperature"]
        self._mean_at = memory["mean_at"] or 0.0

    def _not_a_number(self, state: State) -> str | None:
        values = {
            "potential energy": state.potential,
            "kinetic energy": state.kinetic,
            "cell": state.cell,
            "positions": state.positions,
        }
        bad = [name for name, value in values.items() if not np.isfinite(value).all()]
        return f"not a number in the {', '.join(bad)}" if bad else None

    def _distance(self, state: State) -> str | None:
        cutoff = float(self._too_close.max())
        if cutoff == 0:
            return None
        pairs, shifts = neighbor_list(state.positions, state.cell, self._pbc, cutoff)
        if pairs.size == 0:
            return None
        distances = np.linalg.norm(pair_vectors(state.positions, state.cell, pairs, shifts), axis=1)
        i, j = pairs
        limits = self._too_close[self._numbers[i], self._numbers[j]]
        worst = int(np.argmin(distances / limits))
        if distances[worst] >= limits[worst]:
            return None
        names = " and ".join(f"{chemical_symbols[self._numbers[k]]}{k}" for k in sorted((i[worst], j[worst])))
        return f"{names} are {distances[worst]:.2f} Å apart, closer than {limits[worst]:.2f} Å"

    def _temperature(self, state: State) -> str | None:
        now, target, limits = state.temperature, self.target, self.limits
        if now > max(limits.hot, self._hottest) * max(target, 100.0):
            return f"the temperature is {now:.0f} K, target {target:g} K"
        if self.ensemble == "nve":
            return None
        fade = np.exp(-(state.time - self._mean_at) / (1000 * limits.averaging))
        mean = self._mean_temperature
        mean = now if mean is None else float(fade * mean + (1 - fade) * now)
        self._mean_temperature, self._mean_at = mean, state.time
        low, high = min(1 - limits.temperature, self._coldest), max(1 + limits.temperature, self._hottest)
        if state.time >= 1000 * limits.equilibration and not low * target <= mean <= high * target:
            return f"the mean temperature is {mean:.0f} K, target {target:g} K"
        return None

    def _drift(self, state: State) -> str | None:
        if self.ensemble != "nve":
            return None
        if self._first_energy is None:
            self._first_energy = state.total
        moved = (state.total - self._first_energy) / len(self._numbers)
        if abs(moved) <= self.limits.drift + self.limits.drift_rate * state.time / 1000:
            return None
        return f"the total energy has drifted by {1000 * moved:+.1f} meV/atom"

    def _volume(self, state: State) -> str | None:
        if self.ensemble != "npt":
            return None
        if self._first_volume is None:
            self._first_volume = state.volume
        factor = state.volume / self._first_volume
        if 1 / self.limits.volume <= factor <= self.limits.volume:
            return None
        return f"the volume is {factor:.2f} times that of the start"


def canonical_range(n_dof: int) -> tuple[float, float]:
    """Multiples of the target between which a temperature at an instant lies, but for `CHANCE` at each end.

    2 E_kin / k_B T of n_dof degrees of freedom is distributed as χ², with the relative scatter sqrt(2 / n_dof).
    """
    from scipy.special import chdtri

    return float(chdtri(n_dof, 1 - CHANCE)) / n_dof, float(chdtri(n_dof, CHANCE)) / n_dof


def shortest_distances(numbers: np.ndarray, min_distances: Mapping[str, float]) -> np.ndarray:
    """The distances [119, 119] in Å, by atomic numbers, that the training set did not go below.

    Args:
        numbers: [n_atoms] atomic numbers that occur; all others get 0.
        min_distances: Å, known ones, as {"H-O": 0.8, ...} in either order.

    Raises:
        MdpotError: a name in `min_distances` is not a pair of elements.
    """
    table = np.zeros((len(chemical_symbols), len(chemical_symbols)))
    present = np.unique(numbers)
    table[np.ix_(present, present)] = covalent_radii[present][:, None] + covalent_radii[present]
    for pair, distance in min_distances.items():
        names = pair.split("-")
        if len(names) != 2 or not all(name in atomic_numbers for name in names):
            raise MdpotError(f"min_distances has the key {pair!r}; a key is a pair of elements like 'H-O'.")
        a, b = (atomic_numbers[name] for name in names)
        if a in present and b in present:
            table[a, b] = table[b, a] = distance
    return table
