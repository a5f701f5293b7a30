"""Trajectory files: extended XYZ or DCD, appended to, cut back to a restart, and read again."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.cell import Cell

from mdpot.errors import MdpotError
from mdpot.simulate.engine import State
from mdpot.units import NM

# Bytes of the header that OpenMM's DCD writer makes: three records and their lengths; and where in it is whether each
# frame has a cell.
DCD_HEADER, DCD_HAS_CELL = 276, 48


class Trajectory(Protocol):
    """A file of frames, written one after another."""

    path: Path

    def write(self, state: State) -> None:
        """Appends a frame and flushes it."""
        ...

    def close(self) -> None: ...


class ExtendedXYZ:
    """Extended XYZ, by ASE; each frame carries its step, time_ps, temperature_K and potential_eV.

    Args:
        path: file; an existing one is appended to.
        atoms: numbers and periodicity.
    """

    def __init__(self, path: Path, atoms: Atoms, dt: float, every: int) -> None:
        self.path = path
        self._atoms = atoms
        self._file = path.open("a", encoding="utf-8")

    def write(self, state: State) -> None:
        from ase.io.extxyz import write_extxyz

        write_extxyz(self._file, [to_atoms(self._atoms, state)])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class DCD:
    """DCD, by OpenMM: positions and cell in single precision; the atoms are those of `start.xyz` beside it.

    A cell that is not lower triangular is turned into that form, and the positions with it, for DCD knows
    lengths and angles only. Lattice vectors that are missing (of a slab, a wire) are written as unit vectors across the
    others.

    Args:
        path: file; an existing one is appended to.
        atoms: numbers and periodicity.
        dt: fs, time step of the run.
        every: steps between frames.

    Raises:
        MdpotError: OpenMM is not installed.
    """

    def __init__(self, path: Path, atoms: Atoms, dt: float, every: int) -> None:
        try:
            from openmm.app import DCDFile
        except ImportError:
            raise MdpotError(
                "trajectory dcd needs OpenMM, which is not installed. pip install openmm, or take xyz."
            ) from None
        from mdpot.simulate.engine_openmm import make_topology

        self.path = path
        append = path.is_file() and path.stat().st_size > 0
        # A file of before slabs kept their cell goes on without.
        self._has_cell = _has_cell(path) if append else atoms.cell.rank > 0
        # The header only says how many atoms there are and that there is a box; each frame brings its own.
        topology = make_topology(Atoms(atoms.numbers, cell=np.eye(3), pbc=self._has_cell))
        if append:
            _count_frames(path, len(atoms))
        self._file = path.open("r+b" if append else "w+b")
        self._writer = DCDFile(self._file, topology, dt * 1e-3, 0, every, append)

    def write(self, state: State) -> None:
        positions, vectors = state.positions, None
        if self._has_cell:
            lower, rotation = Cell(state.cell).complete().standard_form()
            positions = positions @ rotation.T
            vectors = _vectors(lower.array)
        self._writer.writeModel(positions / NM, periodicBoxVectors=vectors)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


TRAJECTORIES: dict[str, type[ExtendedXYZ] | type[DCD]] = {"xyz": ExtendedXYZ, "dcd": DCD}


def read_trajectory(path: Path, atoms: Atoms, start: int = 0) -> Iterator[Atoms]:
    """The frames of a trajectory, one at a time.

    Args:
        path: .xyz, or .dcd as OpenMM writes it.
        atoms: what a DCD file does not say: numbers, periodicity and which lattice vectors there are.
        start: index of the first frame.
    """
    if path.suffix == ".dcd":
        yield from _read_dcd(path, atoms, start)
    else:
        from ase.io import iread

        yield from iread(path, index=slice(start, None), format="extxyz")


def to_atoms(atoms: Atoms, state: State) -> Atoms:
    """The state as ASE atoms that carry step, time_ps, temperature_K and potential_eV in `info`."""
    frame = Atoms(atoms.numbers, state.positions, cell=state.cell, pbc=atoms.pbc)
    frame.info = {
        "step": state.step,
        "time_ps": round(state.time / 1000, 9),
        "temperature_K": state.temperature,
        "potential_eV": state.potential,
        **{name: atoms.info[name] for name in ("charge", "multiplicity") if name in atoms.info},
    }
    return frame


def _vectors(cell: np.ndarray) -> Any:
    from openmm import Vec3

    return [Vec3(*row) for row in cell / NM]


def _frame_type(n_atoms: int, periodic: bool) -> np.dtype:
    record = [("length", "<i4"), ("values", "<f4", n_atoms), ("end", "<i4")]
    box = [("length", "<i4"), ("values", "<f8", 6), ("end", "<i4")]
    return np.dtype([*([("box", box)] if periodic else []), ("xyz", record, 3)])


def _count_frames(path: Path, n_atoms: int) -> int:
    """Writes the number of frames that the file really holds into its header, which a cut leaves behind."""
    count = (path.stat().st_size - DCD_HEADER) // _frame_type(n_atoms, _has_cell(path)).itemsize
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<i", count))
    return count


def _has_cell(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(DCD_HAS_CELL)
        return file.read(4) == struct.pack("<i", 1)


def _read_dcd(path: Path, atoms: Atoms, start: int) -> Iterator[Atoms]:
    has_cell = _has_cell(path)
    kind = _frame_type(len(atoms), has_cell)
    count = (path.stat().st_size - DCD_HEADER) // kind.itemsize
    if count == 0:
        return
    frames = np.memmap(path, dtype=kind, mode="r", offset=DCD_HEADER, shape=(count,))
    missing = ~atoms.cell.array.any(axis=1) & ~atoms.pbc
    for frame in frames[start:]:
        positions = np.array(frame["xyz"]["values"], dtype=np.float64).T
        cell = None
        if has_cell:
            a, gamma, b, beta, alpha, c = frame["box"]["values"]  # the cosines, by the custom of CHARMM
            cosines = np.array([alpha, beta, gamma])
            cell = Cell.fromcellpar([a, b, c, *np.rad2deg(np.arccos(cosines))]).array
            if not missing.all():
                cell[missing] = 0.0
        yield Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)
