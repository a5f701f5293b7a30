"""CSV tables of structures: names of files with and without endings, tables without titles, CIFs in a column."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mdpot import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file

CRYSTALS = [bulk("Si"), bulk("NaCl", "rocksalt", 5.64), bulk("Mo", cubic=True)]
FORMULAS = ["Si2", "NaCl", "Mo2"]
DISORDERED = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_type_symbol
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


def found(path: Path) -> list[tuple[str, dict[str, float]]]:
    """Formula and properties of each row."""
    return [(str(Atoms(f.numbers).symbols), f.properties) for f in read_file(path).frames]


def put(path: Path, rows: Sequence[Sequence[object]], separator: str = ",") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, atoms in enumerate(CRYSTALS):
        write(tmp_path / f"{n}.cif", atoms)
    return tmp_path


def as_cif(atoms: Atoms, folder: Path) -> str:
    write(folder / "one.cif", atoms)
    text = (folder / "one.cif").read_text(encoding="utf-8")
    (folder / "one.cif").unlink()
    return text


def test_the_folder_of_cgcnn(folder: Path) -> None:
    put(folder / "id_prop.csv", [["1", 8.5], ["0", 1.1], ["2", 0]])
    expected = [("NaCl", {"y": 8.5}), ("Si2", {"y": 1.1}), ("Mo2", {"y": 0.0})]
    assert found(folder) == found(folder / "id_prop.csv") == expected
    assert inspect_file(folder, Asked())["properties"] == {"y": [0.0, 8.5]}


def test_the_first_row_of_a_table_without_titles_is_a_structure(folder: Path) -> None:
    put(folder / "full.csv", [[f"{n}.cif", n, -n] for n in range(3)])
    expected = [(name, {"y0": float(n), "y1": -float(n)}) for n, name in enumerate(FORMULAS)]
    assert found(folder / "full.csv") == expected
    put(folder / "gone.csv", [["9", 1.0], ["0", 2.0]])
    with pytest.raises(MdpotError, match=r"row 0: no file of a structure has the name '9'"):
        read_file(folder / "gone.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_names_without_endings_in_a_folder_beside_the_table(tmp_path: Path, separator: str) -> None:
    (tmp_path / "structures").mkdir()
    for n, atoms in enumerate(CRYSTALS):
        write(tmp_path / "structures" / f"mp-{n}.vasp", atoms, format="vasp")
    rows = [["gap", "material_id"], *[[float(n), f"mp-{n}"] for n in range(3)]]
    path = put(tmp_path / "t.csv", rows, separator)
    assert found(path) == [(name, {"gap": float(n)}) for n, name in enumerate(FORMULAS)]
    (tmp_path / "older").mkdir()
    write(tmp_path / "older" / "mp-1.vasp", CRYSTALS[0], format="vasp")
    with pytest.raises(MdpotError, match=r"row 1: 'mp-1' may be .*older.* or .*structures"):
        read_file(path)
    with pytest.raises(MdpotError, match=r"or a file, such as the table t\.csv"):
        read_file(tmp_path)


def test_classes_and_counts_of_rows_are_no_names(folder: Path) -> None:
    rows = [["metal", "id"], [1, "2"], [1, "0"], [0, "1"]]
    assert [name for name, _ in found(put(folder / "t.csv", rows))] == ["Mo2", "Si2", "NaCl"]
    # pandas counts the rows in a column without a title.
    rows = [["", "file", "gap"], [0, "2.cif", 1.0], [1, "1.cif", 2.0], [2, "0.cif", 3.0]]
    assert [name for name, _ in found(put(folder / "t.csv", rows))] == ["Mo2", "NaCl", "Si2"]


def test_cifs_in_a_column(folder: Path) -> None:
    rows = [["", "cif", "gap"], *[[n, as_cif(a, folder), n / 2] for n, a in enumerate(reversed(CRYSTALS))]]
    assert found(put(folder / "t.csv", rows)) == [(name, {"gap": n / 2}) for n, name in enumerate(reversed(FORMULAS))]
    rows[2][1] = DISORDERED + "Na Na1 0 0 0 0.5\nK K1 0 0 0 0.5\n"
    with pytest.raises(MdpotError, match=r"row 1: a site is occupied by 0\.5 Na and 0\.5 K"):
        read_file(put(folder / "t.csv", rows))
    rows[2][1] = "_cell_length_a of what is none"
    with pytest.raises(MdpotError, match="row 1: no CIF that ASE reads"):
        read_file(put(folder / "t.csv", rows))


@pytest.mark.parametrize("titles", [[], [["file", "gap", "energy, eV"]]])
@pytest.mark.parametrize("number", ["1,5", "-0,25", ",5", "1,5e-3", "1,234", "1.234,5", "1,234.5"])
def test_numbers_with_commas_are_refused(folder: Path, titles: list[list[str]], number: str) -> None:
    """A decimal comma would make them absent, and nothing says whether it is one."""
    path = put(folder / "t.csv", [*titles, ["0.cif", "2", "3"], ["1.cif", "1", number], ["2.cif", "", "4"]], ";")
    with pytest.raises(MdpotError, match=f"row 1: '{number}' has a comma.*Write points"):
        read_file(path)
    path.write_text(path.read_text(encoding="utf-8").replace(number, "7, or 8"), encoding="utf-8")
    assert [len(properties) for _, properties in found(path)] == [2, 1, 1]


def test_a_gap_in_the_first_row_makes_it_no_titles(folder: Path) -> None:
    path = put(folder / "t.csv", [["0.cif", "", 1.5], ["1.cif", 2, 3]])
    assert found(path) == [("Si2", {"y1": 1.5}), ("NaCl", {"y0": 2.0, "y1": 3.0})]
    with pytest.raises(MdpotError, match=r"row 0: no file of a structure has the name '9\.cif'"):
        read_file(put(folder / "t.csv", [["9.cif", "", 1.5], ["1.cif", 2, 3]]))


def test_rows_longer_than_the_first_are_refused(folder: Path) -> None:
    put(folder / "t.csv", [["file", "gap"], ["0.cif", 1.0, ""], ["1.cif", "1", "5"]])
    with pytest.raises(MdpotError, match="line 3 of its table has 3 fields, but the first has 2"):
        read_file(folder / "t.csv")
