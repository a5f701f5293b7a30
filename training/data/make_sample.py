"""Draws the sample that ships with mdpot from the full `water-rpbe/input.data.gz`.

    MDPOT_DATA=folder python -m mdpot.training.data.make_sample

Every source frame gives 3 or 4 of its frames, spread evenly along its trajectory with a random start, so that
all sizes are in the sample as often as in the full set. The same input gives the same bytes.
"""

from __future__ import annotations

import bz2
import os
import re
import sys
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.structures import read_bytes

N_FRAMES = 1000
MAX_BYTES = 3_000_000
SAMPLE = Path(__file__).parent / "water-rpbe-sample" / "input.data.bz2"


def choose_frames(groups: np.ndarray, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Frames spread evenly over the groups, and evenly along each group.

    Args:
        groups: [n_all] the group of each frame, in the order of the file.
        n_frames: how many to choose.
        rng: which groups give one frame more, and where along a group the choice starts.

    Returns:
        The sorted indices [n_frames] int64.
    """
    names = np.unique(groups)
    quota = np.full(len(names), n_frames // len(names))
    quota[rng.permutation(len(names))[: n_frames % len(names)]] += 1
    chosen = []
    for name, n in zip(names, quota, strict=True):
        members = np.flatnonzero(groups == name)
        stride = len(members) / n
        chosen.append(members[(np.arange(n) * stride + rng.uniform(0, stride)).astype(int)])
    return np.sort(np.concatenate(chosen))


def main() -> int:
    """Writes the sample; prints what it holds."""
    folder = os.environ.get("MDPOT_DATA")
    if not folder:
        raise MdpotError("set MDPOT_DATA to the folder that holds water-rpbe/input.data.gz.")
    # The text of each frame is copied as it stands: numbers keep the digits of the full set.
    text = read_bytes(Path(folder) / "water-rpbe" / "input.data.gz").decode()
    frames = re.findall(r"begin\n.*?\nend\n", text, flags=re.DOTALL)
    groups = np.array([re.search(r"source_frame (\S+)", frame)[1] for frame in frames])  # type: ignore[index]
    chosen = choose_frames(groups, N_FRAMES, np.random.default_rng(0))
    # mtime=0: the bytes depend on the content alone.
    data = bz2.compress("".join(frames[k] for k in chosen).encode())
    if len(data) > MAX_BYTES:
        raise MdpotError(f"the sample has {len(data)} bytes; at most {MAX_BYTES} may ship.")
    SAMPLE.parent.mkdir(exist_ok=True)
    SAMPLE.write_bytes(data)
    counts = np.unique(groups[chosen], return_counts=True)[1]
    sys.stdout.write(
        f"{SAMPLE}: {len(chosen)} frames of {len(counts)} source frames "
        f"({counts.min()} to {counts.max()} each), {len(data)} bytes\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
