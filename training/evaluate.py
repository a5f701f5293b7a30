"""How far a potential is from its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mdpot.heads import Potential
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
    "baseline_energy_rmse": "energy_rmse of the mean energy of the elements in the training frames, and no more",
    "baseline_energy_mae": "energy_mae of that",
    "baseline_force_rmse": "force_rmse of no force at all",
    "baseline_force_mae": "force_mae of that",
    "baseline_stress_rmse": "stress_rmse of no stress at all",
    "baseline_stress_mae": "stress_mae of that",
}
"""The keys of a table of errors, and what they mean. Those of a label that no frame has are not there."""

BASELINE = "no force, mean energy"


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
        """The errors; keys and units in `METRICS`."""
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


def evaluate(potential: Potential, store: Store, means: Mapping[int, float] | None = None) -> Evaluation:
    """Predictions beside labels.

    Args:
        potential: in evaluation mode, on the device of the store.
        store: the frames.
        means: mean energy of each element, eV by atomic number, for the baseline.
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
            labeled = ~torch.isnan(batch.stress).flatten(1).any(1)
            stresses.append(torch.stack([batch.stress, out["stress"]])[:, labeled].double())
    return Evaluation(
        sizes=torch.cat(sizes).cpu().numpy(),
        energy=torch.cat(energies, 1).cpu().numpy(),
        forces=torch.cat(forces, 1).cpu().numpy(),
        stress=torch.cat(stresses, 1).cpu().numpy() if stresses else np.zeros((2, 0, 3, 3)),
        beyond_mean=None if means is None else store.without(means).cpu().numpy(),
    )


def worse_than_nothing(tables: Mapping[str, Mapping[str, float]]) -> str:
    """What a potential does worse than one that knows only mean energies, as a sentence; empty where there is nothing.

    Args:
        tables: of errors, by name of the set of frames.
    """
    found = []
    for name, table in tables.items():
        for label, unit in (("energy", "meV/atom"), ("force", "meV/Å")):
            for kind in ("rmse", "mae"):
                key = f"{label}_{kind}"
                error, nothing = table.get(key, 0.0), table.get(f"baseline_{key}", np.inf)
                if error > nothing:
                    found.append(f"{label} {kind.upper()} of {name}: {error:.4g} against {nothing:.4g} {unit}")
                    break
    if not found:
        return ""
    return (
        f"this potential is worse than {BASELINE}: {'; '.join(found)}. Do not use it; train longer, or on more frames."
    )


def _errors(name: str, errors: np.ndarray) -> dict[str, float]:
    return {f"{name}_rmse": _rms(errors), f"{name}_mae": float(np.abs(errors).mean())}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
