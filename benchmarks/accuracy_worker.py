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
from trainers import OWN_TRAINERS, TRAINERS, Trainer

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

RESULT = "result.json"
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # peers read the pickles that they wrote themselves
}


def test(calculator: BaseCalculator, frames: Frames, own: bool, split: str) -> dict[str, float]:
    """The errors on frames, keys and units in `mdpot.training.metrics.METRICS`.

    Args:
        calculator: of the trained potential.
        frames: that it was trained on.
        own: whether its energies hold the reference energies, as mdpot's do.
        split: of the frames, or "more".
    """
    from mdpot.training.evaluation import Evaluation

    energy, forces, stress, sizes = [], [], [], []
    for atoms in frames.atoms(split):
        label = atoms.info["REF_energy"], atoms.arrays.pop("REF_forces")
        found = predict(calculator, atoms)
        energy.append((label[0], found[0] - own * frames.reference(atoms.numbers)))
        forces.append((label[1], found[1]))
        there = "REF_stress" in atoms.info
        stress.append((atoms.info["REF_stress"], predict_stress(calculator)) if there else np.full((2, 3, 3), np.nan))
        sizes.append(len(atoms))
    together = np.stack([np.concatenate(part) for part in zip(*forces, strict=True)])
    stresses = np.array(stress).swapaxes(0, 1)
    return Evaluation(np.array(sizes), np.array(energy).T, together, stresses).metrics()


def predict(calculator: BaseCalculator, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å, of atoms; where they have a label of stress, `predict_stress` has that too."""
    from ase.calculators.calculator import all_changes

    wanted = ["energy", "forces", *(["stress"] if "REF_stress" in atoms.info else [])]
    calculator.calculate(atoms, wanted, all_changes)
    return float(np.squeeze(calculator.results["energy"])), np.array(calculator.results["forces"])


def predict_stress(calculator: BaseCalculator) -> np.ndarray:
    """The stress, eV/Å³ [3, 3], of the last atoms of `predict`."""
    from ase.stress import voigt_6_to_full_3x3_stress

    return voigt_6_to_full_3x3_stress(np.squeeze(calculator.results["stress"]))


def check_images(trainer: Trainer, folder: Path, frames: Frames) -> dict[str, float]:
    """How far the smallest right-angled cell of the test split is from the same cell repeated until it is large.

    Returns:
        "energy", eV/atom, and "force", eV/Å: the largest differences. Both are zero but for rounding where every
        periodic image is counted. Nothing where no cell is right-angled.
    """
    right = [atoms for atoms in frames.atoms("test") if atoms.cell.orthorhombic]
    if not right:
        return {}
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
    parser.add_argument("name", choices={**TRAINERS, **OWN_TRAINERS})
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--train-frames", type=int, default=None)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--more", type=Path, default=None)
    parser.add_argument("--pilot", action="store_true")
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    begin = time.perf_counter()
    import torch

    torch.set_num_threads(args.threads)
    frames = Frames(args.train_frames, args.data, args.more)
    trainer = (TRAINERS if args.data is None else OWN_TRAINERS)[args.name]
    args.out.mkdir(parents=True)
    folder = args.out.resolve()
    os.chdir(folder)
    calls = trainer.train(frames, trainer.settings, args.length)
    result: dict[str, Any] = {
        "length": args.length,
        "unit": trainer.unit,
        "seconds": calls.seconds,
        "cpu_seconds": calls.cpu_seconds,
        "load_average": list(os.getloadavg()),
        "setup_seconds": calls.times[0][0] - begin,
    }
    if not args.pilot:
        calculator, own = trainer.calculator(folder, trainer.settings, False), trainer.package == "mdpot"
        result |= {
            "passes": passes(folder, trainer, args.length),
            "parameters": count_parameters(calculator, folder),
            "frames": {name: len(indices) for name, indices in frames.splits.items()},
            "errors": test(calculator, frames, own, "test"),
            **({} if args.more is None else {"more": test(calculator, frames, own, "more")}),
            "images": check_images(trainer, folder, frames),
        }
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
