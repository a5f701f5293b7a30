"""Dumps and data files of LAMMPS: elements, units, and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.structures import read_structures

DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id {columns} x y z
1 {oxygen} 1 1 1
2 {hydrogen} 1.96 1 1
3 {hydrogen} 0.76 1.93 1
"""


@pytest.mark.parametrize(
    ("columns", "oxygen", "hydrogen"),
    [("type element", "1 O", "2 H"), ("element", "O", "H"), ("mass", "15.999", "1.008")],
)
@pytest.mark.parametrize("name", ["frames.lammpstrj", "frames.dump"])
def test_a_dump_of_lammps(tmp_path: Path, columns: str, oxygen: str, hydrogen: str, name: str) -> None:
    text = DUMP.format(columns=columns, oxygen=oxygen, hydrogen=hydrogen)
    (tmp_path / name).write_text(text * 2)
    structures = read_structures(tmp_path / name)
    assert [atoms.get_chemical_formula() for atoms in structures] == ["H2O"] * 2
    assert structures[0].pbc.all()


def test_atom_types_of_lammps_are_no_elements(tmp_path: Path) -> None:
    dump = tmp_path / "frames.lammpstrj"
    dump.write_text(DUMP.format(columns="type", oxygen="1", hydrogen="2"))
    with pytest.raises(MdpotError, match=r"frames\.lammpstrj: atom types are numbers, not elements; add an element"):
        read_structures(dump)
    xyz = tmp_path / "dump.xyz"
    xyz.write_text("3\nAtoms. Timestep: 0\n1 0 0 0\n2 0 0 0.96\n2 0 0.96 0\n")
    with pytest.raises(MdpotError, match=r"dump\.xyz, line 3: atom types are numbers, not elements"):
        read_structures(xyz)


@pytest.mark.parametrize("name", ["water.lammps-data", "water.data", "data.water"])
def test_the_data_file_of_lammps(tmp_path: Path, name: str) -> None:
    water = Atoms("OH2", [[1, 1, 1], [1.96, 1, 1], [0.76, 1.93, 1]], cell=[9, 9, 9], pbc=True)
    path = tmp_path / name
    write(path, water, format="lammps-data", masses=True)
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_formula() == "H2O"
    write(path, water, format="lammps-data")
    with pytest.raises(MdpotError, match="atom types are numbers, not elements, and no masses say which"):
        read_structures(path)


@pytest.mark.parametrize("units", ["metal", "electron"])
def test_the_units_of_a_data_file_of_lammps(tmp_path: Path, units: str) -> None:
    path = tmp_path / "water.data"
    write(path, Atoms("H2", [[1, 1, 1], [1.7, 1, 1]], cell=[9, 9, 9], pbc=True), format="lammps-data", masses=True)
    rest = path.read_text().split("\n", 1)[1]
    path.write_text(f"LAMMPS data file via write_data, version 2 Aug 2023, timestep = 0, units = {units}\n{rest}")
    if units == "metal":
        assert read_structures(path)[0].get_distance(0, 1) == pytest.approx(0.7, abs=1e-6)
        return
    with pytest.raises(MdpotError, match=r"says that its units are electron.*write it in units metal or real"):
        read_structures(path)
