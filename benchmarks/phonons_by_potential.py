"""The highest phonon frequency of MatBench's crystals by a potential's forces, and what a head learns of the rest.

    mdpot reproduce derivative-table2 --models tide --datasets matbench-phonons --arm 0:1:1
    python benchmarks/phonons_by_potential.py FILE --most 4

The first line leaves the pretrained network whose numbers are in docs/results/README.md: FILE is the
pretrained.safetensors under runs/reproduce-small/runs/crystals/tide.

Atoms of the unit cell are displaced in a 2 × 2 × 2 supercell, by which the dynamical matrices at its eight wave vectors
are known; the highest frequencies are averaged over these. Then a Gaussian process learns, in the official folds, the
logarithm of the true frequency over the computed one, beside another that learns the frequency without it.
"""

import argparse
import itertools
from pathlib import Path

import gaussian_process
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.units import _amu, _c, _e
from descriptors import cell, composition, describe, springs, surroundings

from mdpot import MaskedGNNCalculator
from mdpot.training.data.matbench import TASKS, official_folds
from mdpot.training.data.sources import load_dataset

SHIFTS = list(itertools.product((0, 1), repeat=3))
STEP = 0.02
"""Å, by which atoms are displaced to both sides."""
TO_WAVENUMBER = np.sqrt(_e * 1e20 / _amu) / (2 * np.pi * _c * 100)
"""1/cm of sqrt(eV / Å² / amu)."""
LEAST = 10.0
"""1/cm, for frequencies that are lower or imaginary."""
KEPT = 40


def force_constants(atoms: Atoms, calculator: Calculator) -> np.ndarray:
    """[n, 3, 8, n, 3], eV/Å²: of the atoms in the cell with those in each of the eight cells of the supercell."""
    n = len(atoms)
    supercell = Atoms(
        numbers=np.tile(atoms.numbers, 8),
        positions=np.concatenate([atoms.positions + np.array(shift) @ atoms.cell.array for shift in SHIFTS]),
        cell=2 * atoms.cell.array,
        pbc=True,
    )
    supercell.calc = calculator
    rest, found = supercell.positions.copy(), np.zeros([n, 3, 8, n, 3])
    for atom, axis in itertools.product(range(n), range(3)):
        sides = []
        for step in (STEP, -STEP):
            supercell.positions = rest
            supercell.positions[atom, axis] += step
            sides.append(supercell.get_forces())
        found[atom, axis] = ((sides[1] - sides[0]) / (2 * STEP)).reshape(8, n, 3)
    return found


def highest_frequency(atoms: Atoms, calculator: Calculator) -> float:
    """1/cm, the mean over the eight wave vectors."""
    constants, masses = force_constants(atoms, calculator), np.repeat(atoms.get_masses(), 3)
    frequencies = []
    for wave in SHIFTS:
        phases = np.array([(-1.0) ** np.dot(wave, shift) for shift in SHIFTS])
        matrix = np.einsum("iasjb,s->iajb", constants, phases).reshape(len(masses), len(masses))
        square = np.linalg.eigvalsh((matrix + matrix.T) / 2 / np.sqrt(np.outer(masses, masses)))[-1]
        frequencies.append(TO_WAVENUMBER * np.sqrt(max(square, 0.0)))
    return float(np.mean(frequencies))


def by_process(
    values: np.ndarray, shares: np.ndarray, targets: np.ndarray, folds: np.ndarray, own: np.ndarray | None = None
) -> np.ndarray:
    """Targets [n] as each official fold is predicted from the others.

    Args:
        values: [n, n_descriptors]; those that correlate most with the training targets are kept.
        shares: [n, n_elements].
        targets: [n].
        folds: [n].
        own: [n], one more descriptor, always kept.
    """
    found = np.zeros(len(targets))
    for fold in range(5):
        train, test = folds != fold, folds == fold
        strength = [abs(np.corrcoef(v, targets[train])[0, 1]) if v.std() else 0.0 for v in values[train].T]
        seen = values[:, np.argsort(-np.array(strength))[:KEPT]]
        if own is not None:
            seen = np.column_stack([seen, own])
        found[test] = gaussian_process.fit_predict(seen[train], shares[train], targets[train], seen[test], shares[test])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--most", type=int, default=4, help="atoms in the cell")
    args = parser.parse_args()
    calculator = MaskedGNNCalculator(args.model)
    frames = load_dataset("matbench-phonons", need=None).frames
    folds = np.zeros(len(frames), int)
    for fold, test in enumerate(official_folds(TASKS["phonons"], frames)):
        folds[test] = fold
    able = set(calculator.metadata["elements"])
    chosen = [k for k, f in enumerate(frames) if len(f) <= args.most and set(f.numbers.tolist()) <= able]
    crystals = [Atoms(frames[k].numbers, frames[k].positions, cell=frames[k].cell, pbc=True) for k in chosen]
    true = np.array([frames[k].properties[TASKS["phonons"].column] for k in chosen])
    computed = np.array([highest_frequency(atoms, calculator) for atoms in crystals]).clip(LEAST)
    scale = np.exp(np.median(np.log(true / computed)))
    rows = [describe(atoms, (composition, cell, surroundings, springs)) for atoms in crystals]
    names, values = list(rows[0]), np.array([list(row.values()) for row in rows], float)
    element = np.array([name.startswith("share of ") for name in names])
    seen, own, logs = (values[:, ~element], values[:, element]), np.log(computed), np.log(true)
    found = {
        "the potential": computed,
        f"the potential times {scale:.2f}": scale * computed,
        "a Gaussian process on descriptors": np.exp(by_process(*seen, logs, folds[chosen])),
        "one for the ratio to the potential": computed * np.exp(by_process(*seen, logs - own, folds[chosen], own)),
        "one on descriptors and the potential": np.exp(by_process(*seen, logs, folds[chosen], own)),
    }
    correlation = np.corrcoef(np.argsort(np.argsort(true)), np.argsort(np.argsort(computed)))[0, 1]
    print(f"{len(true)} crystals of at most {args.most} atoms; rank correlation {correlation:.2f}; MAE, 1/cm:")
    for title, prediction in found.items():
        print(f"{title}: {np.abs(prediction - true).mean():.1f}")


if __name__ == "__main__":
    main()
