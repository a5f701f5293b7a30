"""How long a potential takes for a step of molecular dynamics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from mdpot.calculator import MaskedGNNCalculator
from mdpot.errors import MdpotError
from mdpot.modelfile import read_metadata
from mdpot.simulate import water_box

N_WATERS, WARM_UP, BLOCK = 64, 10, 10
TIMESTEP, TEMPERATURE = 0.5, 300.0  # fs, K


def time_dynamics(file: Path, device: str | None, threads: int, n_blocks: int = 9) -> dict[str, Any]:
    """Times velocity Verlet by ASE at 0.5 fs from 300 K.

    Args:
        file: a potential; with hydrogen and oxygen alone it moves 64 waters, else one of its own test structures.
        device: torch device; None takes a GPU where there is one.
        threads: of torch, which are set already; for the record.
        n_blocks: how many blocks are timed.

    Returns:
        "ms_per_step" (the median of blocks of 10 steps), "n_atoms", "system" and "threads".
    """
    metadata = read_metadata(file)
    rng = np.random.default_rng(0)
    if sorted(metadata["elements"]) == [1, 8]:
        atoms, system = water_box(N_WATERS, rng), f"{N_WATERS} waters"
    elif metadata.get("structures"):
        first = metadata["structures"][0]
        atoms = Atoms(first["numbers"], first["positions"], cell=first["cell"], pbc=first["pbc"])
        system = atoms.get_chemical_formula()
    else:
        raise MdpotError(f"{str(file)!r} holds no structure to run dynamics from.")
    atoms.calc = MaskedGNNCalculator(file, device=device)
    spread = np.sqrt(units.kB * TEMPERATURE * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * rng.standard_normal((len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, timestep=TIMESTEP * units.fs)
    dynamics.run(WARM_UP)
    times = []
    for _ in range(n_blocks):
        began = time.perf_counter()
        dynamics.run(BLOCK)
        times.append((time.perf_counter() - began) / BLOCK * 1e3)
    return {
        "ms_per_step": round(float(np.median(times)), 3),
        "n_atoms": len(atoms),
        "system": system,
        "threads": threads,
    }
