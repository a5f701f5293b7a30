"""mdpot and its peers, each trained by its own trainer on the same frames, and each behind its own ASE calculator.

Peers learn energies without the reference energies per element, which are fitted to the training frames and which the
test knows. What is not set here is as the package has it by default.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from accuracy_data import SEED, Calls, Frames, timed

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

BATCH = 5  # frames, for the peers: about 400 atoms


@dataclass(frozen=True)
class Trainer:
    """One contender.

    Attributes:
        label: for the table and the plot.
        package: distribution that must be installed.
        settings: what the trainer is told of the network.
        train: trains for a length (epochs; for mdpot steps) into the current folder and says how long it took.
        calculator: the trained potential from a folder; `dynamics` asks for what serves in dynamics: the neighbor
            list of the package, with its skin.
        pilot: length that tells how long the training may be.
        unit: of the length.
    """

    label: str
    package: str
    settings: dict[str, Any]
    train: Callable[[Frames, dict[str, Any], int], Calls]
    calculator: Callable[[Path, dict[str, Any], bool], BaseCalculator]
    pilot: int = 1
    unit: str = "epochs"


# mdpot


def train_mdpot(frames: Frames, settings: dict[str, Any], steps: int) -> Calls:
    """`mdpot train`, its two stages scaled to a number of steps together."""
    import torch

    from mdpot.cli import main
    from mdpot.training import together
    from mdpot.training.config import load_recipe

    words = [word for change in settings.get("set", ()) for word in ("--set", change)]
    words += ["--preset", settings.get("preset", "quick")]
    recipe = load_recipe(frames.recipe, settings.get("preset", "quick"), settings.get("set", ()))
    lengths = {"pretrain": recipe.pretrain.max_steps, "finetune": recipe.finetune.max_steps}
    stages = {stage: n for stage, n in lengths.items() if n is not None}
    if recipe.pretrain.objective == "none":
        del stages["pretrain"]
    scale = steps / sum(stages.values())
    changes = [*frames.overrides, *(f"{stage}.max_steps={max(1, round(scale * n))}" for stage, n in stages.items())]
    command = ["train", frames.recipe, *words, "--data", str(frames.file), "--seed", str(SEED), "--device", "cpu"]
    command += ["--threads", str(torch.get_num_threads()), "--out", "run"]
    with timed(together, "fit") as calls:
        main([*command, *(word for change in changes for word in ("--set", change))], standalone_mode=False)
    splits = json.loads(Path("run/splits.json").read_text())
    if any(splits[name] != indices for name, indices in frames.splits.items()):
        raise RuntimeError("mdpot split the frames otherwise than its peers were given them")
    return calls


def mdpot_calculator(folder: Path, settings: dict[str, Any], dynamics: bool) -> BaseCalculator:
    from mdpot import MaskedGNNCalculator

    return MaskedGNNCalculator(folder / "run", device="cpu")


# MACE


def train_mace(frames: Frames, settings: dict[str, Any], epochs: int) -> Calls:
    """`mace_run_train`: learning rate from 1e-2 to 1e-3 over three quarters of the epochs, then its stage two.

    Where the frames have a stress, its loss with stress is taken.
    """
    from ase.io import write
    from mace import tools
    from mace.cli import run_train

    for split in ("train", "validation"):
        write(f"{split}.extxyz", frames.atoms(split), format="extxyz")
    first = epochs * 3 // 4
    options = {
        "name": "mace",
        "seed": SEED,
        "train_file": "train.extxyz",
        "valid_file": "validation.extxyz",
        "E0s": str(dict.fromkeys(frames.elements, 0.0)),
        "default_dtype": "float32",
        "device": "cpu",
        "batch_size": BATCH,
        "valid_batch_size": BATCH,
        "max_num_epochs": epochs,
        "scheduler": "ExponentialLR",
        "lr": 1e-2,
        "lr_scheduler_gamma": 0.1 ** (1 / max(first, 1)),
        "ema_decay": 0.99,
        "skip_evaluate_heads": "train,valid",
        "plot": False,
        **({"loss": "stress"} if frames.has_stress else {}),
        **settings,
    }
    words = ["--ema", "--amsgrad", *(f"--{key}={value}" for key, value in options.items())]
    if 0 < first < epochs:
        words += ["--swa", f"--start_swa={first}"]
    with timed(tools, "train") as calls:
        run_train.run(tools.build_default_arg_parser().parse_args(words))
    return calls


def mace_calculator(folder: Path, settings: dict[str, Any], dynamics: bool) -> BaseCalculator:
    from mace.calculators import MACECalculator

    second = folder / "mace_stagetwo.model"
    path = second if second.exists() else folder / "mace.model"
    return MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")


# TensorNet


def train_tensornet(frames: Frames, settings: dict[str, Any], epochs: int) -> Calls:
    """`torchmd-train` with two changes.

    Its neighbor list wants cells of twice the cutoff, which two thirds of the frames are not: `every_image` is in its
    place. Its learning rate only falls when the validation loss stalls: here it falls along a cosine.
    """
    import torch
    from lightning.pytorch import Trainer as Lightning
    from torch_geometric.data import Data
    from torchmdnet import datasets
    from torchmdnet.scripts import train as script

    parts = {split: frames.atoms(split) for split in ("train", "validation", "test")}
    ends = np.cumsum([0, *(len(part) for part in parts.values())])
    names = ("idx_train", "idx_val", "idx_test")
    np.savez("splits.npz", **{name: np.arange(*ends[k : k + 2]) for k, name in enumerate(names)})
    data = [
        Data(
            z=torch.tensor(atoms.numbers, dtype=torch.long),
            pos=torch.tensor(atoms.positions, dtype=torch.float32),
            box=torch.tensor(atoms.cell.array, dtype=torch.float32)[None],
            y=torch.tensor([[atoms.info["REF_energy"]]], dtype=torch.float32),
            neg_dy=torch.tensor(atoms.arrays["REF_forces"], dtype=torch.float32),
        )
        for part in parts.values()
        for atoms in part
    ]

    class Cosine(script.LNNP):
        def configure_optimizers(self) -> Any:
            (optimizer,), _ = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=1e-6)]

    options = {
        **settings,
        "num_epochs": epochs,
        "batch_size": BATCH,
        "lr": 1e-3,
        "lr_warmup_steps": 100,
        "early_stopping_patience": epochs,
        "y_weight": 0.01,
        "neg_dy_weight": 0.99,
        "gradient_clipping": 40.0,
        "derivative": True,
        "dataset": "Water",
        "splits": "splits.npz",
        "save_interval": 1,
        "num_workers": 0,
        "ngpus": 1,
        "seed": SEED,
        "log_dir": "logs",
    }
    Path("settings.yaml").write_text(json.dumps(options))
    torch.manual_seed(SEED)
    with (
        every_image(),
        patch.object(datasets, "Water", lambda root: data, create=True),
        patch.object(script, "LNNP", Cosine),
        patch.object(sys, "argv", ["torchmd-train", "--conf", "settings.yaml"]),
        timed(Lightning, "fit") as calls,
    ):
        script.main()
    shutil.copy(calls.arguments[0].checkpoint_callback.best_model_path, "best.ckpt")
    return calls


@contextmanager
def every_image() -> Iterator[None]:
    """TensorNets made in the block find every periodic image inside the cutoff, in cells of any size and shape."""
    import torch
    from torchmdnet.models import tensornet

    from mdpot.neighbors import neighbor_list

    class EveryImage(tensornet.OptimizedDistance):
        def forward(self, pos: Any, batch: Any = None, box: Any = None) -> Any:
            batch = torch.zeros(len(pos), dtype=torch.long) if batch is None else batch
            cells = box.reshape(-1, 3, 3).to(pos.dtype)
            pairs, offsets, first = [], [], 0
            for cell, n_atoms in zip(cells, torch.bincount(batch).tolist(), strict=True):
                own = pos[first : first + n_atoms].detach().numpy()
                edges, shifts = neighbor_list(own, cell.numpy(), np.ones(3, bool), self.cutoff_upper)
                pairs.append(torch.from_numpy(edges) + first)
                offsets.append(torch.from_numpy(shifts).to(pos.dtype) @ cell)
                first += n_atoms
            (i, j), offset = torch.cat(pairs, 1), torch.cat(offsets)
            vectors = pos[i] - pos[j] - offset
            loops = torch.arange(len(pos))  # TensorNet asks for these too; at length zero they have no gradient
            nothing = vectors.new_zeros(len(pos), 3)
            distances = torch.cat([vectors.norm(dim=1), nothing[:, 0]])
            return torch.stack([torch.cat([i, loops]), torch.cat([j, loops])]), distances, torch.cat([vectors, nothing])

    with patch.object(tensornet, "OptimizedDistance", EveryImage):
        yield


def tensornet_calculator(folder: Path, settings: dict[str, Any], dynamics: bool) -> BaseCalculator:
    import warp

    warp.config.log_level = warp.LOG_WARNING  # else it lists every kernel that it loads
    from torchmdnet.calculators import TMDNETCalculator

    class Neutral(TMDNETCalculator):
        """It wants the charge of the system with the structure."""

        def calculate(self, atoms: Atoms, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            atoms.info["charge"] = 0.0
            super().calculate(atoms, *args, **kwargs)

    with nullcontext() if dynamics else every_image():
        return Neutral(str(folder / "best.ckpt"), max_num_neighbors=160)  # ice under pressure has more than 64


# PaiNN

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


def tensornet_settings(width: int, layers: int, cutoff: float) -> dict[str, Any]:
    return {
        "model": "tensornet",
        "embedding_dimension": width,
        "num_layers": layers,
        "num_rbf": 32,
        "cutoff_upper": cutoff,
        "max_z": 10,
        "max_num_neighbors": 64,
    }


def mace_settings(channels: int, cutoff: float) -> dict[str, Any]:
    return {"num_channels": channels, "max_L": 0, "r_max": cutoff}


def painn_settings(width: int, cutoff: float) -> dict[str, Any]:
    return {"n_atom_basis": width, "n_interactions": 3, "cutoff": cutoff}


def _mace(label: str, settings: dict[str, Any]) -> Trainer:
    return Trainer(f"MACE {label}", "mace-torch", settings, train_mace, mace_calculator)


def _tensornet(label: str, settings: dict[str, Any]) -> Trainer:
    return Trainer(f"TensorNet {label}", "torchmd-net", settings, train_tensornet, tensornet_calculator)


def _painn(label: str, settings: dict[str, Any]) -> Trainer:
    return Trainer(f"PaiNN {label}", "schnetpack", settings, train_painn, painn_calculator)


TRAINERS = {
    "mdpot": Trainer("mdpot, quick preset", "mdpot", {}, train_mdpot, mdpot_calculator, 400, "steps"),
    "mace": _mace("32x0e, 4 Å", mace_settings(32, 4.0)),
    "mace-large": _mace("64x0e, 5 Å", mace_settings(64, 5.0)),
    "tensornet": _tensornet("64, 1 layer, 4 Å", tensornet_settings(64, 1, 4.0)),
    "tensornet-large": _tensornet("128, 1 layer, 4.5 Å", tensornet_settings(128, 1, 4.5)),
    "painn": _painn("64, 3 layers, 4 Å", painn_settings(64, 4.0)),
    "painn-large": _painn("128, 3 layers, 5 Å", painn_settings(128, 5.0)),
}

# Energy, force and stress weighted as for MACE-MP-0, and the energy ten times as much as the forces in stage two, which
# is MACE's own ratio. By its own weights a stress in eV/Å³ would count next to nothing.
UNIVERSAL = {
    "loss": "universal",
    "energy_weight": 1.0,
    "forces_weight": 10.0,
    "stress_weight": 100.0,
    "swa_energy_weight": 100.0,
    "swa_forces_weight": 10.0,
    "swa_stress_weight": 100.0,
}

# Those for frames of a file, by `mdpot train custom` and with stress.
OWN_TRAINERS = {
    "mdpot": TRAINERS["mdpot"],
    "mdpot-medium": Trainer(
        "mdpot, full preset", "mdpot", {"preset": "full"}, train_mdpot, mdpot_calculator, 200, "steps"
    ),
    "mace": _mace("32x0e, 5 Å", mace_settings(32, 5.0) | UNIVERSAL),
    "mace-large": _mace("64x0e, 5 Å", mace_settings(64, 5.0) | UNIVERSAL),
    "mace-squares": _mace("32x0e, 5 Å, squared errors", mace_settings(32, 5.0)),
}
