"""From your own frames to your own potential: write labeled frames with ASE, train on the file, use the potential.

Here, "your" frames are rattled ethanol molecules labeled by ASE's EMT, a toy that needs no DFT code. With real frames,
start at `load_recipe`. From a shell: `mdpot train custom --data frames.extxyz`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import write

from mdpot import MaskedGNNCalculator
from mdpot.training.config import load_recipe
from mdpot.training.run import run_train

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=150)
arguments = parser.parse_args()

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
frames = []
for _ in range(60):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, rng=rng)
    atoms.calc = EMT()
    atoms.get_forces()
    frames.append(atoms)
write(folder / "frames.extxyz", frames)

recipe = load_recipe(
    "custom",
    "quick",
    [
        "model.cutoff=4.0",
        "pretrain.max_steps=50",
        "pretrain.eval_every=50",
        f"finetune.max_steps={arguments.steps}",
        "finetune.eval_every=50",
    ],
)
metrics = run_train(recipe, data=folder / "frames.extxyz", out=folder / "run")
print(
    "test force RMSE:",
    round(metrics["errors"]["test"]["force_rmse"], 1),
    "meV/Å; report:",
    folder / "run" / "report.md",
)

atoms = frames[0].copy()
atoms.calc = MaskedGNNCalculator(folder / "run")
print("energy:", atoms.get_potential_energy(), "eV")
