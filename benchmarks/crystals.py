"""Gathers the frames that `crystals-pbe-small` is trained on, from the folder `crystals` of MDPOT_DATA.

python benchmarks/crystals.py --out crystals.extxyz
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import ase.io
import numpy as np

TAUGHT = ["mattersim/*.extxyz.gz", "alexandria_pressure_2000x7.extxyz.gz"]
LARGEST_FORCE = 25.0
"""eV/Å; frames with a larger one are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="extended XYZ")
    write_taught(Path(os.environ["MDPOT_DATA"]) / "crystals", parser.parse_args().out)


def write_taught(crystals: Path, file: Path) -> None:
    """The frames of `TAUGHT` in random order, without those of huge forces, each with the name of its file."""
    frames = []
    paths = [sorted(crystals.glob(pattern)) for pattern in TAUGHT]
    if not all(paths):
        raise SystemExit(f"{crystals} lacks {TAUGHT[paths.index([])]}")
    for path in (path for found in paths for path in found):
        for atoms in ase.io.read(path, ":"):
            if np.abs(atoms.get_forces()).max() < LARGEST_FORCE:
                atoms.info = {"source": path.name.split(".")[0]}
                frames.append(atoms)
    random.Random(0).shuffle(frames)
    ase.io.write(file, frames)


if __name__ == "__main__":
    main()
