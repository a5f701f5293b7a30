"""What a force field has said so far, kept as arrays in the folder of a run that may be stopped."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.files import sealed, sealed_content, write_bytes
from mdpot.training.data.cache import Arrays

SAVE_EVERY = 30.0
"""Seconds between two savings."""

Tell = Callable[[int, int], None]
"""Is told how many structures a force field has labelled, and of how many."""


def tell_nobody(done: int, n: int) -> None:
    """A `Tell` for where nobody wants to know."""


def keep_arrays(file: Path, arrays: Arrays) -> None:
    """Writes arrays for `kept_arrays`, with a checksum, in the place of those of before."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(file, sealed(buffer.getvalue()))


@contextmanager
def kept_arrays(file: Path, remedy: str) -> Iterator[Arrays]:
    """The arrays of a file that `keep_arrays` wrote, while the block reads them.

    Args:
        file: the file.
        remedy: what removing the file is for, "to label the frames again".

    Raises:
        MdpotError: the file was changed since, or what the block found in it does not fit: whatever it raised.
    """
    try:
        with np.load(io.BytesIO(sealed_content(file))) as arrays:
            yield arrays
    except Exception as error:  # what numpy raises depends on what it meets
        reason = " ".join(str(error).split()).rstrip(".")
        raise MdpotError(f"{str(file)!r} is damaged: {reason}. Remove it {remedy}.") from None
