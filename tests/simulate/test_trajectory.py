"""Trajectory files are read back as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mdpot.simulate import State, read_trajectory
from mdpot.simulate.trajectory import TRAJECTORIES


def states(n: int, cell: np.ndarray) -> list[State]:
    rng = np.random.default_rng(0)
    return [
        State(10 * k, 5.0 * k, rng.normal(size=(4, 3)) * 5, np.zeros((4, 3)), cell * (1 + 0.01 * k), -k, 1.0)
        for k in range(n)
    ]


CELLS = {
    "none": np.zeros((3, 3)),
    "box": np.diag([6.0, 7.0, 8.0]),
    "triclinic": np.array([[6.0, 0, 0], [1.0, 7.0, 0], [-2.0, 1.5, 8.0]]),
    "turned": np.array([[0, 6.0, 1.0], [-7.0, 1.0, 0], [1.5, 1.5, 8.0]]),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_round_trip(kind: str, cell: str, tmp_path: Path) -> None:
    if kind == "dcd":
        pytest.importorskip("openmm")
    periodic = cell != "none"
    atoms = Atoms("OHHO", np.zeros((4, 3)), cell=CELLS[cell], pbc=periodic)
    path = tmp_path / f"trajectory.{kind}"
    written = states(5, CELLS[cell])
    for part in (written[:3], written[3:]):  # closed and opened again
        file = TRAJECTORIES[kind](path, atoms, 0.5, 10)
        for state in part:
            file.write(state)
        file.close()
    frames = list(read_trajectory(path, atoms))
    assert len(frames) == 5
    for state, frame in zip(written, frames, strict=True):
        assert (frame.numbers == atoms.numbers).all()
        expected = Atoms(atoms.numbers, state.positions, cell=state.cell, pbc=periodic)
        if kind == "xyz" or cell != "turned":
            assert frame.positions == pytest.approx(state.positions, abs=1e-6)
            assert frame.cell.array == pytest.approx(state.cell, abs=1e-5)
        distances = expected.get_all_distances(mic=periodic)
        assert frame.get_all_distances(mic=periodic) == pytest.approx(distances, abs=1e-5)
    later = list(read_trajectory(path, atoms, 3))
    assert len(later) == 2
    assert later[0].positions == pytest.approx(frames[3].positions)
    if kind == "xyz":
        assert frames[2].info["step"] == 20
        assert frames[2].info["potential_eV"] == pytest.approx(-2)


PARTLY = {
    "slab in a cell": (CELLS["turned"], [True, True, False]),
    "slab without third vector": (np.array([[5.0, 1, 0], [-1, 6, 0], [0, 0, 0]]), [True, True, False]),
    "wire": (np.diag([0, 7.0, 0]), [False, True, False]),
    "cluster in a cell": (CELLS["triclinic"], [False, False, False]),
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_partly_periodic_cell_survives_dcd(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    cell, pbc = PARTLY[name]
    atoms = Atoms("OHHO", np.zeros((4, 3)), cell=cell, pbc=pbc)
    file = TRAJECTORIES["dcd"](tmp_path / "t.dcd", atoms, 0.5, 10)
    written = states(3, cell)
    for state in written:
        file.write(state)
    file.close()
    for state, frame in zip(written, read_trajectory(tmp_path / "t.dcd", atoms), strict=True):
        expected = Atoms(atoms.numbers, state.positions, cell=state.cell, pbc=pbc)
        assert frame.pbc.tolist() == pbc
        assert frame.cell.lengths() == pytest.approx(expected.cell.lengths(), abs=1e-5)
        distances = expected.get_all_distances(mic=True)
        assert frame.get_all_distances(mic=True) == pytest.approx(distances, abs=1e-5)


def test_a_dcd_file_without_cells_goes_on_without(tmp_path: Path) -> None:
    """As earlier versions left it of a slab, whose run is resumed."""
    pytest.importorskip("openmm")
    cell, pbc = PARTLY["slab in a cell"]
    slab = Atoms("OHHO", np.zeros((4, 3)), cell=cell, pbc=pbc)
    written = states(4, cell)
    for atoms, part in ((Atoms(slab.numbers, slab.positions), written[:2]), (slab, written[2:])):
        file = TRAJECTORIES["dcd"](tmp_path / "t.dcd", atoms, 0.5, 10)
        for state in part:
            file.write(state)
        file.close()
    for state, frame in zip(written, read_trajectory(tmp_path / "t.dcd", slab), strict=True):
        assert frame.positions == pytest.approx(state.positions, abs=1e-5)


def test_dcd_as_others_read_it(tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    mda = pytest.importorskip("MDAnalysis")
    atoms = Atoms("OHHO", np.zeros((4, 3)), cell=CELLS["triclinic"], pbc=True)
    file = TRAJECTORIES["dcd"](tmp_path / "t.dcd", atoms, 0.5, 10)
    written = states(2, CELLS["triclinic"])
    for state in written:
        file.write(state)
    file.close()
    universe = mda.Universe.empty(4, trajectory=True)
    universe.load_new(str(tmp_path / "t.dcd"))
    for frame, state in zip(universe.trajectory, written, strict=True):
        assert frame.positions == pytest.approx(state.positions, abs=1e-5)
