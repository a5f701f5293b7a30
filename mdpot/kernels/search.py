"""The search for neighbors in the kernels' library; `mdpot.neighbors` takes it where it can."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from ctypes import c_int64, c_void_p

import numpy as np

from mdpot.errors import MdpotError
from mdpot.kernels import library
from mdpot.kernels.kernel import OUT_OF_MEMORY
from mdpot.threads import available_threads
from mdpot.vesin_neighbors import vesin_neighbor_list

logger = logging.getLogger("mdpot.kernels")
FULL = "there is not enough memory for the neighbor list of a structure of this size."


def search(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """What `mdpot.neighbors.neighbor_list` returns, by the library for this machine; arguments as there.

    Returns:
        None where vesin has to do it, or say what is wrong: without a library, and as `find_pairs`.
    """
    lib = _trusted(os.environ.get(library.VARIABLE))
    return None if lib is None else find_pairs(lib, positions, cell, pbc, cutoff, available_threads())


def find_pairs(
    lib: ctypes.CDLL, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float, threads: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same by a library.

    Args:
        lib: of `mdpot.kernels.library.load`.
        positions, cell, pbc, cutoff: as in `neighbor_list`.
        threads: at most; the result does not depend on it.

    Returns:
        None where it is not for this search, see `mdpot_pairs_find` in mdpot_kernels.h, or for none: what is not
        finite, and cells that are too flat or too small.

    Raises:
        MemoryError: there is too little for so many pairs.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    cell, pbc = np.ascontiguousarray(cell, dtype=np.float64), np.ascontiguousarray(pbc, dtype=bool)
    if positions.ndim != 2 or positions.shape[1] != 3 or cell.size != 9 or pbc.size != 3:
        return None
    pairs, count = c_void_p(), c_int64()
    arguments = (positions.ctypes.data, cell.ctypes.data, pbc.ctypes.data, float(cutoff), threads)
    status = lib.mdpot_pairs_find(len(positions), *arguments, ctypes.byref(pairs), ctypes.byref(count))
    if status == OUT_OF_MEMORY:
        raise MemoryError(FULL)
    if status:
        return None
    try:
        n = count.value
        edge_index, shifts = np.empty((2, n), dtype=np.int64), np.empty((n, 3), dtype=np.int32)
        first = edge_index.ctypes.data
        if lib.mdpot_pairs_write(pairs, first, first + edge_index.strides[0], shifts.ctypes.data):
            raise MemoryError(FULL)
    finally:
        lib.mdpot_pairs_destroy(pairs)
    return edge_index, shifts


@functools.cache
def _trusted(asked: str | None) -> ctypes.CDLL | None:
    """The library for this machine after a comparison with vesin; `asked` is the value of `MDPOT_KERNELS`."""
    try:
        lib = library.default()
    except MdpotError:  # who asks for the kernels hears why
        return None
    positions = np.random.default_rng(0).uniform(-9.0, 9.0, (40, 3))
    cell, pbc = np.array([[7.0, 0.0, 0.0], [-3.2, 6.9, 0.0], [2.7, 3.0, 6.1]]), np.ones(3, dtype=bool)
    found = find_pairs(lib, positions, cell, pbc, 4.5, 1)
    wanted = vesin_neighbor_list(positions, cell, pbc, 4.5)
    if found is not None and all(map(np.array_equal, found, wanted)):
        return lib
    logger.warning("vesin finds the neighbors: the search of the kernels (%s) differs from it in a test.", lib._name)
    return None
