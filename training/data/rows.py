"""Rows of numbers that grow while they are found; many of them lie in a file that is memory-mapped."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
import torch

from mdpot.errors import MdpotError
from mdpot.training.data.download import cache_folder

#: More bytes than this lie in a file. The system keeps in memory what of it is used and fits.
MOST_IN_MEMORY = 2_000_000_000

#: So many rows are copied at a time.
PIECE = 10_000_000


class Rows:
    """Rows of whole numbers, appended one array after the other.

    They are kept as int8 until one does not fit, then as int32. A file that holds them has no name, so that nothing
    is left of it when the process ends, however that happens.

    Args:
        width: numbers in a row.
        dtype: of the rows.
    """

    def __init__(self, width: int, dtype: type[np.signedinteger]) -> None:
        self._width, self._dtype = width, np.dtype(dtype)
        self._held: list[np.ndarray] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    @property
    def in_file(self) -> bool:
        """Whether they lie in a file."""
        return self._file is not None

    def append(self, rows: np.ndarray) -> None:
        """Adds rows [n, width].

        Raises:
            MdpotError: the disk is full.
        """
        limits = np.iinfo(self._dtype)
        if rows.size and not (limits.min <= rows.min() and rows.max() <= limits.max):
            self._widen()
        self._held.append(rows.astype(self._dtype))
        self._bytes += self._held[-1].nbytes
        if self.in_file or self._bytes > MOST_IN_MEMORY:
            self._write()

    def take(self) -> torch.Tensor:
        """All rows, [n_rows, width], for good: none can be added. A view of the file where they lie in one."""
        if self._file is None:
            return torch.from_numpy(np.concatenate([np.zeros((0, self._width), self._dtype), *self._held]))
        shape = (self._bytes // (self._width * self._dtype.itemsize), self._width)
        with self._file as file:  # what is mapped needs no open file
            file.flush()
            return torch.from_numpy(np.memmap(file, self._dtype, "r+", shape=shape))

    def _write(self) -> None:
        try:
            if self._file is None:
                folder = cache_folder()
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `take`)
            for rows in self._held:
                self._file.write(rows.tobytes())
        except OSError as error:
            if self._file is not None:
                self._file.close()
            raise MdpotError(
                f"neighbor lists of {self._bytes / 1e9:.1f} GB do not fit in memory, and cannot be written to "
                f"{str(cache_folder() or tempfile.gettempdir())!r} ({error.strerror}). Make room there, choose a "
                "smaller model.cutoff, or set data.max_train_frames."
            ) from None
        self._held = []

    def _widen(self) -> None:
        wide = Rows(self._width, np.int32)
        rows = self.take().numpy()
        for start in range(0, len(rows), PIECE):
            wide.append(rows[start : start + PIECE])
        self.__dict__.update(wide.__dict__)
