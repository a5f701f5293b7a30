"""Labels beside predictions, and the errors between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mdpot.units import MEV


@dataclass(frozen=True)
class Evaluation:
    """Labels beside predictions for a set of frames.

    Attributes:
        sizes: [n_frames], atoms.
        energy: [2, n_frames], eV, labels and predictions, without the reference energies; labels that are absent are
            NaN, here and below.
        forces: [2, n_atoms, 3], eV/Å.
        stress: [2, n_frames, 3, 3], eV/Å^3; [2, 0, 3, 3] where no frame has one.
        beyond_mean: [n_frames], eV, the labels less the mean energies of the elements; None where these are not known.
    """

    sizes: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray
    beyond_mean: np.ndarray | None = None

    def energy_offset(self) -> float:
        """The median of the energy errors per atom, eV; 0 where there are no labels."""
        errors = np.diff(self.energy, axis=0)[0] / self.sizes
        return float(np.nanmedian(errors)) if np.isfinite(errors).any() else 0.0

    def less(self, offset: float) -> Evaluation:
        """The same of a potential whose energy is lower by an offset, eV per atom."""
        return replace(self, energy=self.energy - np.stack([np.zeros(len(self.sizes)), offset * self.sizes]))

    @cached_property
    def _starts(self) -> np.ndarray:
        """[n_frames], the first atom of each."""
        return np.cumsum(self.sizes) - self.sizes

    def part(self, frames: np.ndarray) -> Evaluation:
        """The same of some of the frames [n_part], by their indices."""
        places = zip(self._starts[frames], self.sizes[frames], strict=True)
        atoms = [np.arange(start, start + size) for start, size in places]
        return Evaluation(
            sizes=self.sizes[frames],
            energy=self.energy[:, frames],
            forces=self.forces[:, np.concatenate(atoms)],
            stress=self.stress[:, frames] if self.stress.size else self.stress,
            beyond_mean=None if self.beyond_mean is None else self.beyond_mean[frames],
        )

    def frame_errors(self) -> dict[str, np.ndarray]:
        """The mean absolute errors of each frame, [n_frames], keys as in `metrics`; NaN where the label is absent."""
        label, predicted = self.forces
        sums = {"force_mae": np.abs(predicted - label).sum(1), "baseline_force_mae": np.abs(label).sum(1)}
        return {
            "energy_mae": np.abs(np.diff(self.energy, axis=0)[0]) / self.sizes / MEV,
            **{key: np.add.reduceat(of_atoms, self._starts) / (3 * self.sizes) / MEV for key, of_atoms in sums.items()},
        }

    def metrics(self) -> dict[str, float]:
        """The errors; keys and units in `mdpot.training.metrics.METRICS`."""
        out = {"n_frames": float(len(self.sizes)), "n_atoms": float(self.sizes.sum())}
        labeled = np.isfinite(self.energy[0])
        if labeled.any():
            energy = np.diff(self.energy[:, labeled], axis=0)[0] / MEV
            per_atom = energy / self.sizes[labeled]
            out |= _errors("energy", per_atom)
            out |= {"energy_rmse_structure": _rms(energy), "energy_mae_structure": float(np.abs(energy).mean())}
            out["energy_rmse_shifted"] = float(per_atom.std())
            if self.beyond_mean is not None:
                out |= _errors("baseline_energy", self.beyond_mean[labeled] / self.sizes[labeled] / MEV)
        forces = self.forces[:, np.isfinite(self.forces[0]).all(1)] / MEV
        if forces.size:
            out |= _errors("force", forces[1] - forces[0]) | {"force_rms": _rms(forces[0])}
            out |= _errors("baseline_force", forces[0])
        stress = self.stress[:, np.isfinite(self.stress[0]).all((1, 2))] / MEV
        if stress.size:
            out |= _errors("stress", stress[1] - stress[0]) | _errors("baseline_stress", stress[0])
        return out


@dataclass(frozen=True)
class PropertyEvaluation:
    """Targets beside predictions for a set of frames.

    Attributes:
        sizes: [n_frames], atoms; of the frames that have a target.
        values: [2, n_frames], targets and predictions, in the unit of the property.
        mean: of the training targets, the baseline.
    """

    sizes: np.ndarray
    values: np.ndarray
    mean: float

    def metrics(self) -> dict[str, float]:
        """The errors; keys in `mdpot.training.metrics.METRICS`."""
        truth, predicted = self.values
        return {
            "n_frames": float(len(self.sizes)),
            "n_atoms": float(self.sizes.sum()),
            **_errors("property", predicted - truth),
            **_errors("baseline_property", self.mean - truth),
        }


def _errors(name: str, errors: np.ndarray) -> dict[str, float]:
    return {f"{name}_rmse": _rms(errors), f"{name}_mae": float(np.abs(errors).mean())}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
