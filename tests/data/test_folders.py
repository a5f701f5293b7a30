"""Folders of calculations: what is read, in which order and groups, and what is said of the rest."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import write
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.errors import MdpotError
from mdpot.structures import read_structures
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.readers.folders import listed
from mdpot.training.data.readers.search import Output
from mdpot.training.data.readers.settings import settings_notes
from mdpot.training.data.reading import Reading
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.splits import split_by_group

from .metals import coppers

NEED = ("energy", "forces")
KBAR = 0.1 / 160.21766208


def rows(array: np.ndarray, form: str = "{:.8f}", end: str = "\n") -> str:
    return "".join(" ".join(form.format(x) for x in row) + end for row in array)


def outcar(frames: list[Atoms], done: bool = True) -> str:
    text = (
        " vasp.6.4.2 20Jul23\n POTCAR:    PAW_PBE Cu 22Jun2005\n POTCAR:    PAW_PBE Cu 22Jun2005\n"
        "   ions per type =               4\n   k-points           NKPTS =      1   k-points in BZ     NKDIM =   1   "
        "number of bands    NBANDS=     4\n k-points in reciprocal lattice and weights: G\n   0.0 0.0 0.0    1.000\n"
        "   ISPIN  =      1    spin polarized calculation?\n"
    )
    for n, atoms in enumerate(frames, 1):
        text += f"------- Iteration {n:4d}(   1)  -------\n------- aborting loop because EDIFF is reached -------\n"
        xx, yy, zz, yz, xz, xy = -atoms.get_stress() / KBAR
        text += f"  in kB {xx:.5f} {yy:.5f} {zz:.5f} {xy:.5f} {yz:.5f} {xz:.5f}\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += rows(np.hstack([atoms.cell.array, np.zeros((3, 3))]))
        text += f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        text += rows(np.hstack([atoms.positions, atoms.get_forces()]))
        energy = atoms.get_potential_energy()
        text += (
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---------------------------------------------------\n"
            f"  free  energy   TOTEN  =     {energy:.8f} eV\n\n"
            f"  energy  without entropy=    {energy:.8f}  energy(sigma->0) =    {energy:.8f}\n"
        )
    return text + "  General timing and accounting informations for this job:\n" * done


def vasprun(frames: list[Atoms], done: bool = True) -> str:
    def varray(name: str, array: np.ndarray) -> str:
        lines = "".join("<v> " + " ".join(f"{x:.8f}" for x in row) + " </v>\n" for row in array)
        return f'<varray name="{name}">\n{lines}</varray>\n'

    def structure(atoms: Atoms, name: str = "") -> str:
        crystal = f"<crystal>\n{varray('basis', atoms.cell.array)}</crystal>\n"
        places = varray("positions", atoms.get_scaled_positions())
        return f"<structure{name}>\n{crystal}{places}</structure>\n"

    atom = "<rc><c>Cu</c><c>1</c></rc>\n"
    text = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<kpoints>\n'
    text += '<varray name="kpointlist">\n<v> 0 0 0 </v>\n</varray>\n<varray name="weights">\n<v> 1 </v>\n</varray>\n'
    text += '</kpoints>\n<atominfo>\n<array name="atoms">\n<set>\n'
    text += atom * 4 + "</set>\n</array>\n</atominfo>\n" + structure(frames[0], ' name="initialpos"')
    for atoms in frames:
        energy = atoms.get_potential_energy()
        energies = "".join(
            f'<i name="{key}"> {energy:.8f} </i>\n' for key in ("e_fr_energy", "e_wo_entrp", "e_0_energy")
        )
        text += (
            f"<calculation>\n<scstep>\n<energy>\n{energies}</energy>\n</scstep>\n"
            + structure(atoms)
            + varray("forces", atoms.get_forces())
        )
        text += varray("stress", -atoms.get_stress(voigt=False) / KBAR)
        text += f"<energy>\n{energies}</energy>\n</calculation>\n"
    return text + "</modeling>\n" * done


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def energies(reading) -> list[float]:
    return [frame.energy for frame in reading.frames]


def of(frames: list[Atoms]) -> object:
    return pytest.approx([atoms.get_potential_energy() for atoms in frames], abs=1e-6)


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


def test_runs_of_several_frames_stay_together(tmp_path: Path) -> None:
    for n in range(12):
        put(tmp_path / f"run{n}" / "vasprun.xml", vasprun(coppers(5, seed=n)))
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames] == [f"run{n}/vasprun.xml" for n in range(12) for _ in range(5)]
    assert reading.frames[7].file == "run1/vasprun.xml, frame 2"
    dataset = load_dataset("custom", tmp_path)
    splits = split_by_group([frame.group for frame in dataset.frames])
    found = [{dataset.frames[n].group for n in rows} for rows in splits.values()]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert dataset.labels.startswith(f"as in {tmp_path.name}: 12 vasprun.xml: run0/vasprun.xml to run11/")


def test_series_of_single_frames_are_groups(tmp_path: Path) -> None:
    """Of twelve systems with three frames each, in files or in folders side by side."""
    for n in range(12):
        for k, atoms in enumerate(coppers(3, seed=n)):
            if n % 2:
                (tmp_path / f"s{n}").mkdir(exist_ok=True)
                write(tmp_path / f"s{n}" / f"frame_{k}.extxyz", atoms)
            else:
                (tmp_path / f"s{n}" / f"{k}").mkdir(parents=True)
                write(tmp_path / f"s{n}" / f"{k}" / "frame.extxyz", atoms)
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames] == [f"s{n}" for n in range(12) for _ in range(3)]


def neighbors_apart(reading: Reading) -> int:
    """How many pairs of frames, one after the other, are of two groups."""
    groups = [frame.group for frame in reading.frames]
    return sum(one != other for one, other in pairwise(groups))


@pytest.mark.parametrize("name", ["step_{}/scf/out.xyz", "T300/step_{}/scf_{}/out.xyz", "step_{}.xyz", "{}/out.xyz"])
def test_single_frames_are_a_series_however_deep_they_lie(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdpot.training.data.frames.N_CHUNKS", 20)
    for n, atoms in enumerate(coppers(60)):
        path = tmp_path / name.format(n, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, atoms, format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    assert neighbors_apart(reading) == 19  # runs of three frames


@pytest.mark.parametrize("name", ["extra.xyz", "c0/opt.xyz", "relax/opt.xyz"])
@pytest.mark.parametrize("size", [2, 5])
def test_a_trajectory_among_single_frames_leaves_them_a_series(
    tmp_path: Path, name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdpot.training.data.frames.N_CHUNKS", 20)
    for n, atoms in enumerate(coppers(60)):
        path = tmp_path / (f"c{n}/out.xyz" if name.startswith("c0") else f"c{n}.xyz")
        path.parent.mkdir(exist_ok=True)
        write(path, atoms, format="extxyz")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(tmp_path / name, coppers(size, seed=1), format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    assert neighbors_apart(reading) <= 22
    assert len({frame.group.split("#")[0] for frame in reading.frames}) == 2
    # What tells ten groups apart is not cut, and the series is one of them.
    for n in range(10):
        write(tmp_path / f"opt{n}.xyz", coppers(2, seed=n + 2), format="extxyz")
    reading = read_file(tmp_path, need=NEED)
    series = {frame.group for frame in reading.frames if ", frame" not in frame.file}
    assert series == {"."}
    assert len({frame.group for frame in reading.frames}) == 12


def test_names_of_groups_in_the_files_are_kept(tmp_path: Path) -> None:
    for n in range(3):
        frames = coppers(8, seed=n)
        for k, atoms in enumerate(frames):
            atoms.info["group"] = f"T{k // 2}"
        write(tmp_path / f"{n}.extxyz", frames)
    reading = read_file(tmp_path, need=NEED)
    assert [frame.group for frame in reading.frames[::2]] == [f"{n}.extxyz: T{k}" for n in range(3) for k in range(4)]


def test_what_is_broken_is_named_and_loses_nothing_else(tmp_path: Path) -> None:
    frames = coppers(6)
    for n, atoms in enumerate(frames):
        put(tmp_path / f"c{n}" / "OUTCAR", outcar([atoms], done=n != 4))
    put(tmp_path / "c6" / "OUTCAR", "")
    put(tmp_path / "c7" / "OUTCAR", outcar(frames[:1])[:600])
    put(tmp_path / "c8" / "POSCAR", "not begun\n")
    (tmp_path / "c9").mkdir()
    os.symlink(tmp_path / "gone", tmp_path / "c10")
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    failed, empty, broken, *rest = reading.notes
    assert failed.startswith("3 files cannot be read and are left out: c")
    assert "c6/OUTCAR (empty: it holds no frame)" in failed
    assert "c10 (a link to what is not there)" in failed
    assert empty == "2 folders beside those that were read have no output: c8, c9."
    assert broken == "1 of 6 calculations did not come to their end: c4/OUTCAR. What they completed is read."
    assert rest == []
    for n in range(6):
        put(tmp_path / f"c{n}" / "OUTCAR", "")
    with pytest.raises(MdpotError, match=r"of its 8 outputs none can be read\. The first, .*: "):
        read_file(tmp_path)


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


def test_outputs_without_labels_are_named(tmp_path: Path) -> None:
    frames = coppers(3)
    for n, atoms in enumerate(frames):
        put(tmp_path / f"c{n}" / "vasprun.xml", vasprun([atoms]) if n else vasprun([atoms]).split("<calculation>")[0])
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames[1:])
    assert "1 of 3 outputs have no labels: c0/vasprun.xml." in reading.notes
    assert any(note.startswith("1 of 3 frames are left out") for note in reading.notes)


def test_settings_that_differ_are_noted(tmp_path: Path) -> None:
    frames = coppers(6)
    for n, atoms in enumerate(frames[:3]):
        said = f"   ENCUT  =  {400 if n else 520}.0 eV  29.40 Ry\n   GGA     =    {'--' if n else 'PE'}    GGA type\n"
        put(tmp_path / f"c{n}" / "OUTCAR", outcar([atoms]).replace("   ISPIN ", said + "   ISPIN "))
    for n, atoms in enumerate(frames[3:], 3):
        said = (
            f'<i name="ENMAX">    400.00000000</i>\n<i type="logical" name="LHFCALC"> {"FTF"[n % 3]}  </i>\n<kpoints>'
        )
        put(tmp_path / f"c{n}" / "vasprun.xml", vasprun([atoms]).replace("<kpoints>", said))
    reading = read_file(tmp_path, need=NEED)
    assert energies(reading) == of(frames)
    ending = "Energies of several settings do not go together: keep the outputs of one."
    assert reading.notes == [
        f"ENCUT differs among the outputs: 520 in 1 (c0/OUTCAR), 400 in 5 (c1/OUTCAR). {ending}",
        f"LHFCALC differs among the outputs: F in 2 (c3/vasprun.xml), T in 1 (c4/vasprun.xml). {ending}",
    ]


@pytest.mark.parametrize(
    ("kind", "texts", "said"),
    [
        ("ORCA", ["|  1> ! PBE def2-SVP EnGrad PAL4\n|  2> ! TightSCF", "|  1> ! tightscf def2-svp pbe Opt"], []),
        ("ORCA", ["|  1> ! PBE def2-SVP", "|  1> ! PBE0 def2-SVP"], ["DEF2-SVP PBE in 1", "DEF2-SVP PBE0 in 1"]),
        ("Gaussian", [" #P B3LYP/6-31G* force", " # b3lyp/6-31g* opt nosymm"], []),
        ("Gaussian", [" #P B3LYP/6-31G* force", " #B3LYP/def2SVP force"], ["B3LYP/6-31G* in 1", "B3LYP/DEF2SVP in 1"]),
        ("Quantum ESPRESSO", ["kinetic-energy cutoff = 60.0 Ry", "kinetic-energy cutoff = 40.0 Ry"], ["60 in 1"]),
    ],
)
def test_settings_of_other_programs(tmp_path: Path, kind: str, texts: list[str], said: list[str]) -> None:
    outputs = [Output(put(tmp_path / f"{n}.out", text), f"{n}.out", kind) for n, text in enumerate(texts)]
    notes = list(settings_notes(outputs))
    assert len(notes) == bool(said)
    for part in said:
        assert part in notes[0]


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
    assert reading.files == "1 OUTCAR: OUTCAR; not read: 1 XYZ without labels, 1 other files"


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


def test_formats_that_are_not_read_are_told_where_nothing_else_is(tmp_path: Path) -> None:
    put(tmp_path / "a" / "job.out", " DBCSR| CPU\n CP2K| version string\n")
    with pytest.raises(MdpotError, match=r"no output of a calculation .* a/job\.out: an output of CP2K"):
        read_file(tmp_path)
    put(tmp_path / "b" / "OUTCAR", outcar(coppers(1)))
    assert any("1 files are of formats that are not read: a/job.out (an output" in n for n in read_file(tmp_path).notes)


def test_inspect_and_messages_name_the_file(tmp_path: Path) -> None:
    frames = coppers(13)
    frames[5].calc.results["forces"][0, 0] = 1e3  # type: ignore[union-attr]
    for n, atoms in enumerate(frames):
        put(tmp_path / "data" / f"c{n}" / "OUTCAR", outcar([atoms]))
    done = CliRunner().invoke(main, ["data", "inspect", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
    assert "files:       13 OUTCAR: c0/OUTCAR to c12/OUTCAR" in done.stdout
    assert "forces far larger than in the other frames: frame 5 (c5/OUTCAR)." in done.stdout
    told = CliRunner().invoke(main, ["data", "inspect", str(tmp_path / "data"), "--json"])
    assert json.loads(told.stdout)["outliers"]["forces far larger than in the other frames"] == [5]
    first, second, *_ = frames[5].positions
    near = outcar([frames[5]]).replace(rows(second[None]).strip(), rows(first[None] + 0.1).strip())
    put(tmp_path / "data" / "c5" / "OUTCAR", near)
    with pytest.raises(MdpotError, match=r"frame 5 \(c5/OUTCAR\): atoms overlap"):
        load_dataset("custom", tmp_path / "data", labels=Asked(check=False))
    assert any("frame 5 (c5/OUTCAR): atoms overlap" in w for w in inspect_file(tmp_path / "data", Asked())["warnings"])


def test_data_that_are_split_already(tmp_path: Path) -> None:
    for name in ("train_set.extxyz", "valid.extxyz", "my-test.extxyz"):
        write(tmp_path / name, coppers(2))
    (note,) = [note for note in read_file(tmp_path).notes if "split anew" in note]
    assert note.startswith("my-test.extxyz, train_set.extxyz, valid.extxyz are read together")
    (tmp_path / "my-test.extxyz").rename(tmp_path / "attested.extxyz")
    (tmp_path / "valid.extxyz").unlink()
    assert not any("split anew" in note for note in read_file(tmp_path).notes)


def test_lists_are_cut() -> None:
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(list("abcdefg")) == "a, b, c, d, e, and 2 more"
