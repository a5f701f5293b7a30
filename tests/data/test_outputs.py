"""Outputs in units that are not ASE's, and calculations that broke off: aenet, Qbox, LAMMPS, CASTEP, and others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.units import Bohr, Hartree, kcal, mol

from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import parse_file, read_file

from .metals import coppers
from .outputs import NEED, assert_right, installed


def write_xsf(path: Path, atoms: Atoms, first: str, forces: np.ndarray) -> None:
    lines = [first, "CRYSTAL", "PRIMVEC", *(" ".join(map(str, row)) for row in atoms.cell.array.tolist())]
    lines += ["PRIMCOORD", f"{len(atoms)} 1"]
    for symbol, row in zip(atoms.symbols, np.hstack([atoms.positions, forces]).tolist(), strict=True):
        lines.append(" ".join([symbol, *map(str, row)]))
    path.write_text("\n".join(lines) + "\n")


def test_xsf_of_aenet_and_of_xcrysden(tmp_path: Path) -> None:
    """aenet's forces are in eV/Å and its energy is in a comment; XCrySDen's are in Hartree/Å."""
    (atoms,) = coppers(1)
    energy = atoms.get_potential_energy()
    write_xsf(tmp_path / "a.xsf", atoms, f"# total energy = {energy:.10f} eV\n", atoms.get_forces())
    assert_right(read_file(tmp_path / "a.xsf", need=NEED), [atoms])
    write_xsf(tmp_path / "b.xsf", atoms, "# made by hand", atoms.get_forces() / Hartree)
    (frame,) = read_file(tmp_path / "b.xsf").frames
    assert frame.energy is None
    assert frame.forces is not None
    np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-9)


QBOX = """<?xml version="1.0" encoding="UTF-8"?>
<fpmd:simulation xmlns:fpmd="http://www.quantum-simulation.org/ns/fpmd/fpmd-1.0">
<release> 1.63.0 </release>
<species name="copper">
<symbol>Cu</symbol>
<atomic_number>29</atomic_number>
<mass>63.5</mass>
</species>
<cmd>run 0 10</cmd>
{frames}
</fpmd:simulation>
"""


def test_qbox_is_in_atomic_units(tmp_path: Path) -> None:
    frames = coppers()
    blocks = []
    for atoms in frames:
        a, b, c = (" ".join(map(str, row)) for row in (atoms.cell.array / Bohr).tolist())
        atom = (
            '<atom name="A" species="copper">\n<position> {} </position>\n<velocity> 0 0 0 </velocity>\n'
            "<force> {} </force>\n</atom>\n"
        )
        rows = zip((atoms.positions / Bohr).tolist(), (atoms.get_forces() / Hartree * Bohr).tolist(), strict=True)
        blocks.append(
            f'<iteration count="1">\n<etotal> {atoms.get_potential_energy() / Hartree} </etotal>\n<atomset>\n'
            f'<unit_cell\n a="{a}"\n b="{b}"\n c="{c}" />\n'
            + "".join(atom.format(*(" ".join(map(str, row)) for row in pair)) for pair in rows)
            + "</atomset>\n</iteration>\n"
        )
    (tmp_path / "run.xml").write_text(QBOX.format(frames="".join(blocks)))
    assert_right(read_file(tmp_path / "run.xml", need=NEED), frames)


def test_dl_poly_forces(tmp_path: Path) -> None:
    """DL_POLY's unit of force is Da Å/ps², of which eV/Å has 9649."""
    lines = ["water", " 2 1 3", "10 0 0", "0 10 0", "0 0 10"]
    for n, (symbol, place) in enumerate([("O", "0 0 0"), ("H", "0.96 0 0"), ("H", "-0.24 0.93 0")]):
        lines += [f"{symbol} {n + 1}", place, "0 0 0", f"{9648.5332 * (n - 1)} 0 0"]
    (tmp_path / "CONFIG").write_text("\n".join(lines) + "\n")
    (frame,) = read_file(tmp_path / "CONFIG").frames
    assert frame.forces is not None
    np.testing.assert_allclose(frame.forces[:, 0], [-1, 0, 1], rtol=1e-5)


def dump(units: str) -> str:
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10\n"
    atoms = "ITEM: ATOMS id element x y z fx fy fz\n2 H 1.1 1 1 -5 0 0\n1 O 0.1 1 1 5 0 0\n"
    return (f"ITEM: UNITS\n{units}\n" if units else "") + head + atoms + head.replace("\n0\n", "\n10\n", 1) + atoms


@pytest.mark.parametrize(
    ("units", "length", "force"),
    [("", 1, 1), ("metal", 1, 1), ("real", 1, kcal / mol), ("electron", Bohr, Hartree / Bohr)],
)
def test_a_dump_states_its_units(tmp_path: Path, units: str, length: float, force: float) -> None:
    (tmp_path / "a.dump").write_text(dump(units))
    reading = read_file(tmp_path / "a.dump")
    assert len(reading.frames) == 2
    for frame in reading.frames:
        assert frame.energy is None
        assert frame.forces is not None
        assert frame.numbers.tolist() == [8, 1]
        np.testing.assert_allclose(frame.forces[:, 0], [5 * force, -5 * force], rtol=1e-6)
        np.testing.assert_allclose(frame.positions[:, 0], [0.1 * length, 1.1 * length], rtol=1e-6)


def test_a_dump_in_other_units_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dump").write_text(dump("lj"))
    with pytest.raises(MdpotError, match=r"unknown units of a LAMMPS dump 'lj'.*Known: electron, metal, real"):
        read_file(tmp_path / "a.dump")


def test_a_run_of_fhi_aims_that_broke_off(tmp_path: Path) -> None:
    """Of the step that is cut off, ASE takes the energy per atom, or in Hartree, for its energy in eV."""
    text = "\n          Invoking FHI-aims ...\n" + installed("aims/md.out")
    (tmp_path / "whole.out").write_text(text)
    whole = [frame.energy for frame in read_file(tmp_path / "whole.out", need=NEED).frames]
    assert len(whole) == 5
    ends = [end.start() for end in re.finditer("Total energy (?:un)?corrected|Total energy   ", text)]
    for end in ends[-3:]:
        (tmp_path / "cut.out").write_text(text[: end + 60])
        reading = read_file(tmp_path / "cut.out", need=NEED)
        assert 1 < len(reading.frames) < 5
        assert [frame.energy for frame in reading.frames] == pytest.approx(whole[: len(reading.frames)])
        assert "the calculation did not come to its end: the step it broke off in is left out." in reading.notes
    (tmp_path / "cut.out").write_text(text[:3000])
    with pytest.raises(MdpotError, match=r"cut\.out: "):
        read_file(tmp_path / "cut.out")


@pytest.mark.parametrize(("name", "kind"), [("a.md", "castep-md"), ("a.geom", "castep-geom")])
def test_trajectories_of_castep_are_none_of_runner(tmp_path: Path, name: str, kind: str) -> None:
    """Both begin with the word "begin"."""
    frames = coppers(3)
    for atoms in frames:
        assert atoms.calc is not None
        atoms.calc.results["free_energy"] = atoms.get_potential_energy()
    write(tmp_path / name, frames, format=kind)
    assert_right(read_file(tmp_path / name, need=NEED), frames, stress=True)


def test_castep_says_where_it_did_not_converge(tmp_path: Path) -> None:
    text = installed("castep/md.castep")
    (tmp_path / "md.castep").write_text(text)
    assert not any("did not converge" in note for note in read_file(tmp_path / "md.castep").notes)
    warning = "*Warning* max. SCF cycles performed but system has not reached the groundstate.\n"
    (tmp_path / "md.castep").write_text(text + warning)
    assert any(note.startswith("1 times the electrons did not") for note in read_file(tmp_path / "md.castep").notes)


@pytest.mark.parametrize(
    ("own", "other"), [("     {}\n", "eV Ha"), ("({})", "eV/A Ha/B"), ("({})", "GPa kbar"), ("Real Lattice({})", "A B")]
)
def test_castep_in_other_units_is_refused(tmp_path: Path, own: str, other: str) -> None:
    text = installed("castep/md.castep")
    before, after = (own.format(unit) for unit in other.split())
    assert before in text
    (tmp_path / "md.castep").write_text(text.replace(before, after))
    with pytest.raises(MdpotError, match=f"it is in {other.split()[1]}, and ASE takes it to be in A, GPa, eV, eV/A"):
        read_file(tmp_path / "md.castep")


GPAW = """
  ___ ___ ___ _ _ _
 |   |   |_  | | | |
 | | | | | . | | | |
 |__ |  _|___|_____|  22.8.0
 |___|_|

Positions:
   0 Cu     0.000000    0.000000    0.000000    ( 0.0000,  0.0000,  0.0000)
   1 Cu     1.700000    1.800000    0.100000    ( 0.0000,  0.0000,  0.0000)

Unit cell:
           periodic     x           y           z      points  spacing
  1. axis:    yes    3.600000    0.000000    0.000000    20     0.1800
  2. axis:    yes    0.000000    3.600000    0.000000    20     0.1800
  3. axis:    yes    0.000000    0.000000    3.600000    20     0.1800

Energy contributions relative to reference atoms: (reference = -90000.0)

Kinetic:        +10.000000
--------------------------
Free energy:     -6.740000
Extrapolated:    -6.700000

Forces in eV/Ang:
  0 Cu    0.10000    0.20000    0.30000
  1 Cu   -0.10000   -0.20000   -0.30000
"""


def test_the_free_energy_of_gpaw_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(GPAW)
    reading = read_file(tmp_path / "a.txt", need=NEED)
    assert reading.frames[0].energy == pytest.approx(-6.74)
    assert any("free_energy is taken" in note for note in reading.notes)


def test_all_molecules_of_sdf(tmp_path: Path) -> None:
    molecule = (
        "x\n  x\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    {}.0000 O   0  0\nM  END\n$$$$\n"
    )
    (tmp_path / "a.sdf").write_text("".join(molecule.format(n) for n in range(3)))
    structures = parse_file(tmp_path / "a.sdf", Asked(), False).frames
    assert [frame.positions[0, 2] for frame in structures] == [0, 1, 2]
