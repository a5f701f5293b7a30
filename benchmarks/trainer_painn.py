"""PaiNN, trained by SchNetPack's spktrain and behind its own calculator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from accuracy_data import BATCH, SEED, Calls, Frames, timed

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator


EXPERIMENT = """# @package _global_
defaults:
  - override /model: nnp
  - override /data: custom
  - override /logger: csv
run: {{path: ., id: run, data_dir: .}}
globals: {{cutoff: {cutoff}, lr: 1e-3, energy_key: energy, forces_key: forces}}
seed: {seed}
print_config: false
trainer: {{max_epochs: {epochs}, accelerator: cpu, enable_progress_bar: false}}
data:
  datapath: {folder}/frames.db
  split_file: {folder}/splits.npz
  num_train: null
  num_val: null
  batch_size: {batch}
  num_workers: 0
  distance_unit: Ang
  property_units: {{energy: eV, forces: eV/Ang}}
  transforms:
    - _target_: schnetpack.transform.CachedNeighborList
      cache_path: {folder}/neighbors
      neighbor_list: {{_target_: schnetpack.transform.MatScipyNeighborList, cutoff: {cutoff}}}
    - _target_: schnetpack.transform.CastTo32
model:
  representation: {{n_atom_basis: {n_atom_basis}, n_interactions: {n_interactions}}}
  output_modules:
    - _target_: schnetpack.atomistic.Atomwise
      output_key: energy
      n_in: ${{model.representation.n_atom_basis}}
      aggregation_mode: sum
    - _target_: schnetpack.atomistic.Forces
task:
  scheduler_cls: torch.optim.lr_scheduler.CosineAnnealingLR
  scheduler_monitor: null
  outputs:
    - _target_: schnetpack.task.ModelOutput
      name: energy
      loss_fn: {{_target_: torch.nn.MSELoss}}
      metrics: {{}}
      loss_weight: 0.01
    - _target_: schnetpack.task.ModelOutput
      name: forces
      loss_fn: {{_target_: torch.nn.MSELoss}}
      metrics: {{}}
      loss_weight: 0.99
"""


def train_painn(frames: Frames, settings: dict[str, Any], epochs: int) -> Calls:
    """`spktrain` as its MD17 experiment is, but for the learning rate: from 1e-3 to 1e-6 along a cosine."""
    import_schnetpack()
    from pytorch_lightning import Trainer as Lightning
    from schnetpack.cli import train
    from schnetpack.data import ASEAtomsData

    parts = {split: frames.atoms(split) for split in ("train", "validation", "test")}
    ends = np.cumsum([0, *(len(part) for part in parts.values())])
    names = ("train_idx", "val_idx", "test_idx")
    np.savez("splits.npz", **{name: np.arange(*ends[k : k + 2]) for k, name in enumerate(names)})
    everything = [atoms for part in parts.values() for atoms in part]
    labels = [
        {"energy": np.array([atoms.info["REF_energy"]]), "forces": atoms.arrays["REF_forces"]} for atoms in everything
    ]
    units = {"energy": "eV", "forces": "eV/Ang"}
    store = ASEAtomsData.create("frames.db", distance_unit="Ang", property_unit_dict=units)
    store.add_systems(labels, everything)
    Path("experiment").mkdir()
    text = EXPERIMENT.format(**settings, seed=SEED, epochs=epochs, batch=BATCH, folder=Path.cwd())
    Path("experiment/water.yaml").write_text(text)
    schedule = f"task.scheduler_args={{T_max: {epochs}, eta_min: 1e-6}}"
    words = ["spktrain", f"--config-dir={Path.cwd()}", "experiment=water", "~task.scheduler_args", f"+{schedule}"]
    with patch.object(sys, "argv", words), timed(Lightning, "fit") as calls:
        train()
    return calls


def import_schnetpack() -> Any:
    from torch.utils.data import dataloader

    if not hasattr(dataloader, "T_co"):  # SchNetPack 2.1 takes from torch a type variable that torch 2.9 renamed
        dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]
    import schnetpack

    return schnetpack


def painn_calculator(folder: Path, settings: dict[str, Any], dynamics: bool) -> BaseCalculator:
    spk = import_schnetpack()
    from schnetpack.interfaces import SpkCalculator

    neighbors = spk.transform.MatScipyNeighborList(settings["cutoff"])
    if dynamics:
        neighbors = spk.transform.SkinNeighborList(neighbors, cutoff_skin=0.3)
    return SpkCalculator(str(folder / "run" / "best_model"), neighbors, energy_unit="eV")


def painn_settings(width: int, cutoff: float) -> dict[str, Any]:
    return {"n_atom_basis": width, "n_interactions": 3, "cutoff": cutoff}
