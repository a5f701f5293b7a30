"""Copies a trained potential as the package ships it: its weights in half precision, for half the size of the file, and
its data named without the folders of this machine. Who loads it computes in single precision, as before.

    python benchmarks/ship.py runs/ethanol/potential.safetensors mdpot/zoo/rmd17-ethanol.safetensors \
        --origin "frames of the official split 01, rmd17_ethanol.npz"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mdpot import MaskedGNNCalculator, load_potential
from mdpot.files import write_bytes
from mdpot.modelfile import ModelFile, open_model, read_model, save_potential
from mdpot.modelformat import pack

KEPT = ("provenance", "mean_energies", "min_distances", "structures", "caution")


def halve(file: Path) -> None:
    """Writes a potential file anew with weights in float16.

    Their 11 bits change forces by about 1e-4 of themselves. Energies move by nearly the same amount an atom in all
    structures, which is measured on the structures in the file and taken off the reference energies.
    """
    model = open_model(file)
    if not model.header.get("structures"):
        raise SystemExit(f"{file} holds no structures, on which the energies could be compared")
    weights = {name for name, _ in model.potential().named_parameters()}
    tensors = {name: value.half() if name in weights else value for name, value in model.tensors.items()}
    halved = read_model(pack(model.header, tensors), file)
    tensors["shift"] = tensors["shift"] - (_energies(halved) - _energies(model)).mean()
    energies = dict(zip(map(str, model.header["elements"]), tensors["shift"].tolist(), strict=True))
    write_bytes(file, pack({**model.header, "reference_energies": energies}, tensors))


def _energies(model: ModelFile) -> np.ndarray:
    """The energies of the structures in a potential file, eV per atom."""
    found = []
    for structure in model.header["structures"]:
        atoms = Atoms(**structure)
        atoms.calc = MaskedGNNCalculator(model, dtype=torch.float64)
        found.append(atoms.get_potential_energy() / len(atoms))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="potential file in float32")
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--origin", required=True, help="what the frames are, in words")
    args = parser.parse_args()
    potential, header = load_potential(args.source)
    metadata = {key: header[key] for key in KEPT if key in header}
    metadata["provenance"]["data"]["origin"] = args.origin
    metadata["provenance"]["pretrained_from"] = None
    save_potential(args.target, potential, metadata)
    halve(args.target)


if __name__ == "__main__":
    main()
