"""Trained potentials that come with the package, by name. Each has its report beside it."""

from __future__ import annotations

from pathlib import Path

ZOO: dict[str, str] = {
    "water-rpbe-small": "Liquid water and ice; learned from the RPBE-D3 network potential (not DFT) in ten minutes on two cores",
}


def zoo_file(name: str) -> Path:
    """The file of a potential in `ZOO`."""
    return Path(__file__).parent / f"{name}.safetensors"
