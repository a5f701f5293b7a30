"""How far a potential is from its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mdpot.models import Potential
from mdpot.training.data.store import Store, batches
from mdpot.units import MEV

BATCH_ATOMS = 1024

METRICS = {
    "n_frames": "number of structures",
    "n_atoms": "number of atoms",
    "energy_rmse": "root mean square error of the energy per atom, meV/atom",
    "energy_mae": "mean absolute error of the energy per atom, meV/atom",
    "energy_rmse_structure": "root mean square error of the energy of a structure, meV",
    "energy_mae_structure": "mean absolute error of the energy of a structure, meV",
    "energy_rmse_shifted": "energy_rmse after the mean error per atom is taken off, meV/atom",
    "force_rmse": "root mean square error of the force components, meV/Å",
    "force_mae": "mean absolute error of the force components, meV/Å",
    "force_rms": "root mean square of the labels' force components, meV/Å",
    "stress_rmse": "root mean square error of the stress components, meV/Å^3; only where frames have a stress",
    "stress_mae": "mean absolute error of the stress components, meV/Å^3; only where frames have a stress",
}
"""The keys of a table of errors, and what they mean."""


@dataclass(frozen=True)
class Evaluation:
    """Labels beside predictions for a set of frames.

    Attributes:
        sizes: [n_frames], atoms.
        energy: [2, n_frames], eV, labels and predictions, without the reference energies.
        forces: [2, n_atoms, 3], eV/Å.
        stress: [2, n_labelled, 3, 3], eV/Å^3, of the frames that have one.
    """

    sizes: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray

    def metrics(self) -> dict[str, float]:
        """The errors; keys and units in `METRICS`."""
        energy = (self.energy[1] - self.energy[0]) / MEV
        per_atom = energy / self.sizes
        force = (self.forces[1] - self.forces[0]) / MEV
        out = {
            "n_frames": float(len(self.sizes)),
            "n_atoms": float(self.sizes.sum()),
            "energy_rmse": _rms(per_atom),
            "energy_mae": float(np.abs(per_atom).mean()),
            "energy_rmse_structure": _rms(energy),
            "energy_mae_structure": float(np.abs(energy).mean()),
            "energy_rmse_shifted": float(per_atom.std()),
            "force_rmse": _rms(force),
            "force_mae": float(np.abs(force).mean()),
            "force_rms": _rms(self.forces[0] / MEV),
        }
        if self.stress.size:
            stress = (self.stress[1] - self.stress[0]) / MEV
            out |= {"stress_rmse": _rms(stress), "stress_mae": float(np.abs(stress).mean())}
        return out


def evaluate(potential: Potential, store: Store) -> Evaluation:
    """Predictions beside labels.

    Args:
        potential: in evaluation mode, on the device of the store.
        store: the frames.
    """
    sizes, energies, forces, stresses = [], [], [], []
    has_stress = potential.conservative and not bool(torch.isnan(store.stress).all())
    for indices in batches(store, n_atoms=BATCH_ATOMS):
        batch = store.batch(indices)
        out = potential(*batch.graph.inputs(), compute_stress=has_stress)
        sizes.append(torch.bincount(batch.graph.system, minlength=batch.graph.n_systems))
        energies.append(torch.stack([batch.interaction, out["interaction"].double()]))
        forces.append(torch.stack([batch.forces, out["forces"]]).double())
        if has_stress:
            labelled = ~torch.isnan(batch.stress).flatten(1).any(1)
            stresses.append(torch.stack([batch.stress, out["stress"]])[:, labelled].double())
    return Evaluation(
        sizes=torch.cat(sizes).cpu().numpy(),
        energy=torch.cat(energies, 1).cpu().numpy(),
        forces=torch.cat(forces, 1).cpu().numpy(),
        stress=torch.cat(stresses, 1).cpu().numpy() if stresses else np.zeros((2, 0, 3, 3)),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
