"""i-PI's trajectories: positions, forces and potential energies in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

from .metals import coppers
from .outputs import assert_right

NEED = ("energy", "forces")


def upright(n: int) -> list[Atoms]:
    """Frames whose cells are as i-PI has them, the first vector along x, the second in the plane of x and y."""
    frames = coppers(n)
    for atoms in frames:
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        turn = np.linalg.solve(atoms.cell.array, atoms.cell.standard_form()[0].array)
        atoms.set_cell(atoms.cell.array @ turn)
        atoms.positions = atoms.positions @ turn
        assert atoms.calc is not None
        atoms.calc.results |= {"energy": results["energy"], "forces": results["forces"] @ turn}
        atoms.calc.atoms = atoms.copy()
    return frames


def trajectory(frames: list[Atoms], values: list[np.ndarray], said: str, stride: int = 1) -> str:
    text = ""
    for n, (atoms, rows) in enumerate(zip(frames, values, strict=True)):
        if n % stride == 0:
            cell = " ".join(f"{x:.8f}" for x in atoms.cell.cellpar())
            text += f"{len(atoms)}\n# CELL(abcABC): {cell}  Step:  {10 * n}  Bead:       0 {said}  cell{{angstrom}}\n"
            text += "".join(
                f"{s:>8} {x:.8e} {y:.8e} {z:.8e}\n" for s, (x, y, z) in zip(atoms.symbols, rows, strict=True)
            )
    return text


def put(folder: Path, frames: list[Atoms], forces: str = "atomic_unit", energy: str = "atomic_unit") -> Path:
    """The files of a simulation."""
    scale = {"atomic_unit": Bohr / Hartree, "ev/ang": 1.0}[forces]
    positions, vectors = [a.positions for a in frames], [a.get_forces() * scale for a in frames]
    (folder / "simulation.pos_0.xyz").write_text(trajectory(frames, positions, "positions{angstrom}"))
    (folder / "simulation.for_0.xyz").write_text(trajectory(frames, vectors, f"forces{{{forces}}}"))
    text = "# column   1     --> step : The current simulation time step.\n"
    text += f"# column   2     --> conserved{{{energy}}} : ...\n# column   3     --> potential{{{energy}}} : ...\n"
    for n, atoms in enumerate(frames):
        value = atoms.get_potential_energy() / {"atomic_unit": Hartree, "electronvolt": 1.0}[energy]
        text += f"  {10.0 * n:.8e}  9.0  {value:.10e}\n"
    (folder / "simulation.out").write_text(text)
    return folder / "simulation.pos_0.xyz"


@pytest.mark.parametrize("forces", ["atomic_unit", "ev/ang"])
@pytest.mark.parametrize("energy", ["atomic_unit", "electronvolt"])
def test_positions_forces_and_energies(tmp_path: Path, forces: str, energy: str) -> None:
    frames = upright(4)
    assert_right(read_file(put(tmp_path, frames, forces, energy), need=NEED), frames)
    assert_right(read_file(tmp_path, need=NEED), frames)


def test_steps_without_forces_have_none(tmp_path: Path) -> None:
    frames = upright(4)
    path = put(tmp_path, frames)
    vectors = [a.get_forces() * Bohr / Hartree for a in frames]
    (tmp_path / "simulation.for_0.xyz").write_text(trajectory(frames, vectors, "forces{atomic_unit}", stride=2))
    assert_right(read_file(path, need=NEED), frames[::2])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    path = put(tmp_path, upright(2))
    (tmp_path / "simulation.pos_1.xyz").write_text(path.read_text())
    assert "simulation.out has the mean potential of all beads, which is not used." in read_file(path).notes
    (tmp_path / "simulation.pos_1.xyz").unlink()
    said = "the potential in simulation.out is the mean of all beads; it is taken for that of the one here."
    assert said in read_file(path).notes
    (tmp_path / "simulation.out").unlink()
    assert any("there is no simulation.out beside it" in note for note in read_file(path).notes)
    (tmp_path / "simulation.for_0.xyz").unlink()
    assert "forces are in a file of their own" in read_file(path, need=NEED).refusal


def test_errors(tmp_path: Path) -> None:
    path = put(tmp_path, upright(2))
    forces, energies = tmp_path / "simulation.for_0.xyz", tmp_path / "simulation.out"
    for file, before, after, said in (
        (forces, "forces{atomic_unit}", "forces{newton}", "unit of force in i-PI.*newton"),
        (energies, "potential{atomic_unit}", "potential{kelvin}", "unit of energy in i-PI.*kelvin"),
        (energies, "--> potential", "--> kinetic", "must have columns step and potential"),
        (forces, "Cu", "Ag", "step 0 has other atoms than in simulation.for_0.xyz"),
        (path, "Step:  10", "", "pos_0.xyz: the comment of frame 1 has no step"),
        (forces, "Step:  10", "", "for_0.xyz: the comment of frame 1 has no step"),
        (forces, "Step:  10", "Step:  0", "for_0.xyz: step 0 is in it 2 times"),
        (path, "Step:  10", "Step:  0", "pos_0.xyz: step 0 is in it 2 times"),
        (energies, "1.00000000e+01  9.0", "0.0  9.0", "simulation.out: step 0 is in it 2 times"),
    ):
        whole = file.read_text()
        file.write_text(whole.replace(before, after))
        with pytest.raises(MdpotError, match=said):
            read_file(path)
        file.write_text(whole)


def test_centroids_are_in_their_own_unit(tmp_path: Path) -> None:
    frames = upright(2)
    path = tmp_path / "simulation.xc.xyz"
    path.write_text(trajectory(frames, [a.positions for a in frames], "x_centroid{angstrom}"))
    for frame, atoms in zip(read_file(path, need=()).frames, frames, strict=True):
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-6)


@pytest.mark.parametrize("comment", ["Step:  0  Bead:  0 forces{atomic_unit}", "Traj: velocities{atomic_unit} Step: 0"])
def test_forces_are_no_positions(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "simulation.for_0.xyz"
    path.write_text(f"1\n# CELL(abcABC): 10. 10. 10. 90. 90. 90. {comment} cell{{angstrom}}\nH 0.1 0.2 0.3\n")
    with pytest.raises(MdpotError, match=r"i-PI writes (forces|velocities) as if they were positions"):
        read_file(path, need=())


def test_the_only_file_of_many_beads(tmp_path: Path) -> None:
    """i-PI pads the numbers of ten and more; the potential is the mean of them."""
    frames = upright(2)
    put(tmp_path, frames)
    for name in ("pos", "for"):
        (tmp_path / f"simulation.{name}_0.xyz").rename(tmp_path / f"simulation.{name}_00.xyz")
    reading = read_file(tmp_path / "simulation.pos_00.xyz", need=("forces",))
    assert [frame.energy for frame in reading.frames] == [None, None]
    assert "simulation.out has the mean potential of all beads, which is not used." in reading.notes


@pytest.mark.parametrize("column", ["potential(0){electronvolt}", "potential{electronvolt}( bead = 0 )"])
def test_the_potential_of_a_bead(tmp_path: Path, column: str) -> None:
    """It is that of the bead also where there are others."""
    frames = upright(3)
    path = put(tmp_path, frames, energy="electronvolt")
    energies = tmp_path / "simulation.out"
    others = "# column   4     --> potential(1) : that of another\n# column   5     --> potential : the {mean} (9)\n"
    text = energies.read_text().replace("potential{electronvolt} : ...\n", f"{column} : ...\n{others}")
    energies.write_text("\n".join(line + " -1.0 -2.0" * (not line.startswith("#")) for line in text.splitlines()))
    (tmp_path / "simulation.pos_1.xyz").write_text(path.read_text())
    reading = read_file(path, need=NEED)
    assert_right(reading, frames)
    assert not any("mean" in note for note in reading.notes)


def test_a_name_with_brackets(tmp_path: Path) -> None:
    frames = upright(2)
    put(tmp_path, frames)
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_name(file.name.replace("simulation", "run[1]")))
    assert_right(read_file(tmp_path / "run[1].pos_0.xyz", need=NEED), frames)
    (tmp_path / "run[1].pos_1.xyz").write_text((tmp_path / "run[1].pos_0.xyz").read_text())
    assert read_file(tmp_path / "run[1].pos_0.xyz").frames[0].energy is None


@pytest.mark.parametrize("said", ['SUPERCELL="1 1 1"', 'CELL="rocksalt"', "# CELL(abcABC): 9 9 9 90 90 90"])
def test_comments_of_extended_xyz_are_not_those_of_i_pi(tmp_path: Path, said: str) -> None:
    frames = coppers(2)
    text = ""
    for atoms in frames:
        lattice = " ".join(str(x) for x in atoms.cell.array.ravel())
        text += f'{len(atoms)}\n{said} Lattice="{lattice}" Properties=species:S:1:pos:R:3:forces:R:3 '
        text += f"energy={atoms.get_potential_energy()}\n"
        for symbol, row in zip(atoms.symbols, np.hstack([atoms.positions, atoms.get_forces()]), strict=True):
            text += f"{symbol} {' '.join(str(x) for x in row)}\n"
    (tmp_path / "a.xyz").write_text(text)
    assert_right(read_file(tmp_path / "a.xyz", need=NEED), frames)
