"""jdft2d and phonons in MatBench's five official folds, by heads on descriptors and by a network of springs.

    pip install scikit-learn
    python benchmarks/matbench_folds.py --out runs/matbench-folds --page docs/results/matbench-folds.md

Every head learns the logarithm of the target. What is finished is kept in `--out` and not done again.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import gaussian_process
import numpy as np
import spring_network
import torch
from ase import Atoms
from descriptors import cell, composition, describe, springs, surroundings
from layers import layers
from matbench_page import write_page
from sklearn.ensemble import ExtraTreesRegressor

from mdpot.training.data.matbench import TASKS, official_folds
from mdpot.training.data.sources import load_dataset

GENERAL = (composition, cell, surroundings, springs)
DESCRIPTORS = {"jdft2d": (*GENERAL, layers), "phonons": GENERAL}
MEMBERS = {"jdft2d": ("trees", "process"), "phonons": ("trees", "process", "springs")}
"""The heads whose mean is predicted, each with the same weight."""
LEAST = 0.1
"""Of the target, before its logarithm is taken."""
KEPT = 60
"""Descriptors that the Gaussian process sees, those that matter most to trees."""
SHARE = "share of "


Head = Callable[["Task", int, int], np.ndarray]
"""From a task, a fold and a seed to the targets of the fold."""


@dataclass(frozen=True)
class Task:
    """A task: its crystals, their targets [n], the official fold of each [n], and the descriptors [n, ...] by name."""

    name: str
    crystals: list[Atoms]
    targets: np.ndarray
    folds: np.ndarray
    names: list[str]
    descriptors: np.ndarray

    @property
    def logarithms(self) -> np.ndarray:
        return np.log(self.targets.clip(min=LEAST))


def load(name: str, out: Path) -> Task:
    """A task with its descriptors, which are computed once."""
    task, frames = TASKS[name], load_dataset(f"matbench-{name}", need=None).frames
    crystals = [Atoms(numbers=f.numbers, positions=f.positions, cell=f.cell, pbc=True) for f in frames]
    folds = np.zeros(len(frames), int)
    for fold, test in enumerate(official_folds(task, frames)):
        folds[test] = fold
    sources = [Path(__file__).with_name(f"{module}.py") for module in ("descriptors", "layers")]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
    file = out / f"{name}-descriptors-{digest}.npz"
    if not file.is_file():
        rows = [describe(atoms, DESCRIPTORS[name]) for atoms in crystals]
        np.savez(file, names=list(rows[0]), values=np.array([list(row.values()) for row in rows], float))
    kept = np.load(file)
    targets = np.array([f.properties[task.column] for f in frames])
    return Task(name, crystals, targets, folds, [str(n) for n in kept["names"]], kept["values"])


def trees(task: Task, fold: int, seed: int) -> np.ndarray:
    """Extremely randomized trees on all descriptors."""
    train, test = task.folds != fold, task.folds == fold
    forest = ExtraTreesRegressor(200, max_features=0.35, random_state=seed)
    forest.fit(task.descriptors[train], task.logarithms[train])
    return np.exp(forest.predict(task.descriptors[test]))


def process(task: Task, fold: int, seed: int) -> np.ndarray:
    """A Gaussian process on the descriptors that matter most to a few trees, and the shares of the elements."""
    train, test = task.folds != fold, task.folds == fold
    element = np.array([name.startswith(SHARE) for name in task.names])
    forest = ExtraTreesRegressor(30, max_features=0.3, min_samples_leaf=2, random_state=seed)
    forest.fit(task.descriptors[train], task.logarithms[train])
    kept = np.argsort(-forest.feature_importances_ * ~element)[:KEPT]
    values, shares = task.descriptors[:, kept], task.descriptors[:, element]
    found = gaussian_process.fit_predict(
        values[train], shares[train], task.logarithms[train], values[test], shares[test]
    )
    return np.exp(found)


@cache
def _crystals(name: str, out: Path) -> list[spring_network.Crystal]:
    return [spring_network.Crystal.of(atoms) for atoms in load(name, out).crystals]


def spring(task: Task, fold: int, seed: int, *, out: Path, epochs: int) -> np.ndarray:
    """The network of springs."""
    crystals = _crystals(task.name, out)
    train, test = (np.flatnonzero(part) for part in (task.folds != fold, task.folds == fold))
    known, new = ([crystals[k] for k in part] for part in (train, test))
    return spring_network.fit_predict(known, task.targets[train], new, seed, epochs)


def predictions(task: Task, head: str, seed: int, out: Path, make: Head | None) -> np.ndarray:
    """[n]: each fold by a head that saw the other four; NaN where that is not finished and `make` is None."""
    found = np.full(len(task.targets), np.nan)
    for fold in range(5):
        file = out / f"{task.name}-{head}-{seed}-{fold}.npy"
        if not file.is_file() and make is not None:
            began = time.process_time()
            part = make(task, fold, seed)
            if not np.isfinite(part).all():
                raise SystemExit(f"{file.stem}: predictions that are not finite; the network has diverged")
            np.save(file, part)
            error = np.abs(part - task.targets[task.folds == fold]).mean()
            print(f"{file.stem}: {error:.2f}, {time.process_time() - began:.0f} s", flush=True)
        if file.is_file():
            found[task.folds == fold] = np.load(file)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/matbench-folds"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/matbench-folds.md"))
    parser.add_argument("--tasks", nargs="+", default=list(MEMBERS), choices=list(MEMBERS))
    parser.add_argument("--heads", nargs="+", choices=["trees", "process", "springs"])
    parser.add_argument("--seeds", type=int, default=2, help="of the networks of springs and the trees")
    parser.add_argument("--epochs", type=int, default=100, help="of the networks of springs")
    parser.add_argument("--page-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    args.out.mkdir(parents=True, exist_ok=True)
    makers = {"trees": trees, "process": process, "springs": partial(spring, out=args.out, epochs=args.epochs)}
    found = {}
    for name in MEMBERS:
        task = load(name, args.out)
        heads = {}
        for head in MEMBERS[name]:
            asked = not args.page_only and name in args.tasks and head in (args.heads or MEMBERS[name])
            seeds = range(1 if head == "process" else args.seeds)
            name_of = f"springs{args.epochs}" if head == "springs" else head
            parts = [predictions(task, name_of, seed, args.out, makers[head] if asked else None) for seed in seeds]
            heads[head] = [part for part in parts if not np.isnan(part).any()]
        found[name] = task, heads
    write_page(args.page, found, args.epochs)


if __name__ == "__main__":
    main()
