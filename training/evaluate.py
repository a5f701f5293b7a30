"""How far a potential is from its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mdpot.heads import AnyPotential
from mdpot.training.data.store import INTERACTION, Batch, Store, batches
from mdpot.units import MEV

BATCH_ATOMS = 1024


@dataclass(frozen=True)
class Evaluation:
    """Labels beside predictions for a set of frames.

    Attributes:
        sizes: [n_frames], atoms.
        energy: [2, n_frames], eV, labels and predictions, without the reference energies; labels that are absent are
            NaN, here and below.
        forces: [2, n_atoms, 3], eV/Å.
        stress: [2, n_labeled, 3, 3], eV/Å^3, of the frames that have one.
        beyond_mean: [n_frames], eV, the labels less the mean energies of the elements; None where these are not known.
    """

    sizes: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray
    beyond_mean: np.ndarray | None = None

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
        if self.stress.size:
            stress = self.stress / MEV
            out |= _errors("stress", stress[1] - stress[0]) | _errors("baseline_stress", stress[0])
        return out


def evaluate(potential: AnyPotential, store: Store, means: Mapping[int, float] | None = None) -> Evaluation:
    """Predictions beside labels.

    Args:
        potential: in evaluation mode, on the device of the store.
        store: the frames.
        means: mean energy of each element, eV by atomic number, for the baseline.
    """
    sizes, energies, forces, stresses = [], [], [], []
    has_stress = potential.conservative and "stress" in store.labels
    wanted = ["interaction", "forces", "stress"] if has_stress else ["interaction", "forces"]
    for indices in batches(store, n_atoms=BATCH_ATOMS):
        batch = store.batch(indices)
        out = potential(*batch.graph.inputs(), outputs=wanted)
        sizes.append(torch.bincount(batch.graph.system, minlength=batch.graph.n_systems))
        energies.append(_beside(batch, INTERACTION, out["interaction"]))
        forces.append(_beside(batch, "forces", out["forces"]))
        if has_stress:
            stresses.append(_beside(batch, "stress", out["stress"])[:, batch.present["stress"]])
    return Evaluation(
        sizes=torch.cat(sizes).cpu().numpy(),
        energy=torch.cat(energies, 1).cpu().numpy(),
        forces=torch.cat(forces, 1).cpu().numpy(),
        stress=torch.cat(stresses, 1).cpu().numpy() if stresses else np.zeros((2, 0, 3, 3)),
        beyond_mean=None if means is None or "energy" not in store.labels else store.without(means).cpu().numpy(),
    )


def _beside(batch: Batch, name: str, prediction: torch.Tensor) -> torch.Tensor:
    """A label, NaN where it is absent, and the prediction of the same shape: [2, *shape] float64."""
    predicted = prediction.detach().double()
    label = torch.full_like(predicted, torch.nan)
    if name in batch.labels:
        there = batch.there(name)
        label[there] = batch.labels[name][there].double()
    return torch.stack([label, predicted])


def _errors(name: str, errors: np.ndarray) -> dict[str, float]:
    return {f"{name}_rmse": _rms(errors), f"{name}_mae": float(np.abs(errors).mean())}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
