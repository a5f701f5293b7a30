"""A potential for a crystal, from labeled frames to its lattice and bulk modulus.

The frames are rattled and strained copper labeled by ASE's EMT, a toy that needs no DFT code, so that the example can
compare the potential with its labels. With your own frames: `mdpot train custom --data FILE`, then `relax` and
`bulk_modulus` as they are.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import BFGS
from ase.units import GPa

from mdpot import MaskedGNNCalculator
from mdpot.training.config import load_recipe
from mdpot.training.run import run_train


def labeled_frames(n: int, rng: np.random.Generator) -> list[Atoms]:
    """Copper, eight atoms in a cell that is strained by several percent, with energies, forces and stress."""
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", "fcc", a=3.6) * (2, 2, 2)
        strain = np.eye(3) * rng.uniform(0.94, 1.06) + rng.normal(0, 0.01, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.rattle(0.06, rng=rng)
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(atoms)
    return frames


def relax(atoms: Atoms, calculator: Calculator) -> Atoms:
    """A copy whose atoms and cell are relaxed to 1 meV/Å."""
    atoms = atoms.copy()
    atoms.calc = calculator
    # ASE's annotation leaves out its filters.
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=200)  # type: ignore[arg-type]
    return atoms


def bulk_modulus(relaxed: Atoms) -> float:
    """GPa, by the equation of state of Birch and Murnaghan through volumes up to 6 percent off."""
    volumes, energies = [], []
    for scale in np.linspace(0.94, 1.06, 9) ** (1 / 3):
        atoms = relaxed.copy()
        atoms.set_cell(relaxed.cell.array * scale, scale_atoms=True)
        atoms.calc = relaxed.calc
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    return EquationOfState(volumes, energies, "birchmurnaghan").fit()[2] / GPa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="of finetuning")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    write(folder / "frames.extxyz", labeled_frames(80, np.random.default_rng(0)))
    settings = ["pretrain.objective=none", f"finetune.max_steps={arguments.steps}", "finetune.eval_every=100"]
    run_train(load_recipe("custom", "quick", settings), data=folder / "frames.extxyz", out=folder / "run")
    for name, calculator in (("potential", MaskedGNNCalculator(folder / "run")), ("its labels", EMT())):
        copper = relax(bulk("Cu", "fcc", a=3.5), calculator)
        lattice = np.sqrt(2) * copper.cell.lengths()[0]
        print(f"{name}: lattice constant {lattice:.3f} Å, bulk modulus {bulk_modulus(copper):.0f} GPa")


if __name__ == "__main__":
    main()
