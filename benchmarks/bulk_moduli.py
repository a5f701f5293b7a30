"""Lattice constants and bulk moduli of cubic elements by a potential, beside those of the labels it was trained on.

    mdpot train custom --data crystals/mlearn_train.extxyz.gz --set pretrain.objective=none --out runs/mlearn
    python benchmarks/bulk_moduli.py runs/mlearn crystals/mlearn_train.extxyz.gz

The potential's: the cell relaxed in ASE, then the equation of state of Birch and Murnaghan through nine volumes up to 6
percent off. The labels': (C11 + 2 C12) / 3, with the slopes of the DFT stress over uniaxial strains below 2.5 percent,
of the frames of the group "Elastic" that are strained along one axis of the cubic cell.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import iread
from ase.optimize import BFGS
from ase.units import GPa

from mdpot import MaskedGNNCalculator

CRYSTALS = {"Mo": ("bcc", 3.16), "Si": ("diamond", 5.43), "Ge": ("diamond", 5.76), "Li": ("bcc", 3.44)}
N_ATOMS = {"bcc": 2, "diamond": 8}
"""In the cubic cell."""


def by_potential(element: str, calculator: Calculator) -> tuple[float, float, float]:
    """Lattice constant, Å, bulk modulus, GPa, and how far energies are off the equation of state, meV/atom."""
    structure, start = CRYSTALS[element]
    atoms = bulk(element, structure, a=start)
    atoms.calc = calculator
    # ASE's annotation leaves out its filters.
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=200)  # type: ignore[arg-type]
    volumes, energies = [], []
    for scale in np.linspace(0.94, 1.06, 9) ** (1 / 3):
        strained = atoms.copy()
        strained.calc = calculator
        strained.set_cell(atoms.cell.array * scale, scale_atoms=True)
        volumes.append(strained.get_volume())
        energies.append(strained.get_potential_energy())
    fit = EquationOfState(volumes, energies, "birchmurnaghan")
    modulus = fit.fit()[2] / GPa
    off = np.abs(fit.func(np.array(volumes), *fit.eos_parameters) - energies).max() / len(atoms) * 1e3
    return (atoms.get_volume() / len(atoms) * N_ATOMS[structure]) ** (1 / 3), modulus, off


def by_labels(frames: list[Atoms]) -> float | None:
    """The bulk modulus, GPa, of uniaxially strained frames of one element; None where there are fewer than four."""
    cubic = [a for a in frames if np.abs(a.cell.array - np.diag(np.diag(a.cell.array))).max() < 1e-3]
    if not cubic:
        return None
    lengths = np.array([a.cell.lengths() for a in cubic])
    strains = lengths / np.median(lengths) - 1
    along, across = [], []
    for strain, atoms in zip(strains, cubic, strict=True):
        axis = np.abs(strain).argmax()
        others = np.delete(strain, axis)
        if np.abs(others).max() < 1e-4 < abs(strain[axis]) < 0.025:
            stress = np.diag(atoms.get_stress(voigt=False)) / GPa
            along.append((strain[axis], stress[axis]))
            across.append((strain[axis], np.delete(stress, axis).mean()))
    if len({round(strain, 4) for strain, _ in along}) < 2:
        return None
    c11, c12 = (np.polyfit([e for e, _ in pairs], [s for _, s in pairs], 1)[0] for pairs in (along, across))
    return float(c11 + 2 * c12) / 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="potential file, run folder, or a name of the zoo")
    parser.add_argument("frames", type=Path, help="labeled frames of cubic elements, strained along an axis")
    arguments = parser.parse_args()
    calculator = MaskedGNNCalculator(arguments.model)
    frames = list(iread(arguments.frames, ":"))
    print("| | lattice constant, Å | bulk modulus, GPa | of the labels | difference | off the equation of state |")
    print("|---|---:|---:|---:|---:|---:|")
    for element in CRYSTALS:
        lattice, modulus, off = by_potential(element, calculator)
        theirs = by_labels([a for a in frames if set(a.symbols) == {element} and a.info["group"] == "Elastic"])
        beside = "| |" if theirs is None else f"{theirs:.1f} | {100 * (modulus / theirs - 1):+.1f} % |"
        print(f"| {element} | {lattice:.3f} | {modulus:.1f} | {beside} {off:.3f} meV/atom |")


if __name__ == "__main__":
    main()
