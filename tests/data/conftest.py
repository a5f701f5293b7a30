"""Small structures and files that the tests of the data share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner

RUNNER_FRAME = """begin
comment source_frame {group} T 300.0 step {step}
lattice 10.0 0.0 0.0
lattice 1.0 11.0 0.0
lattice 0.0 2.0 12.0
atom 0.0 0.0 0.0 O 0.0 0.0 0.01 -0.02 0.03
atom 1.8 0.0 0.0 H 0.0 0.0 0.0 0.0 -0.03
atom -0.5 1.7{step:02d} 0.0 H 0.0 0.0 -0.01 0.02 0.0
energy -76.5
charge 0.0
end
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mdpot"


@pytest.fixture
def runner_text() -> str:
    """Twelve frames of one water molecule in a triclinic cell, each of another source frame."""
    return "".join(RUNNER_FRAME.format(group=k, step=k) for k in range(12))


@pytest.fixture
def make_frame() -> Callable[..., Frame]:
    """A sound frame: water in a cube of 6 Å; fields can be set to others."""

    def make(**fields: object) -> Frame:
        values: dict[str, object] = {
            "numbers": np.array([8, 1, 1]),
            "positions": np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]),
            "cell": np.eye(3) * 6,
            "pbc": np.ones(3, dtype=bool),
            "energy": -10.0,
            "forces": np.zeros((3, 3)) + 0.1,
        }
        return Frame(**{**values, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def sample_frames() -> list[Frame]:
    """Every 12th frame of the sample inside the package, and the ones with the flattest cells."""
    frames = read_runner(SAMPLE)
    heights = [1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max() for frame in frames]
    chosen = set(range(0, len(frames), 12)) | set(np.argsort(heights)[:8].tolist())
    return [frames[k] for k in sorted(chosen)]
