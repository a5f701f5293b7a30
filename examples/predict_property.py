"""A property of crystals from a model file, and how sure an ensemble is of it.

    mdpot predict property.safetensors structures.extxyz -o table.csv

does the same from a shell. Without --file, the example makes two untrained models.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from ase.build import bulk

from mdpot import PropertyPredictor, build_property
from mdpot.modelfile import save_ensemble, save_model


def untrained(folder: Path) -> Path:
    """An ensemble of two models with random weights."""
    files = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = build_property("tide", {"cutoff": 5.0}, [13, 14, 29], "band_gap", unit="eV", pooling="mean")
        files.append(folder / f"{seed}.safetensors")
        save_model(files[-1], model)
    save_ensemble(folder / "ensemble.safetensors", files)
    return folder / "ensemble.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a file of `mdpot finetune-property` or `mdpot ensemble`")
    parser.add_argument("--steps", type=int, default=3, help="number of strained cells")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        predictor = PropertyPredictor(args.file or untrained(Path(folder)))
    crystals = {"Si": bulk("Si"), "Al": bulk("Al"), "Cu": bulk("Cu", cubic=True)}
    print(f"{predictor.name} of Si: {predictor.predict(crystals['Si']):.3f} {predictor.unit}")

    found = predictor.evaluate(list(crystals.values()))
    for index, name in enumerate(crystals):
        spread = "" if found.std is None else f" ± {found.std[index]:.3f}"
        print(f"{name}: {found.values[index]:.3f}{spread} {predictor.unit}")

    strained = []
    for step in range(args.steps):
        atoms = crystals["Si"].copy()
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * step), scale_atoms=True)
        strained.append(atoms)
    print("Si, stretched by 1 % each:", predictor.predict(strained).round(6))


if __name__ == "__main__":
    main()
