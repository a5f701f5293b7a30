"""Folders of calculations: what of them is read, and in which order."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.structures import read_structures
from mdpot.training.data.readers import read_file
from mdpot.training.data.sources import load_dataset

from .metals import coppers
from .outputs import NEED, energies, of, put
from .vasp import outcar, vasprun


def test_an_output_in_each_directory_in_natural_order(tmp_path: Path) -> None:
    frames = coppers(12)
    for n, atoms in enumerate(frames, 1):
        put(tmp_path / f"calc {n}" / "OUTCAR", outcar([atoms]))
        for name in ("INCAR", "POSCAR", "job.sh", ".OUTCAR"):
            put(tmp_path / f"calc {n}" / name, "text\n")
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    for frame, atoms in zip(reading.frames, frames, strict=True):
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-6)  # type: ignore[arg-type]
    assert reading.files == "12 OUTCAR: calc 1/OUTCAR to calc 12/OUTCAR; not read: 36 other files"
    assert [frame.index for frame in reading.frames] == list(range(12))
    assert (reading.frames[3].file, reading.notes) == ("calc 4/OUTCAR", [])
    # Nothing says that they are no trajectory, so they are cut into runs.
    assert [frame.group for frame in reading.frames] == [f"#{n}" for n in range(12)]


def test_both_outputs_of_vasp_are_one_calculation(tmp_path: Path) -> None:
    frames = coppers(4)
    put(tmp_path / "1" / "vasprun.xml", vasprun(frames[:1]))
    put(tmp_path / "1" / "OUTCAR", outcar(frames[:1]))
    put(tmp_path / "2" / "OUTCAR", outcar(frames[1:2]))
    put(tmp_path / "3" / "vasprun.xml", "<?xml version='1.0'?>\n<modeling>\n<gener")  # broken; the other is taken
    (tmp_path / "3" / "OUTCAR.gz").write_bytes(gzip.compress(outcar(frames[2:3], done=False).encode()))
    put(tmp_path / "4" / "vasprun.xml", vasprun(frames[3:]))
    shutil.copy(tmp_path / "4" / "vasprun.xml", tmp_path / "4" / "vasprun.xml.bak")
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    assert "2 vasprun.xml, 2 OUTCAR: 1/vasprun.xml to 4/vasprun.xml; not read: 2 OUTCAR of the same" in reading.files
    note, ending = reading.notes
    assert note.startswith("1 files cannot be read and are left out: 3/vasprun.xml (cannot be read (ParseError")
    assert ending.startswith("1 of 4 calculations did not come to their end: 3/OUTCAR.gz.")


@pytest.mark.parametrize("packed", [False, True])
def test_of_both_outputs_the_complete_one_is_taken(tmp_path: Path, packed: bool) -> None:
    frames = coppers(3)
    put(tmp_path / "1" / "vasprun.xml", vasprun(frames[:1], done=False))
    put(tmp_path / "1" / "OUTCAR", outcar(frames))
    if packed:
        (tmp_path / "1" / "OUTCAR.gz").write_bytes(gzip.compress((tmp_path / "1" / "OUTCAR").read_bytes()))
        (tmp_path / "1" / "OUTCAR").unlink()
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    assert "not read: 1 vasprun.xml of the same calculations" in reading.files
    assert reading.notes == []


def test_an_outcar_has_the_constraints_beside_it(tmp_path: Path) -> None:
    """`mdpot md` refuses them; forces that are trained on are those of all atoms."""
    frames = coppers(2)
    put(tmp_path / "OUTCAR", outcar(frames))
    assert not read_structures(tmp_path / "OUTCAR")[-1].constraints
    write(tmp_path / "CONTCAR", Atoms(frames[0], constraint=FixAtoms([1])), format="vasp")
    for structure in read_structures(tmp_path / "OUTCAR"):
        assert structure.constraints[0].index.tolist() == [1]
    forces = read_file(tmp_path, need=NEED).frames[1].forces
    np.testing.assert_allclose(forces, frames[1].get_forces(), atol=1e-6)  # type: ignore[arg-type]
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress((tmp_path / "OUTCAR").read_bytes()))
    assert read_structures(tmp_path / "OUTCAR.gz")[-1].constraints
    shutil.copy(tmp_path / "CONTCAR", tmp_path / "POSCAR")
    put(tmp_path / "CONTCAR", "cut off\n1.0\n")
    assert read_structures(tmp_path / "OUTCAR")[-1].constraints
    put(tmp_path / "POSCAR", "cut off\n1.0\n")
    assert len(read_structures(tmp_path / "OUTCAR")) == 2


def test_links_are_followed_once(tmp_path: Path) -> None:
    frames = coppers(2)
    put(tmp_path / "elsewhere" / "OUTCAR", outcar(frames[:1]))
    put(tmp_path / "data" / "b" / "OUTCAR", outcar(frames[1:]))
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "a")
    os.symlink(tmp_path / "data", tmp_path / "data" / "b" / "loop")
    os.symlink(tmp_path / "elsewhere" / "OUTCAR", tmp_path / "data" / "b" / "OUTCAR.old")
    assert energies(read_file(tmp_path / "data")) == of(frames)


def test_patterns_follow_links_and_pass_over_what_is_hidden(tmp_path: Path) -> None:
    frames = coppers(4)
    for n, name in enumerate(["c0", "c1", ".trash", "deep/c2/.old"]):
        put(tmp_path / "data" / name / "OUTCAR", outcar(frames[n : n + 1]))
    put(tmp_path / "elsewhere" / "c3" / "OUTCAR", outcar(frames[2:3]))
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "data", tmp_path / "data" / "c1" / "loop")
    os.symlink(tmp_path / "data" / "c0", tmp_path / "data" / "deep" / "b")
    for pattern, n in {
        "**/OUTCAR": 3,
        "**": 3,
        "*": 3,
        "*/OUTCAR": 2,
        "*/*/OUTCAR": 2,
        "link/*/OUTCAR": 1,
        "l*/**/OUTCAR": 1,
        "**/c[13]/OUT*": 2,
        "*/b/*": 1,
        "d*/**": 1,
    }.items():
        assert len(read_file(tmp_path / "data" / pattern, need=NEED).frames) == n, pattern
    with pytest.raises(MdpotError, match="nothing fits this pattern, or no such file"):
        read_file(tmp_path / "data" / "nothing[1].xyz")


def test_other_files_beside_outputs_are_of_no_kind(tmp_path: Path) -> None:
    """Archives, tables and databases of anything, which look like frames by their names or first words."""
    frames = coppers(2)
    for n, atoms in enumerate(frames):
        put(tmp_path / f"c{n}" / "OUTCAR", outcar([atoms]))
    np.savez(tmp_path / "loss.npz", epoch=np.arange(3), loss=np.ones(3))
    np.savez(tmp_path / "z.npz", z=np.arange(3))
    put(tmp_path / "dump.sql", "BEGIN TRANSACTION;\nCREATE TABLE a (b);\n")
    put(tmp_path / "notes.txt", "\n" * 5000 + "Begin here\n")
    put(tmp_path / "table.json", '{"0": {"a": 1}, "1": {"a": 2}}')
    database = sqlite3.connect(tmp_path / "jobs.db")
    database.execute("CREATE TABLE jobs (name)")
    database.commit()
    database.close()
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "density.h5", "w") as file:
        file["grid/density"] = np.ones((2, 2))
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    assert reading.files == "2 OUTCAR: c0/OUTCAR to c1/OUTCAR; not read: 7 other files"
    write(tmp_path / "real.db", frames)
    with pytest.raises(MdpotError, match=r"2 of VASP .*, 1 of ASE database"):
        read_file(tmp_path)


def test_the_advice_is_of_the_largest_family(tmp_path: Path) -> None:
    frames = coppers(4)
    write(tmp_path / "a.traj", frames[:1])
    for n, atoms in enumerate(frames):
        put(tmp_path / f"c{n}" / "OUTCAR", outcar([atoms]))
    with pytest.raises(MdpotError, match=r'e\.g\. ".*/\*\*/OUTCAR"'):
        read_file(tmp_path)
    for n, atoms in enumerate(frames * 2):
        write(tmp_path / f"{n}.extxyz", atoms)
    with pytest.raises(MdpotError, match=r'e\.g\. ".*/\*\*/\*\.extxyz"'):
        read_file(tmp_path)


def test_several_kinds_are_refused_and_a_pattern_says_which(tmp_path: Path) -> None:
    frames = coppers(4)
    for n, atoms in enumerate(frames):
        put(tmp_path / f"c{n}" / "OUTCAR", outcar([atoms]))
        write(tmp_path / f"c{n}" / "opt.traj", atoms)
        write(tmp_path / f"c{n}" / "structure.xyz", Atoms(atoms.symbols, atoms.positions), format="xyz")
    said = r"several kinds .*: 4 of VASP \(c0/OUTCAR\), 4 of ASE trajectory \(c0/opt.traj\)\. Say .*/\*\*/OUTCAR"
    with pytest.raises(MdpotError, match=said):
        read_file(tmp_path)
    for pattern in ("**/OUTCAR", "c*/OUTCAR", "c[0-9]/*.traj"):
        assert energies(read_file(tmp_path / pattern)) == of(frames)
        assert len(load_dataset("custom", tmp_path / pattern)) == 4
    assert len(read_file(tmp_path / "c[12]" / "OUTCAR").frames) == 2
    (tmp_path / "c0").rename(tmp_path / "c[0]")
    assert len(read_file(tmp_path / "c[0]" / "OUT*").frames) == 1
    with pytest.raises(MdpotError, match="nothing fits this pattern"):
        read_file(tmp_path / "*" / "vasprun.xml")


def test_structures_beside_outputs_and_among_frames(tmp_path: Path) -> None:
    """XYZ without labels is what an output began from, or a frame without labels."""
    frames = coppers(2)
    write(tmp_path / "a.xyz", Atoms(frames[0].symbols, frames[0].positions), format="xyz")
    write(tmp_path / "b.extxyz", frames[0])
    assert len(read_file(tmp_path, need=()).frames) == 2
    reading = read_file(tmp_path)
    assert energies(reading) == of(frames[:1])
    assert "1 of 2 outputs have no labels: a.xyz." in reading.notes
    assert reading.files == "2 XYZ: a.xyz to b.extxyz"
    (tmp_path / "b.extxyz").unlink()
    put(tmp_path / "OUTCAR", outcar(frames))
    put(tmp_path / "plot_OUTCAR.py", "import this\n")
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    assert reading.files == "1 OUTCAR: OUTCAR; not read: 1 XYZ without labels, 1 other file"


@pytest.mark.parametrize(
    ("names", "pattern", "read"),
    [
        (["a10.cif", "a2.CIF"], "", ["a2.CIF", "a10.cif"]),
        (["a2.cif.gz", "a10.cif"], "", ["a2.cif.gz", "a10.cif"]),
        (["a2.CIF"], "", ["a2.CIF"]),
        (["x/a10.cif", "x/a2.cif", "b.cif"], "", ["b.cif", "x/a2.cif", "x/a10.cif"]),
        (["a10.cif", "a2.cif", "b.cif"], "a*.cif", ["a2.cif", "a10.cif"]),
    ],
)
def test_folders_of_cifs(tmp_path: Path, names: list[str], pattern: str, read: list[str]) -> None:
    """Where no labels are wanted; whatever their names end with, and of a pattern, too."""
    crystals = {name: bulk("Cu", a=3.5 + 0.1 * n) for n, name in enumerate(names)}
    for name, atoms in crystals.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        write(file, atoms, format="cif")
    found = read_file(tmp_path / pattern, need=())
    assert [frame.file for frame in found.frames] == read
    for frame in found.frames:
        np.testing.assert_allclose(np.linalg.det(frame.cell), crystals[frame.file].get_volume(), rtol=1e-5)
    assert found.files.startswith(f"{len(read)} CIF: {read[0]}")
    (tmp_path / "properties.csv").write_text("name,gap\na2,1\n")
    if not pattern:
        with pytest.raises(MdpotError, match=r"such as the table properties\.csv"):
            read_file(tmp_path, need=())


def test_files_in_several_units_are_refused(tmp_path: Path) -> None:
    for n, atoms in enumerate(coppers(2)):
        write(tmp_path / f"{n}.extxyz", atoms)
    path = tmp_path / "1.extxyz"
    path.write_text(path.read_text().replace("energy=", "energy_unit=Hartree energy=", 1))
    with pytest.raises(MdpotError, match=r"frame 0 states the units none, and frame 1 energy=Hartree"):
        read_file(tmp_path)


def test_archives_and_their_keys(tmp_path: Path) -> None:
    frames = coppers(6)
    for n in (0, 1):
        part = frames[3 * n : 3 * n + 3]
        np.savez(
            tmp_path / f"{n}.npz",
            numbers=part[0].numbers,
            positions=np.array([a.positions for a in part]),
            cell=np.array([a.cell.array for a in part]),
            energy=np.array([a.get_potential_energy() for a in part]),
            **{"forces" if n == 0 else "F": np.array([a.get_forces() for a in part])},  # type: ignore[arg-type]
        )
    with pytest.raises(MdpotError, match=r"forces is called forces in 0\.npz, and F in 1\.npz"):
        read_file(tmp_path)
    (tmp_path / "1.npz").rename(tmp_path / "1.old")
    assert energies(read_file(tmp_path)) == of(frames[:3])
