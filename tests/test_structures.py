"""Structure files as people have them: odd names, encodings, and dialects of XYZ."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.structures import read_structures, without
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
    with pytest.raises(MdpotError, match=r"line 3: 'Xx' is a dummy or ghost atom, no element"):
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


CELL = np.array([[3.0, 0, 0], [0.5, 4, 0], [0.25, 0.75, 5]])
NINE = " ".join(map(str, CELL.ravel()))
THREE = "3 4 5"


@pytest.mark.parametrize("columns", ["Properties=species:S:1:pos:R:3", "properties=Species:s:1:Pos:r:3", ""])
@pytest.mark.parametrize("key", ["Lattice", "lattice", "LATTICE", "cell", "Cell", "box", "BOX"])
@pytest.mark.parametrize("numbers", [NINE, THREE])
def test_a_cell_under_any_name(tmp_path: Path, key: str, numbers: str, columns: str) -> None:
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'step=3 {key}="{numbers}" {columns}'))
    np.testing.assert_array_equal(atoms.cell.array, CELL if numbers == NINE else np.diag([3, 4, 5]))
    assert atoms.pbc.all()
    assert atoms.info == {"step": 3}
    assert atoms.positions[1, 0] == 0.96


def test_what_is_no_cell(tmp_path: Path) -> None:
    for comment in (
        "lattice energy of a box, without pbc",
        "cell=primitive box=3",
        'cell="2 2 2" box=12.5 lattice=fcc',
        'cell="0 0 0 0 0 0 0 0 0"',
        "stress of the cell",
    ):
        (atoms,) = read_structures(written(tmp_path / "frames.xyz", comment))
        assert not atoms.cell.array.any(), comment
        assert not atoms.pbc.any(), comment
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'cell="1 2 3" Lattice="{NINE}"'))
    np.testing.assert_array_equal(atoms.cell.array, CELL)
    for other in ('lattice="2.5 2.5 2.5"', "lattice=fcc", 'properties="energy forces"'):
        (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" {other}'))
        np.testing.assert_array_equal(atoms.cell.array, CELL)
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", 'box="3 4 5 90 90 90"'))
    np.testing.assert_allclose(atoms.cell.array, np.diag([3, 4, 5]), atol=1e-12)
    for comment in ('box="3 4"', 'Lattice="3 4 *** 0 0 0 0 0 5"'):
        with pytest.raises(MdpotError, match=r"line 2: (box|Lattice) must be nine numbers, .*; got '"):
            read_structures(written(tmp_path / "frames.xyz", comment))


def test_numbers_beside_symbols_hold(tmp_path: Path) -> None:
    (tmp_path / "z.xyz").write_text("2\nProperties=species:S:1:pos:R:3:Z:I:1\nX 0 0 0 1\nO 0 0 0.96 8\n")
    (atoms,) = read_structures(tmp_path / "z.xyz")
    assert atoms.numbers.tolist() == [1, 8]


@pytest.mark.parametrize("key", ["pbc", "PBC", "Pbc", "periodic"])
@pytest.mark.parametrize(
    "value", ["TTF", '"TTF"', "ttf", "110", '"1.0 1.0 0.0"', '"T T F"', '"1 1 0"', "[T,T,F]", '"true True FALSE"']
)
def test_periodic_in_two_directions(tmp_path: Path, key: str, value: str) -> None:
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" {key}={value}'))
    assert atoms.pbc.tolist() == [True, True, False]


def test_a_pbc_that_is_none(tmp_path: Path) -> None:
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" periodic=F'))
    assert not atoms.pbc.any()
    with pytest.raises(MdpotError, match=r"line 2: pbc must be T or F, or three of them as in .*; got 'slab'"):
        read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" pbc=slab'))


@pytest.mark.parametrize(
    "value",
    [
        '"1 6 5 6 2 4 5 4 3"',
        '"1, 2, 3, 4, 5, 6"',
        '"_JSON [1, 2, 3, 4, 5, 6]"',
        '"_JSON [[1, 6, 5], [6, 2, 4], [5, 4, 3]]"',
        '"[[1, 6, 5], [6, 2, 4], [5, 4, 3]]"',
        "[[1, 6, 5], [6, 2, 4], [5, 4, 3]]",
        "{1.0D0 0.2D+01 3 4 5 6}",
    ],
)
def test_a_stress_in_any_form(tmp_path: Path, value: str) -> None:
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" stress={value} step=3'))
    np.testing.assert_array_equal(atoms.get_stress(), [1, 2, 3, 4, 5, 6])
    assert atoms.info == {"step": 3}


def test_a_stress_that_is_none(tmp_path: Path) -> None:
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" stress="nan nan nan nan nan nan"'))
    assert np.isnan(atoms.get_stress()).all()
    (atoms,) = read_structures(written(tmp_path / "frames.xyz", f'Lattice="{NINE}" stress=None virial=nan'))
    assert atoms.calc is None
    with pytest.raises(MdpotError, match=r"line 2: stress must be six or nine numbers; got '\[1 2 3\]'"):
        read_structures(written(tmp_path / "frames.xyz", 'stress="1 2 3"'))


def test_exponents_of_fortran(tmp_path: Path) -> None:
    path = written(tmp_path / "frames.xyz", "energy=-3.4D-01 name=1D2 run=run-1.5D2")
    path.write_text(path.read_text().replace("0.96", ".96d+00"))
    (atoms,) = read_structures(path)
    assert atoms.get_potential_energy() == -0.34
    assert (atoms.info["name"], atoms.info["run"]) == ("1D2", "run-1.5D2")
    assert atoms.positions[1, 0] == 0.96


@pytest.mark.parametrize("name", ["numbers.xyz", "numbers.extxyz.gz", "numbers"])
def test_atomic_numbers_are_elements(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for comment in ("water", "", "Properties=species:S:1:pos:R:3", "Properties=species:I:1:pos:R:3"):
        path.write_text(f"3\n{comment}\n8 0 0 0\n1 0 0 0.96\n1 0 0.96 0\n")
        (atoms,) = read_structures(path)
        assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    path.write_text("2\nProperties=pos:R:3:species:S:1\n0 0 0 D\n0 0 0.96 8\n")
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_symbols() == ["H", "O"]
    assert atoms.get_masses()[0] == pytest.approx(2.0141, abs=1e-4)


@pytest.mark.parametrize("label", ["OW", "C1", "Fe2+", "@O", "Uue", "119"])
def test_what_is_no_element(tmp_path: Path, label: str) -> None:
    path = written(tmp_path / "frames.xyz", "one")
    path.write_text(path.read_text() + path.read_text().replace("O ", f"{label} "))
    with pytest.raises(MdpotError) as caught:
        read_structures(path)
    assert str(caught.value).startswith(f"{path}, line 8: {label!r} is no element. Write symbols")


@pytest.mark.parametrize("label", ["X", "Gh", "Bq", "0"])
def test_dummy_atoms(tmp_path: Path, label: str) -> None:
    path = written(tmp_path / "frames.xyz", "one")
    path.write_text(path.read_text().replace("O ", f"{label} "))
    with pytest.raises(MdpotError, match=f"line 3: '{label}' is a dummy or ghost atom, no element. Take it out."):
        read_structures(path)


def test_dummy_atoms_of_other_formats(tmp_path: Path) -> None:
    write(tmp_path / "frames.traj", [Atoms("O"), Atoms("HX", [[0, 0, 0], [0, 0, 1]])])
    with pytest.raises(MdpotError, match="frame 1: atom 1 is X, a dummy or ghost atom"):
        read_structures(tmp_path / "frames.traj")


def test_rows_and_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "frames.xyz", "Properties=species:S:1:pos:R:3:charge:R:1")
    with pytest.raises(MdpotError, match=r"line 3: 4 columns, where species:S:1:pos:R:3:charge:R:1 asks for 5"):
        read_structures(path)
    for columns in ("species:S:1:position:R:3", "element:S:1:pos:R:3", "species:S:pos:R:3"):
        with pytest.raises(MdpotError, match=r"line 2: Properties .*; got "):
            read_structures(written(path, f"Properties={columns}"))
    path = written(path, "one")
    path.write_text(path.read_text() + path.read_text().replace("0.96", "*****"))
    with pytest.raises(MdpotError, match=r"the frame of line 6 cannot be read .*\*\*\*\*\*"):
        read_structures(path)
    path.write_text("0\n\n")
    with pytest.raises(MdpotError, match="line 1: a frame must have at least one atom; this one has 0"):
        read_structures(path)


@pytest.mark.parametrize("kind", ["dcd", "xtc"])
def test_trajectories_without_elements(tmp_path: Path, kind: str) -> None:
    app = pytest.importorskip("openmm.app")
    topology = app.Topology()
    topology.addAtom("O", app.Element.getBySymbol("O"), topology.addResidue("O", topology.addChain()))
    path = tmp_path / f"trajectory.{kind}"
    if kind == "dcd":
        with path.open("wb") as file:
            app.DCDFile(file, topology, 0.001).writeModel(np.zeros((1, 3)))
    else:
        app.XTCFile(str(path), topology, 0.001).writeModel(np.zeros((1, 3)), periodicBoxVectors=np.eye(3))
    with pytest.raises(MdpotError, match=f"{kind.upper()}, which holds no elements. Convert it, together with its top"):
        read_structures(path)


@pytest.mark.parametrize(
    ("cell", "periodic"),
    [((1.0, 1.0, 1.0), False), ((0.0, 0.0, 0.0), False), ((9.0, 10.0, 11.0), True), ((1.0, 1.0, 4.0), True)],
)
@pytest.mark.parametrize("name", ["water.pdb", "water.gro"])
def test_formats_that_always_have_a_cell(tmp_path: Path, name: str, cell: tuple, periodic: bool) -> None:
    """PDB files say by a cube of 1 Å that there is none, others by zeros."""
    water = Atoms("OH2", [[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]], cell=[9, 9, 9], pbc=True)
    write(tmp_path / name, water)
    text = (tmp_path / name).read_text()
    form, unit = ("{:9.3f}", 1) if name.endswith("pdb") else ("{:10.5f}", 10)
    old, new = ("".join(form.format(length / unit) for length in lengths) for lengths in ((9, 9, 9), cell))
    assert text.count(old) == 1
    (tmp_path / name).write_text(text.replace(old, new))
    (atoms,) = read_structures(tmp_path / name)
    assert atoms.get_chemical_formula() == "H2O"
    assert atoms.pbc.all() == atoms.pbc.any() == periodic
    np.testing.assert_allclose(atoms.cell.lengths(), cell if periodic else 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["eon", "sys"])
def test_programs_that_know_nothing_but_periodic_cells(tmp_path: Path, kind: str) -> None:
    copper = bulk("Cu", cubic=True)
    write(tmp_path / f"copper.{'con' if kind == 'eon' else 'sys'}", copper, format=kind)
    (path,) = tmp_path.iterdir()
    (atoms,) = read_structures(path)
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.lengths(), 3.61, atol=1e-5)


def test_parts_are_cut_out_of_a_text() -> None:
    """Of an opening in a part nothing begins, and one without an end stays."""
    begin, end = re.compile("^<", re.M), re.compile(">")
    assert without("a\n<b<c\n<d>e<f>\n<g>h\n<i\n<j", begin, end) == "a\ne<f>\nh\n<i\n<j"
    assert without("a>b", begin, end) == "a>b"


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ("Na Na1 0 0 0 0.5\nK K1 0 0 0 0.5\nCl Cl1 0.5 0.5 0.5 1\n", r"0\.5 Na and 0\.5 K"),
        ("Na Na1 0 0 0 1\nCl Cl1 0.5 0.5 0.5 0.75\n", r"0\.75 Cl"),
        ("Na Na1 0 0 0 0.999(2)\nCl Cl1 0.5 0.5 0.5 1.0\n", None),
        ("Na Na1 0 0 0 ?\nCl Cl1 0.5 0.5 0.5 ?\n", None),
    ],
)
def test_sites_of_a_cif_hold_one_atom(tmp_path: Path, sites: str, said: str | None) -> None:
    cell = "".join(f"_cell_length_{axis} 4\n" for axis in "abc")
    cell += "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    columns = ("type_symbol", "label", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "loop_\n" + "".join(f"_atom_site_{column}\n" for column in columns)
    path = tmp_path / "x.cif"
    path.write_text(f"data_x\n{cell}{loop}{sites}", encoding="utf-8")
    if said is None:
        assert [atoms.get_chemical_formula() for atoms in read_structures(path)] == ["ClNa"]
    else:
        with pytest.raises(MdpotError, match=rf"x\.cif: a site is occupied by {said}, not by one atom"):
            read_structures(path)
