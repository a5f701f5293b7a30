"""Aspirin at 300 and 500 K with ASE and with OpenMM: the distances of its atoms, beside those of dynamics by DFT.

Run it with `python examples/aspirin.py`: 10 ps each; --steps 200000 makes 100 ps. The frames of the revised MD17 are
from dynamics at 500 K. They are looked for as in training (MDPOT_DATA, the cache); without them nothing is compared.
"""

import argparse
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread, write

from mdpot import MdpotError, load_potential
from mdpot.simulate import Settings, run_md
from mdpot.training.data.sources import load_dataset
from mdpot.zoo import find_model

EDGES = np.linspace(0.8, 8.0, 145)  # Å, bins of 0.05
DISCARD = 0.2  # share of a run, from its start


def distances(frames: Iterable[np.ndarray]) -> np.ndarray:
    """The distribution of the distances between all atoms, 1/Å, in the bins of `EDGES`; frames are [n_atoms, 3], Å."""
    found = np.zeros(len(EDGES) - 1)
    for positions in frames:
        i, j = np.triu_indices(len(positions), 1)
        found += np.histogram(np.linalg.norm(positions[i] - positions[j], axis=1), EDGES)[0]
    return found / (found.sum() * np.diff(EDGES))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """What two distributions do not share, between 0 and 1."""
    return 0.5 * float((np.abs(one - other) * np.diff(EDGES)).sum())


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="rmd17-aspirin", help="potential file, folder of a run, or name of the zoo")
parser.add_argument("--steps", type=int, default=20_000, help="of 0.5 fs")
parser.add_argument("--out", type=Path, help="folder for the runs; by default a temporary one")
arguments = parser.parse_args()
out = arguments.out or Path(tempfile.mkdtemp())
out.mkdir(parents=True, exist_ok=True)

_, metadata = load_potential(find_model(arguments.model))
held_out = metadata["structures"][0]
write(out / "aspirin.xyz", Atoms(held_out["numbers"], held_out["positions"]))

try:
    dft = load_dataset("rmd17-aspirin")
except MdpotError:
    reference = None
else:
    halves = [distances(frame.positions for frame in dft.frames[n::2]) for n in (0, 1)]
    reference = 0.5 * (halves[0] + halves[1])
    print(f"distances in {len(dft.frames)} DFT frames at 500 K: halves differ by {difference(*halves):.3f}")

for engine in ("ase", "openmm"):
    if find_spec(engine) is None:
        continue
    for temperature in (300.0, 500.0):
        settings = Settings(
            start=str(out / "aspirin.xyz"), model=arguments.model, engine=engine, temperature=temperature,
            steps=arguments.steps, every=20, minimize=True,
        )  # fmt: skip
        folder = out / f"{engine}-{temperature:.0f}K"
        summary = run_md(settings, folder)
        frames = list(iread(folder / "trajectory.xyz"))
        found = distances(atoms.positions for atoms in frames[int(DISCARD * len(frames)) :])
        said = [f"{summary.time_ps:g} ps at {summary.mean_temperature:.0f} K", summary.stopped or "watch silent"]
        if reference is not None:
            said.append(f"distances differ from those of DFT by {difference(found, reference):.3f}")
        print(f"{engine:6s} {temperature:.0f} K: {', '.join(said)}")
