"""mdpot and its peers, each trained by its own trainer on the same frames, and each behind its own ASE calculator.

Peers learn energies without the reference energies per element, which are fitted to the training frames and which the
test knows. What is not set here is as the package has it by default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_data import BATCH, SEED, Calls, Frames, timed
from trainer_painn import painn_calculator, painn_settings, train_painn
from trainer_tensornet import tensornet_calculator, tensornet_settings, train_tensornet

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator


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


def mace_settings(channels: int, cutoff: float) -> dict[str, Any]:
    return {"num_channels": channels, "max_L": 0, "r_max": cutoff}


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
