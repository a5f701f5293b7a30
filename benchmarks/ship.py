"""Copies a trained potential as the package ships it: weights rounded to 15 bits, by which the wheel packs a quarter
smaller, and its data named without the folders of this machine.

    python benchmarks/ship.py runs/ethanol/potential.safetensors mdpot/zoo/rmd17-ethanol.safetensors \
        --origin "frames of the official split 01, rmd17_ethanol.npz"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mdpot import load_potential
from mdpot.modelfile import save_potential

DROPPED = 9
"""Of the 24 bits of a weight's mantissa; forces change by about 3e-5 of themselves."""
KEPT = ("provenance", "mean_energies", "min_distances", "structures", "caution")


def rounded(weights: torch.Tensor) -> torch.Tensor:
    """Weights [...] float32 to the nearest with `DROPPED` bits of zero."""
    bits = weights.numpy().view(np.uint32).astype(np.uint64)
    bits = (bits + (1 << (DROPPED - 1))) >> DROPPED << DROPPED
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32).copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="potential file in float32")
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--origin", required=True, help="what the frames are, in words")
    args = parser.parse_args()
    potential, header = load_potential(args.source)
    with torch.no_grad():
        for weights in potential.parameters():
            weights.copy_(rounded(weights.detach()))
    metadata = {key: header[key] for key in KEPT if key in header}
    metadata["provenance"]["data"]["origin"] = args.origin
    metadata["provenance"]["pretrained_from"] = None
    save_potential(args.target, potential, metadata)


if __name__ == "__main__":
    main()
