"""Archives of NumPy that tests save and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mdpot.training.data.readers import read_file
from mdpot.training.data.reading import Reading


def read_saved(tmp_path: Path, **arrays: Any) -> Reading:
    np.savez(tmp_path / "saved.npz", **arrays)
    return read_file(tmp_path / "saved.npz")


def archive(n: int) -> dict[str, np.ndarray]:
    """Water in n frames, in eV and Å."""
    rng = np.random.default_rng(1)
    return {
        "numbers": np.array([8, 1, 1]),
        "positions": rng.normal(size=(n, 3, 3)),
        "energies": rng.normal(size=n),
        "forces": rng.normal(size=(n, 3, 3)),
    }
