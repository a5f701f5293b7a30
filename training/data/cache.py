"""What took long to compute from frames, kept in the user's cache for the next run on the same frames."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mdpot.files import atomic
from mdpot.training.data.download import cache_folder

#: What took less CPU time, s, is not kept.
LONG = 1.0
#: The folder holds no more than so many bytes; the files that were used longest ago go first.
MOST_BYTES = 200_000_000

Arrays = Mapping[str, np.ndarray]


def cached(
    kind: str, key: Sequence[object], code: Sequence[Callable[..., object]], compute: Callable[[], Arrays]
) -> Arrays:
    """The result of a computation, from the cache where it is there and whole.

    Args:
        kind: what is computed.
        key: all that it depends on, JSON-like: a fingerprint of the frames, a cutoff.
        code: functions that compute it; what was made by another source of their modules is not taken.
        compute: makes the arrays, by name.
    """
    root = cache_folder()
    source = hashlib.sha256(b"".join(inspect.getsource(sys.modules[f.__module__]).encode() for f in code)).hexdigest()
    name = json.dumps([source, kind, *key])
    file = None if root is None else root / "prepared" / f"{hashlib.sha256(name.encode()).hexdigest()}.npz"
    found = None if file is None else _read(file, name)
    if found is not None:
        return found
    began = time.process_time()
    made = compute()
    if file is not None and time.process_time() - began > LONG:
        _write(file, name, made)
    return made


def _read(file: Path, name: str) -> Arrays | None:
    """The arrays of a file; None where it is not there, damaged or another's."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
            arrays = {key: kept[key] for key in kept.files}
        file.touch()
    except Exception:  # a damaged archive raises whatever zipfile, zlib and numpy do; it is made anew
        return None
    return arrays if str(arrays.pop("key", "")) == name else None


def _write(file: Path, name: str, arrays: Arrays) -> None:
    """Keeps the arrays; a cache that cannot be written is none."""
    try:
        with atomic(file) as temporary:
            np.savez(temporary, key=np.array(name), **arrays)  # type: ignore[arg-type]
        others = sorted(file.parent.glob("*.npz"), key=lambda path: -path.stat().st_mtime)
        total = 0
        for path in others:
            total += path.stat().st_size
            if total > MOST_BYTES and path != file:
                path.unlink(missing_ok=True)
    except OSError:
        return
