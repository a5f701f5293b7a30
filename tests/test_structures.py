"""Structure files as people have them: odd names, encodings, and dialects of XYZ."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.structures import read_structures
from mdpot.units import BOHR

WATER = "3\n{comment}\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


def written(path: Path, comment: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(WATER.format(comment=comment).encode(encoding))
    return path


@pytest.mark.parametrize("name", ["cu@300K.extxyz", "a@2", "spaces in it.xyz", "no_suffix", "ä.extxyz"])
def test_any_name(tmp_path: Path, name: str) -> None:
    # ASE would read `cu`, frame "300K"; it is there, and is not what was asked for.
    write(tmp_path / "cu", Atoms("Cu"), format="extxyz")
    (atoms,) = read_structures(written(tmp_path / name, 'Properties=species:S:1:pos:R:3 pbc="F F F"'))
    assert atoms.get_chemical_formula() == "H2O"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_any_encoding(tmp_path: Path, encoding: str) -> None:
    comment = 'Properties=species:S:1:pos:R:3 author="Müller" energy=-1.5 pbc="F F F"'
    (atoms,) = read_structures(written(tmp_path / "frames.extxyz", comment, encoding))
    assert atoms.get_potential_energy() == -1.5
    assert atoms.info["author"] == "Müller"


def test_line_ends_blank_lines_and_gzip(tmp_path: Path) -> None:
    text = ("\n" + WATER.format(comment="one").replace("\n", "\r\n") + "\n") * 2 + "\n\n"
    (tmp_path / "frames.xyz.gz").write_bytes(gzip.compress(text.encode()))
    assert [len(atoms) for atoms in read_structures(tmp_path / "frames.xyz.gz")] == [3, 3]


@pytest.mark.parametrize("key", ["stress", "virial", "DFT_stress"])
def test_six_numbers_are_voigts(tmp_path: Path, key: str) -> None:
    comment = f'Lattice="3 0 0 0 3 0 0 0 3" {key}="1 2 3 4 5 6" pbc="T T T"'
    (atoms,) = read_structures(written(tmp_path / "frames.extxyz", comment))
    full = np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    stress = atoms.get_stress(voigt=False) if key == "stress" else atoms.info[key]
    np.testing.assert_array_equal(np.reshape(stress, (3, 3)), full)


def test_isotopes_are_hydrogen_with_their_mass(tmp_path: Path) -> None:
    path = tmp_path / "heavy.xyz"
    path.write_text(WATER.format(comment="T = 300 K").replace("H -", "D -") + WATER.format(comment="light"))
    heavy, light = read_structures(path)
    assert heavy.get_chemical_formula() == "H2O"
    np.testing.assert_allclose(heavy.get_masses(), [15.999, 1.008, 2.014], atol=1e-3)
    np.testing.assert_allclose(light.get_masses(), [15.999, 1.008, 1.008], atol=1e-3)


@pytest.mark.parametrize(
    ("units", "length", "position"),
    [
        ("positions{angstrom} cell{angstrom}", 10.0, 1.0),
        ("positions{atomic_unit} cell{atomic_unit}", 10.0 * BOHR, BOHR),
        ("positions{angstrom} cell{atomic_unit}", 10.0 * BOHR, 1.0),
        ("", 10.0 * BOHR, BOHR),  # i-PI's own default
    ],
)
def test_the_cell_of_ipi(tmp_path: Path, units: str, length: float, position: float) -> None:
    comment = f"# CELL(abcABC):   10.0   10.0   10.0    90.0    90.0    60.0  Step:  4  Bead:  0 {units}"
    (atoms,) = read_structures(written(tmp_path / "ipi.xyz", comment))
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.cellpar(), [length] * 3 + [90, 90, 60])
    np.testing.assert_allclose(atoms.positions[1], [0.96 * position, 0, 0])


def test_a_file_that_was_cut_off_and_others(tmp_path: Path) -> None:
    path = tmp_path / "frames.extxyz"
    write(path, [bulk("NaCl", "rocksalt", 5.64, cubic=True)] * 2)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-3]))
    with pytest.raises(MdpotError, match=r"truncated: the frame of line 11 has 8 atoms, and the file ends after 5"):
        read_structures(path)
    path.write_text("\n".join(lines[:7] + lines[10:]))
    with pytest.raises(MdpotError, match=r"frames\.extxyz") as caught:
        read_structures(path)
    path.write_text("\n".join([*lines[:10], "Na 0 0 0", *lines[10:]]))
    with pytest.raises(MdpotError, match=r"line 11: a frame begins with its number of atoms; got 'Na 0 0 0'") as caught:
        read_structures(path)
    assert "truncated" not in str(caught.value)
    path.write_text("\n".join(lines).replace("Na ", "Xx "))
    with pytest.raises(MdpotError, match=r"cannot be read \(.*Xx"):
        read_structures(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="a folder; give the file"):
        read_structures(tmp_path)
    with pytest.raises(MdpotError, match="no such file"):
        read_structures(tmp_path / "none.xyz")
    (tmp_path / "blank.xyz").write_text("\n \n")
    with pytest.raises(MdpotError, match="empty"):
        read_structures(tmp_path / "blank.xyz")


def test_letters_in_a_comment_are_no_isotopes(tmp_path: Path) -> None:
    comment = 'T = 300 D = 4 Properties=species:S:1:pos:R:3 energy=-1.0 pbc="F F F"'
    (tmp_path / "d.xyz").write_text(f"2\n{comment}\nD 0 0 0\nO 0 0 0.96\n")
    (atoms,) = read_structures(tmp_path / "d.xyz")
    assert (atoms.info["T"], atoms.info["D"]) == (300, 4)
    assert atoms.get_chemical_symbols() == ["H", "O"]
    assert atoms.get_masses()[0] == pytest.approx(2.0141, abs=1e-4)
