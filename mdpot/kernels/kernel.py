"""A Tide potential evaluated by the fused kernels."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mdpot.errors import MdpotError
from mdpot.heads import Potential
from mdpot.kernels import library
from mdpot.kernels.describe import describe
from mdpot.kernels.errors import Clash, NotFinite
from mdpot.threads import available_threads

NOT_FINITE = 2
OUT_OF_MEMORY = 3
CLASH = 4


@dataclass(frozen=True)
class Result:
    """What a kernel returns; signs and units as in `Potential`.

    Args:
        energies: [n_atoms] float64, eV, the reference included.
        forces: [n_atoms, 3] float64, eV/Å.
        virial: [3, 3] float64, eV, dE/dε, symmetric; None where it was not asked for.
        stress: [3, 3] float64, eV/Å^3, the virial over the volume, zero without one; None where it was not asked for.
    """

    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray | None = None
    stress: np.ndarray | None = None

    @property
    def energy(self) -> float:
        """eV, of the structure."""
        return float(self.energies.sum())


class Kernel:
    """A potential in fused kernels: called on a structure, it returns what the network in torch would.

    May be called from several threads at once and after a fork; copies and pickles build it again. The result is the
    same to the bit for the same number of threads.

    Args:
        potential: a Tide, on any device; its weights are copied.
        dtype: torch.float32 or torch.float64 of the network; None is the dtype of the weights. Edge vectors are taken
            and forces are summed in float64 either way.
        threads: None follows `torch.get_num_threads()` at every call.
        lib: a library of `mdpot.kernels.library.load`; None is the best one for this machine.

    Raises:
        NoKernel: another architecture, or no compiled library.
        MdpotError: a number of threads below one, or another dtype.
    """

    def __init__(
        self,
        potential: Potential,
        dtype: torch.dtype | None = None,
        threads: int | None = None,
        lib: ctypes.CDLL | None = None,
    ) -> None:
        description = describe(potential)
        of_weights: Any = potential.readout[0].weight
        self.dtype: torch.dtype = of_weights.dtype if dtype is None else dtype
        if self.dtype not in (torch.float32, torch.float64):
            raise MdpotError(f"dtype must be torch.float32 or torch.float64; got {self.dtype}.")
        if threads is not None and threads < 1:
            raise MdpotError(f"threads must be at least 1; got {threads}.")
        self._state = (description, self.dtype, threads, potential.cutoff, potential.lookup.cpu().numpy())
        self._build(library.default() if lib is None else lib)

    def _build(self, lib: ctypes.CDLL) -> None:
        self.description, dtype, self.threads, self.cutoff, self._lookup = self._state
        self._lib = lib
        self.instructions: str = lib.mdpot_kernels_instructions().decode()
        self._threads = self.threads or available_threads()
        structure = self.description.structure()
        handle = lib.mdpot_kernel_create(ctypes.byref(structure), dtype.itemsize, self._threads)
        if not handle:
            raise library.NoKernel(f"the kernels refuse this potential: {lib.mdpot_kernels_error().decode()}")
        self._handle = handle
        weakref.finalize(self, lib.mdpot_kernel_destroy, handle)

    def __getstate__(self) -> dict[str, Any]:
        return {"_state": self._state, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build(library.default())

    def __call__(
        self,
        numbers: np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray,
        candidates: tuple[np.ndarray, np.ndarray, np.ndarray],
        stress: bool = False,
        marks: np.ndarray | None = None,
    ) -> Result:
        """Energies and forces of a structure.

        Args:
            numbers: [n_atoms] int64, atomic numbers.
            positions: [n_atoms, 3] float64, Å.
            cell: [3, 3] float64, Å, rows are lattice vectors.
            candidates: i [n] and j [n] int64 and shifts [n, 3] int32: pairs in both directions within any radius not
                below the cutoff, in the order of i, as `mdpot.neighbors.neighbor_list` returns them.
            stress: whether virial and stress are wanted.
            marks: [n_atoms], see `Potential.forward`; None is zero.

        Raises:
            MdpotError: an element that was not trained, arrays whose shapes or indices do not fit, or positions that
                are not finite.
        """
        n_atoms = len(numbers)
        i, j, shifts = candidates
        arrays = (
            _as(self._species(numbers), np.int32, (n_atoms,), "numbers"),
            _as(positions, np.float64, (n_atoms, 3), "positions"),
            None if marks is None else _as(marks, np.float64, (n_atoms,), "marks"),
            _as(cell, np.float64, (3, 3), "cell"),
        )
        pairs = (
            _as(i, np.int64, (len(i),), "i of the candidates"),
            _as(j, np.int64, (len(i),), "j of the candidates"),
            _as(shifts, np.int32, (len(i), 3), "shifts of the candidates"),
        )
        energies, forces = np.empty(n_atoms), np.empty((n_atoms, 3))
        virial = np.empty((3, 3)) if stress else None
        species, positions, marks, cell = arrays
        one = (n_atoms, species, positions, marks, 1, None, cell, len(i), *pairs)
        self.call("evaluate", *one, energies, forces, virial)
        if virial is None:
            return Result(energies, forces)
        volume = abs(np.linalg.det(cell))
        return Result(energies, forces, virial, virial / volume if volume > 0 else np.zeros((3, 3)))

    def call(self, function: str, *arguments: Any) -> None:
        """A function of the C interface, `mdpot_kernel_…`, on this kernel: arrays are passed as pointers.

        Raises:
            MdpotError, MemoryError: it failed.
        """
        if self.threads is None and self._threads != available_threads():
            self._threads = available_threads()
            self._lib.mdpot_kernel_set_threads(self._handle, self._threads)
        passed = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        status = getattr(self._lib, f"mdpot_kernel_{function}")(self._handle, *passed)
        if status == NOT_FINITE:
            raise NotFinite("positions and cell must be finite; they hold NaN or infinity.")
        if status:
            kind = {OUT_OF_MEMORY: MemoryError, CLASH: Clash}.get(status, MdpotError)
            raise kind(self._lib.mdpot_kernels_error().decode())

    def _species(self, numbers: np.ndarray) -> np.ndarray:
        numbers = np.asarray(numbers)
        inside = (numbers >= 0) & (numbers < len(self._lookup))
        species = self._lookup[np.where(inside, numbers, 0)]
        if len(species) and (not inside.all() or species.min() < 0):
            wrong = sorted(set(numbers[~inside | (species < 0)].tolist()))
            known = np.flatnonzero(self._lookup >= 0).tolist()
            raise MdpotError(f"numbers must be among the trained elements {known}; got {wrong}.")
        return species


def _as(array: np.ndarray, dtype: type, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The array as the kernel reads it: without a copy where it is so already."""
    found = np.ascontiguousarray(array, dtype=dtype)
    if found.shape != shape:
        raise MdpotError(f"{name} must be {list(shape)}; got {list(found.shape)}.")
    return found
