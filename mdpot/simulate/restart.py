"""The restart file and the cutting back of the other files to it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdpot.errors import MdpotError
from mdpot.files import atomic
from mdpot.simulate.watch import MEMORY


@dataclass(frozen=True)
class Restart:
    """All that a run needs to carry on.

    Attributes:
        arrays: of the engine, see `Engine.snapshot`.
        numbers: [n_atoms] atomic numbers.
        masses: [n_atoms], u.
        pbc: [3] bool.
        start_cell: [3, 3], Å, and
        start_positions: [n_atoms, 3], Å: where the run began.
        memory: of the watch.
        sizes: bytes of the log and the trajectory at this step, by file name.
    """

    arrays: dict[str, np.ndarray]
    numbers: np.ndarray
    masses: np.ndarray
    pbc: np.ndarray
    start_cell: np.ndarray
    start_positions: np.ndarray
    memory: dict[str, float | None]
    sizes: dict[str, int]

    @property
    def step(self) -> int:
        return int(self.arrays["step"])


def save_restart(path: Path, restart: Restart) -> None:
    """Writes a restart file (npz, no pickle), atomically."""
    header = json.dumps({"memory": restart.memory, "sizes": restart.sizes})
    arrays: dict[str, Any] = {
        name: getattr(restart, name) for name in ("numbers", "masses", "pbc", "start_cell", "start_positions")
    }
    arrays.update({f"engine.{name}": array for name, array in restart.arrays.items()})
    # In memory first: Ctrl-C inside `savez` would leave a file open.
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(header), **arrays)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_restart(path: Path, written: Collection[str]) -> Restart:
    """Reads a restart file.

    Args:
        path: of it.
        written: names of the files that it may know the sizes of.

    Raises:
        MdpotError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise MdpotError(f"there is no run to resume: {str(path)!r} is not there. Start one without --resume.")
    try:
        with np.load(path, allow_pickle=False) as file:
            values: dict[str, Any] = {name: file[name] for name in file.files}
        header = json.loads(str(values.pop("header")))
        engine = {k.removeprefix("engine."): v for k, v in values.items() if k.startswith("engine.")}
        fixed = {k: v for k, v in values.items() if not k.startswith("engine.")}
        restart = Restart(arrays=engine, memory=header["memory"], sizes=header["sizes"], **fixed)
        _check(restart, written)
    except Exception as error:
        raise MdpotError(damaged(path, error)) from None
    return restart


def damaged(path: Path, error: Exception) -> str:
    """The one line for a file of a run that cannot be what it was."""
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{path.name} in {str(path.parent)!r} is damaged ({why}); the run cannot be resumed. Start a new one."


def _check(restart: Restart, written: Collection[str]) -> None:
    """Raises ValueError or another Exception where the content is not that of a restart file."""
    n_atoms = len(restart.numbers)
    shapes = {"numbers": (n_atoms,), "masses": (n_atoms,), "pbc": (3,), "start_cell": (3, 3)}
    for name, shape in {**shapes, "start_positions": (n_atoms, 3)}.items():
        array = getattr(restart, name)
        if array.shape != shape or not np.isfinite(array.astype(float)).all():
            raise ValueError(f"{name} must be {list(shape)} finite numbers")
    if restart.arrays["positions"].shape != (n_atoms, 3) or not np.isfinite(restart.arrays["positions"]).all():
        raise ValueError(f"positions must be {[n_atoms, 3]} finite numbers")
    if restart.step < 0:
        raise ValueError(f"step {restart.step}")
    if set(restart.memory) != set(MEMORY) or not all(v is None or np.isfinite(v) for v in restart.memory.values()):
        raise ValueError("memory of the watch")
    for name, size in restart.sizes.items():
        # A name with a path in it would have another file cut off.
        if name not in written or not isinstance(size, int) or size < 0:
            raise ValueError(f"{name!r} of {size!r} bytes is no file of this run")


def file_sizes(paths: Iterable[Path]) -> dict[str, int]:
    """Bytes of each file, by its name."""
    return {path.name: path.stat().st_size for path in paths}


def cut_back(folder: Path, sizes: dict[str, int]) -> None:
    """Takes off what was written to the files of a run after its restart file.

    Raises:
        MdpotError: a file is missing, or shorter than at the restart.
    """
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size < size:
            raise MdpotError(f"{str(path)!r} is not as the restart file left it; the run cannot be resumed.")
        os.truncate(path, size)
