"""Folders of calculations: what is said of outputs that are broken, without labels, or of other settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ase.io import write
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.errors import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.readers.folders import listed
from mdpot.training.data.readers.search import Output
from mdpot.training.data.readers.settings import settings_notes
from mdpot.training.data.sources import load_dataset

from .metals import coppers
from .outputs import NEED, energies, of, put
from .vasp import outcar, rows, vasprun


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
