"""Writes the two small files beside it, laid out as MPF.2021.2.8; needs pymatgen (made with 2026.10.24)."""

import pickle
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure  # type: ignore[import-not-found]

BLOCKS = {0: (4, ("mp-1", ["Na+", "Cl-"])), 1: (2, ("mp-22862", ["Ga", "As"]))}

for block, (protocol, (material, species)) in BLOCKS.items():
    # The first relaxation is 1, the second 0; the last step of that is the relaxed structure.
    names = [f"{material}-1-0", f"{material}-0-3", f"{material}-0-12"]
    snapshots = {
        "structure": [
            Structure(Lattice.orthorhombic(4.0, 4.1, 4.2 + 0.1 * n), species, [[0, 0, 0], [0.5, 0.5, 0.5 + 0.01 * n]])
            for n in range(3)
        ],
        "energy": [-6.0 - n for n in range(3)],
        "force": [[[0.0, 0.0, 0.1 * (n + 1)], [0.0, 0.0, -0.1 * (n + 1)]] for n in range(3)],
        "stress": [(np.eye(3) * (10.0 + n)).tolist() for n in range(3)],
        "id": names,
    }
    (Path(__file__).parent / f"block_{block}.p").write_bytes(pickle.dumps({material: snapshots}, protocol))
