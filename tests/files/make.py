"""Writes a small file of each kind in the current format version beside this script, and prints what they answer.

Run it before the format changes: python tests/files/make.py. The files of a version that ended are never written again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from ase.build import molecule

from mdpot import Graph, build_potential, build_property, open_model, save_model
from mdpot.heads import build_ensemble
from mdpot.modelformat import FORMAT_VERSION

ELEMENTS = [1, 6, 8]
SIZES = {"cutoff": 3.3, "width": 8, "layers": 1}
SHIFT = [-13.605693122994, -1030.123456789012345, -2043.987654321098765]
FOLDER = Path(__file__).resolve().parent


def make(seed: int) -> dict[str, torch.nn.Module]:
    """A potential with wall and pair energy, and a model of a property, with random weights."""
    torch.manual_seed(seed)
    wall = [[0.9, 0.8, 0.7], [0.8, 1.1, 1.0], [0.7, 1.0, 1.2]]
    pair = torch.randn(2, 3, 3)
    potential = build_potential(
        "egnn", SIZES, ELEMENTS, SHIFT, 1 / 3, wall, (0.1 * (pair + pair.transpose(1, 2))).tolist()
    )
    targets = {"name": "band_gap", "unit": "eV", "pooling": "mean", "mean": 2.5, "scale": 0.5}
    return {"potential": potential, "property": build_property("egnn", SIZES, ELEMENTS, **targets)}


def answers(file: Path) -> dict[str, float]:
    """What a file says of ethanol: energy (eV), sum of the absolute forces (eV/Å), property, and their spreads."""
    model = open_model(file)
    network = model.network()
    graph = Graph.from_atoms(molecule("CH3CH2OH"), 3.3, torch.float64)
    if model.predicts == "potential":
        spread = ["forces_std"] if model.kind == "ensemble" else []
        out = network(*graph.inputs(), outputs=["energy", "forces", *spread])
    else:
        out = network(*graph.inputs())
    out["forces"] = out["forces"].abs() if "forces" in out else torch.zeros(0)
    kept = ("energy", "forces", "forces_std", "property", "property_std")
    return {name: float(out[name].sum()) for name in kept if name in out and out[name].numel() > 0}


def main() -> None:
    first, second = make(0), make(1)
    networks = {
        **first,
        "potentials": build_ensemble([first["potential"], second["potential"]]),
        "properties": build_ensemble([first["property"], second["property"]]),
    }
    for name, network in networks.items():
        file = FOLDER / f"version{FORMAT_VERSION}-{name}.safetensors"
        save_model(file, network, {"provenance": {"seed": 0}})
        print(f"{file.name}: {answers(file)}")


if __name__ == "__main__":
    main()
