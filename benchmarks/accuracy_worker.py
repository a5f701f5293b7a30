"""Trains and tests one contender of the accuracy benchmark, in the process of its own that `accuracy.py` gives it."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy_data import Frames
from trainers import TRAINERS, Trainer

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

RESULT = "result.json"
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # peers read the pickles that they wrote themselves
}


def test(calculator: BaseCalculator, frames: Frames, own: bool) -> dict[str, float]:
    """The errors on the test split, keys and units in `mdpot.training.metrics.METRICS`.

    Args:
        calculator: of the trained potential.
        frames: that it was trained on.
        own: whether its energies hold the reference energies, as mdpot's do.
    """
    from mdpot.training.evaluate import Evaluation

    energy, forces, sizes = [], [], []
    for atoms in frames.atoms("test"):
        label = atoms.info["REF_energy"], atoms.arrays.pop("REF_forces")
        found = predict(calculator, atoms)
        energy.append((label[0], found[0] - own * frames.reference(atoms.numbers)))
        forces.append((label[1], found[1]))
        sizes.append(len(atoms))
    together = np.stack([np.concatenate(part) for part in zip(*forces, strict=True)])
    return Evaluation(np.array(sizes), np.array(energy).T, together, np.zeros((2, 0, 3, 3))).metrics()


def predict(calculator: BaseCalculator, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å."""
    from ase.calculators.calculator import all_changes

    calculator.calculate(atoms, ["energy", "forces"], all_changes)
    return float(np.squeeze(calculator.results["energy"])), np.array(calculator.results["forces"])


def check_images(trainer: Trainer, folder: Path, frames: Frames) -> dict[str, float]:
    """How far the smallest right-angled cell of the test split is from the same cell repeated until it is large.

    Returns:
        "energy", eV/atom, and "force", eV/Å: the largest differences. Both are zero but for rounding where every
        periodic image is counted.
    """
    right = [atoms for atoms in frames.atoms("test") if atoms.cell.orthorhombic]
    atoms = min(right, key=lambda atoms: atoms.cell.lengths().min())
    del atoms.arrays["REF_forces"]
    repeats = np.ceil(2 * 5.0 / atoms.cell.lengths()).astype(int)
    large = atoms.repeat(repeats)
    small = predict(trainer.calculator(folder, trainer.settings, False), atoms)
    whole = predict(trainer.calculator(folder, trainer.settings, True), large)
    return {
        "cell": float(atoms.cell.lengths().min()),
        "energy": abs(small[0] / len(atoms) - whole[0] / len(large)),
        "force": float(np.abs(np.tile(small[1], (int(repeats.prod()), 1)) - whole[1]).max()),
    }


def count_parameters(calculator: Any, folder: Path) -> int:
    """The trainable numbers of the network behind a calculator."""
    from mdpot import MaskedGNNCalculator, load_potential

    if isinstance(calculator, MaskedGNNCalculator):
        network: Any = load_potential(folder / "run", "cpu")[0]
    else:
        network = calculator.models[0] if hasattr(calculator, "models") else calculator.model
    return sum(p.numel() for p in network.parameters())


def passes(folder: Path, trainer: Trainer, length: int) -> float:
    """How often the finished training saw each training frame, in pretraining and finetuning together."""
    if trainer.package != "mdpot":
        return length
    logs = [folder / "run" / stage / "metrics.jsonl" for stage in ("pretrain", "finetune")]
    return sum(json.loads(log.read_text().splitlines()[-1])["epoch"] for log in logs if log.is_file())


def main() -> None:
    """Trains one contender; after a pilot nothing is tested."""
    parser = argparse.ArgumentParser(description=(main.__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=TRAINERS)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--train-frames", type=int, default=None)
    parser.add_argument("--pilot", action="store_true")
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    begin = time.perf_counter()
    import torch

    torch.set_num_threads(args.threads)
    trainer, frames = TRAINERS[args.name], Frames(args.train_frames)
    args.out.mkdir(parents=True)
    folder = args.out.resolve()
    os.chdir(folder)
    calls = trainer.train(frames, trainer.settings, args.length)
    result: dict[str, Any] = {
        "length": args.length,
        "unit": trainer.unit,
        "seconds": calls.seconds,
        "setup_seconds": calls.times[0][0] - begin,
    }
    if not args.pilot:
        calculator = trainer.calculator(folder, trainer.settings, False)
        result |= {
            "passes": passes(folder, trainer, args.length),
            "parameters": count_parameters(calculator, folder),
            "frames": {name: len(indices) for name, indices in frames.splits.items()},
            "errors": test(calculator, frames, own=trainer.package == "mdpot"),
            "images": check_images(trainer, folder, frames),
        }
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
