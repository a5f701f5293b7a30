"""CP2K's positions with the forces and cells of the files beside them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cell import Cell
from ase.units import Bohr, Hartree

from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.sources import load_dataset

NEED = ("energy", "forces")
CUBE = "&FORCE_EVAL\n &SUBSYS\n  &CELL\n   ABC {} ! Å\n   &CELL_REF\n    ABC 20 20 20\n   &END CELL_REF\n  &END CELL\n"


def crystals(n: int = 4, strain: float = 0.0) -> list[Atoms]:
    rng, found = np.random.default_rng(0), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[0] = "Au"
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        found.append(atoms)
    return found


def trajectory(frames: list[Atoms], arrays: list[np.ndarray], steps: list[int], time: bool = True) -> str:
    text = ""
    for atoms, array, n in zip(frames, arrays, steps, strict=True):
        when = f" time = {0.5 * n:12.3f}," if time else ""
        text += f"{len(atoms):8d}\n i = {n:8d},{when} E = {atoms.get_potential_energy() / Hartree:20.10f}\n"
        for symbol, row in zip(atoms.symbols, array, strict=True):
            text += f"{symbol:>3} " + " ".join(f"{x:20.10f}" for x in row) + "\n"
    return text


def write_run(folder: Path, frames: list[Atoms], time: bool = True) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    steps = list(range(len(frames)))
    (folder / "w-pos-1.xyz").write_text(trajectory(frames, [a.positions for a in frames], steps, time))
    forces = [a.get_forces() / Hartree * Bohr for a in frames]
    (folder / "w-frc-1.xyz").write_text(trajectory(frames, forces, steps, time))
    return folder / "w-pos-1.xyz"


def write_cells(path: Path, cells: list[np.ndarray]) -> None:
    text = "#   Step   Time [fs]       Ax [Angstrom]       Ay [Angstrom] ...      Volume [Angstrom^3]\n"
    for n, cell in enumerate(cells):
        numbers = [*cell.ravel(), abs(np.linalg.det(cell))]
        text += f"{n:8d}{0.5 * n:12.3f} " + " ".join(f"{x:.10f}" for x in numbers) + "\n"
    path.write_text(text)


def assert_right(path: Path, frames: list[Atoms]) -> None:
    reading = read_file(path, need=NEED)
    assert len(reading.frames) == len(frames)
    for frame, atoms in zip(reading.frames, frames, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-6)
        assert frame.pbc.tolist() == atoms.pbc.tolist()


def test_with_a_cell_for_each_step(tmp_path: Path) -> None:
    frames = crystals(strain=0.02)
    path = write_run(tmp_path, frames)
    write_cells(tmp_path / "w-1.cell", [a.cell.array for a in frames])
    assert_right(path, frames)
    reading = read_file(path, need=NEED)
    assert (str(reading.keys), reading.notes, reading.doubts()) == ("energy, forces, no stress", [], [])
    assert (reading.units.energy, reading.units.force) == ("Hartree", "Hartree/bohr")
    assert len(load_dataset("custom", path)) == 4
    write_cells(tmp_path / "w-1.cell", [a.cell.array for a in frames[:3]])
    with pytest.raises(MdpotError, match=r"w-1\.cell: it has no cell of step 3"):
        read_file(path)


@pytest.mark.parametrize("edges", ["{0} {0} {0}", "[angstrom] {0} {0} {0}", "[bohr] {1} {1} {1}", "[nm] {2} {2} {2}"])
def test_with_the_cell_of_an_input(tmp_path: Path, edges: str) -> None:
    frames = crystals()
    a = frames[0].cell.array[0, 0]
    path = write_run(tmp_path, frames, time=False)
    (tmp_path / "run.inp").write_text(CUBE.format(edges.format(a, a / Bohr, a / 10)))
    assert_right(path, frames)


def test_other_forms_of_a_cell(tmp_path: Path) -> None:
    frames = crystals()
    path, cell = write_run(tmp_path, frames), frames[0].cell.array
    vectors = "".join(f"{key} {' '.join(map(str, row))}\n" for key, row in zip("ABC", cell, strict=True))
    (tmp_path / "w-1.restart").write_text(
        f"&motion\n&print\n&cell\n&each\nmd 1\n&end\n&end\n&end\n&end\n&CELL\n{vectors}&END\n"
    )
    assert_right(path, frames)
    (tmp_path / "w-1.restart").unlink()
    (tmp_path / "w.inp").write_text("&CELL\n ABC 4 5 6\n ALPHA_BETA_GAMMA [deg] 80 85 95\n PERIODIC XY\n&END CELL\n")
    (tmp_path / "another.inp").write_text(CUBE.format("9 9 9"))
    frame = read_file(path, need=NEED).frames[0]
    np.testing.assert_allclose(frame.cell, Cell.fromcellpar([4, 5, 6, 80, 85, 95]).array)
    assert frame.pbc.tolist() == [True, True, False]
    (tmp_path / "w.inp").write_text("&CELL\n ABC 20 20 20\n PERIODIC NONE\n&END CELL\n")
    assert not read_file(path, need=NEED).frames[0].pbc.any()
    (tmp_path / "w.inp").unlink()
    (tmp_path / "w-1.cell").write_text(" ".join(map(str, cell.ravel())) + "\n")
    assert_right(path, frames)
    (tmp_path / "w-1.cell").write_text("0 0 0  0 0 0  0 0 0\n")
    assert not read_file(path, need=NEED).frames[0].pbc.any()


def test_only_the_cell_of_the_system_counts(tmp_path: Path) -> None:
    """Others are the box of QM/MM, of a part of the system, and what is printed."""
    frames = crystals()
    path, a = write_run(tmp_path, frames), frames[0].cell.array[0, 0]
    cell = f"&FORCE_EVAL\n&SUBSYS\n&CELL\nABC {a} {a} {a}\n&END\n&END\n"
    others = "&QMMM\n&CELL\nABC 9 9 9\n&END CELL\n&END QMMM\n&PRINT\n&CELL\nABC 8 8 8\n&END\n&END\n"
    for text in (others + cell, cell.replace("&SUBSYS", others + "&SUBSYS"), cell + others):
        (tmp_path / "w.inp").write_text(text)
        assert_right(path, frames)
    (tmp_path / "w.inp").write_text(others)
    with pytest.raises(MdpotError, match=r"neither w-1\.cell nor an input"):
        read_file(path)
    (tmp_path / "w.inp").write_text(2 * (cell + "&END\n"))
    assert_right(path, frames)
    for other in ("ABC 9 9 9\n", "ABC ${A} ${A} ${A}\n"):
        (tmp_path / "w.inp").write_text(cell + f"&END\n&FORCE_EVAL\n&SUBSYS\n&CELL\n{other}&END\n&END\n&END\n")
        with pytest.raises(MdpotError, match=r"w\.inp has 2 sections &SUBSYS with different cells\. Write w-1\.cell"):
            read_file(path)


def test_without_a_cell_it_says_what_to_do(tmp_path: Path) -> None:
    path = write_run(tmp_path, crystals())
    with pytest.raises(
        MdpotError, match=r"neither w-1\.cell nor an input .* Write w-1\.cell beside it, a line with the"
    ):
        read_file(path)
    (tmp_path / "a.inp").write_text(CUBE.format("${A} ${A} ${A}"))
    with pytest.raises(MdpotError, match=r"neither w-1\.cell nor an input"):
        read_file(path)
    (tmp_path / "a.inp").write_text(CUBE.format("5 5 5"))
    (tmp_path / "b.inp").write_text(CUBE.format("6 6 6"))
    with pytest.raises(MdpotError, match=r"its cell is another one in a\.inp than in b\.inp"):
        read_file(path)
    (tmp_path / "b.inp").write_text(CUBE.format("5 5 5") + "&MD\n  ENSEMBLE NPT_I\n&END\n")
    with pytest.raises(MdpotError, match=r"the cell changes from step to step by b\.inp, and w-1\.cell"):
        read_file(path)
    (tmp_path / "w-1.cell").write_text("0 0 5 5 5\n")
    with pytest.raises(MdpotError, match="a file of CP2K's cells has rows of the step"):
        read_file(path)


def test_steps_that_differ(tmp_path: Path) -> None:
    frames = crystals()
    path = write_run(tmp_path, frames)
    write_cells(tmp_path / "w-1.cell", [frames[0].cell.array] * 4)
    forces = [a.get_forces() / Hartree * Bohr for a in frames]
    file = tmp_path / "w-frc-1.xyz"
    file.write_text(trajectory(frames[::2], forces[::2], [0, 2]))
    reading = read_file(path, need=NEED)
    assert [frame.index for frame in reading.frames] == [0, 2]
    np.testing.assert_allclose(reading.frames[1].forces, frames[2].get_forces(), atol=1e-6)  # type: ignore[arg-type]
    assert "2 of 4 steps have no forces in w-frc-1.xyz." in reading.notes
    file.write_text(trajectory(frames, forces, [0, 1, 1, 2]))
    with pytest.raises(MdpotError, match="some are there twice, as after a restart"):
        read_file(path)
    path.write_text(trajectory(frames, [a.positions for a in frames], [0, 1, 1, 2]))
    assert_right(path, frames)
    file.write_text(trajectory(frames, forces, [0, 1, 1, 2]).replace(" Au", " Cu"))
    with pytest.raises(MdpotError, match="at step 0 its atoms are others than those of the positions"):
        read_file(path)
    (tmp_path / "w-frc-1.xyz.gz").write_bytes(gzip.compress(trajectory(frames, forces, [0, 1, 1, 2]).encode()))
    file.unlink()
    assert_right(path, frames)


def test_positions_alone(tmp_path: Path) -> None:
    path = write_run(tmp_path, crystals())
    (tmp_path / "w-frc-1.xyz").unlink()
    reading = read_file(path, Asked(energy_key="E"), ("energy",))
    assert any("with w-frc-1.xyz beside it, they are read together" in note for note in reading.notes)


def test_a_folder_of_runs(tmp_path: Path) -> None:
    frames = crystals()
    for n in (2, 10):
        write_run(tmp_path / f"run{n}", frames)
        write_cells(tmp_path / f"run{n}" / "w-1.cell", [frames[0].cell.array] * 4)
        (tmp_path / f"run{n}" / "run.out").write_text(" DBCSR| CPU\n CP2K| version string\n")
    write_run(tmp_path / "run11", frames)
    reading = read_file(tmp_path, need=NEED)
    assert len(reading.frames) == 8
    assert reading.files.startswith("2 CP2K: run2/w-pos-1.xyz to run10/w-pos-1.xyz; not read: ")
    assert reading.notes[0].startswith("1 files cannot be read and are left out: run11/w-pos-1.xyz (CP2K's traj")
