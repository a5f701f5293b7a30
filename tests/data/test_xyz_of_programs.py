"""XYZ as programs write it: energies in comments, columns without names, weights and heads of MACE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Hartree, kcal, mol

from mdpot.errors import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file

from .metals import coppers
from .outputs import NEED


def cp2k(path: Path, header: str = " i = {n:8d}, time = {t:12.3f}, E = {e:20.10f}") -> None:
    rng, atoms = np.random.default_rng(0), molecule("H2O")
    with path.open("w") as file:
        for n in range(3):
            file.write("3\n" + header.format(n=n, t=0.5 * n, e=-17.16 + 1e-4 * n) + "\n")
            for symbol, row in zip(atoms.symbols, atoms.positions + 0.01 * rng.normal(size=(3, 3)), strict=True):
                file.write(f"{symbol:>3} " + " ".join(f"{x:20.10f}" for x in row) + "\n")


def test_the_files_of_cp2k(tmp_path: Path) -> None:
    cp2k(tmp_path / "w-pos-1.xyz")
    reading = read_file(tmp_path / "w-pos-1.xyz", Asked(energy_key="E"), ("energy",))
    assert [frame.energy for frame in reading.frames] == pytest.approx(
        [(-17.16 + 1e-4 * n) * Hartree for n in range(3)]
    )
    assert any("CP2K's, which state no cell" in note for note in reading.notes)
    assert any("CP2K's" in said for said in inspect_file(tmp_path / "w-pos-1.xyz", Asked())["warnings"])
    given = read_file(tmp_path / "w-pos-1.xyz", Asked(energy_key="E", units="ase"), ("energy",))
    assert given.frames[0].energy == pytest.approx(-17.16)
    cp2k(tmp_path / "w-frc-1.xyz")
    with pytest.raises(MdpotError, match="CP2K writes forces and velocities as if they were positions"):
        read_file(tmp_path / "w-frc-1.xyz")
    cp2k(tmp_path / "other.xyz")
    assert any("name the files as CP2K does" in note for note in read_file(tmp_path / "other.xyz").notes)


def test_energies_of_dynamics_by_orca_are_in_hartree(tmp_path: Path) -> None:
    cp2k(tmp_path / "a.xyz", "Step {n}, t={t} fs, E_Pot={e} Hartree, T=300.0 K")
    reading = read_file(tmp_path / "a.xyz", Asked(energy_key="E_Pot"), ("energy",))
    assert reading.frames[0].energy == pytest.approx(-17.16 * Hartree)


@pytest.mark.parametrize(
    ("word", "unit"),
    [("eV", 1.0), ("Hartree", Hartree), ("kcal/mol", kcal / mol), ("a.u.", Hartree), (" (Hartree) ", Hartree)],
)
def test_a_unit_behind_an_energy(tmp_path: Path, word: str, unit: float) -> None:
    cp2k(tmp_path / "a.xyz", f'energy = {{e}} {word} pbc="F F F" step={{n}}')
    reading = read_file(tmp_path / "a.xyz", need=("energy",))
    assert reading.frames[0].energy == pytest.approx(-17.16 * unit)
    assert reading.units.source == "stated in the file"
    (tmp_path / "a.xyz").write_text((tmp_path / "a.xyz").read_text().replace(f"{word} pbc", "pbc", 1))
    with pytest.raises(MdpotError, match=r"frame 0 has no unit, and frame 1 energy in"):
        read_file(tmp_path / "a.xyz")


def test_columns_without_a_name_are_noted(tmp_path: Path) -> None:
    text = "2\n{}\nO 0 0 0 0.1 0 0\nH 0.96 0 0 -0.1 0 0\n"
    (tmp_path / "a.xyz").write_text(text.format("energy=-1.0"))
    assert any("each atom has 3 columns that are not read" in note for note in read_file(tmp_path / "a.xyz").notes)
    (tmp_path / "a.xyz").write_text(text.format("energy=-1.0 Properties=species:S:1:pos:R:3:forces:R:3"))
    reading = read_file(tmp_path / "a.xyz", need=NEED)
    assert not any("columns" in note for note in reading.notes)
    assert reading.frames[0].forces is not None


def test_decimal_commas_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\n\nO 0,5 0,0 1,25\n")
    with pytest.raises(MdpotError, match=r"line 3: '0,5' has a decimal comma.*Write points"):
        read_file(tmp_path / "a.xyz")


def test_labels_of_no_weight_are_absent(tmp_path: Path) -> None:
    """MACE's files have a zero in place of a label that is not there, and a weight of zero for it."""
    frames = coppers(4)
    frames[1].info |= {"config_energy_weight": 0.0}
    assert frames[1].calc is not None
    frames[1].calc.results["energy"] = 0.0
    frames[2].info |= {"config_virials_weight": 0, "config_energy_weight": 1.0}
    frames[3].info |= {"config_weight": 0.0}
    write(tmp_path / "a.extxyz", frames)
    reading = read_file(tmp_path / "a.extxyz")
    assert reading.n_unlabeled == 1
    assert [frame.energy is None for frame in reading.frames] == [False, True, False]
    assert [frame.stress is None for frame in reading.frames] == [False, False, True]
    assert all(frame.forces is not None for frame in reading.frames)
    assert (
        "energy has a weight of zero (config_weight or config_energy_weight) in 2 frames, and is not used there."
        in (reading.notes)
    )


def test_heads_that_differ_are_noted(tmp_path: Path) -> None:
    frames = coppers(2)
    for name, atoms in zip(["PBE", "r2SCAN"], frames, strict=True):
        atoms.info["head"] = name
    write(tmp_path / "a.extxyz", frames)
    assert any("head differs among the frames (PBE, r2SCAN)" in note for note in read_file(tmp_path / "a.extxyz").notes)


@pytest.mark.parametrize("name", ["force_constants_train.extxyz", "force_sets.xyz"])
def test_names_and_comments_that_only_sound_foreign(tmp_path: Path, name: str) -> None:
    atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)) + 0.1)
    atoms.info["comment"] = "computed by CP2K| 2023.1"
    write(tmp_path / name, [atoms, atoms], format="extxyz")
    assert len(read_file(tmp_path / name).frames) == 2
