"""Outputs of programs and databases: what ASE's readers leave out, units that are not ASE's, steps that failed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr, Hartree, kcal, mol

from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import parse_file, read_file
from mdpot.training.data.readers.gaussian import _twisted
from mdpot.training.data.reading import Reading

from .metals import coppers

NEED = ("energy", "forces")


def bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def assert_right(reading: Reading, frames: list[Atoms], stress: bool = False) -> None:
    assert len(reading.frames) == len(frames)
    for frame, atoms in zip(reading.frames, frames, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        assert frame.forces is not None
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-5)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-5)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-5)
        if stress:
            assert frame.stress is not None
            np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-5)


@pytest.mark.parametrize("name", ["rows.db", "rows.json"])
def test_labels_in_the_pairs_and_the_data_of_a_database(tmp_path: Path, name: str) -> None:
    frames = coppers()
    database = ase.db.connect(tmp_path / name)
    for n, atoms in enumerate(frames):
        data = {"dft_forces": atoms.get_forces()}
        pairs = {"dft_energy": atoms.get_potential_energy(), "config_type": f"run{n}"}
        database.write(bare(atoms), data=data, **pairs)
    reading = read_file(tmp_path / name, need=NEED)
    assert_right(reading, frames)
    assert (reading.keys.energy, reading.keys.forces) == ("dft_energy", "dft_forces")
    assert reading.frames[2].group.startswith("run2")


@pytest.mark.parametrize("units", [None, "kcal/mol"])
def test_units_in_the_metadata_of_schnetpack(tmp_path: Path, units: str | None) -> None:
    """Energies are arrays of one number in `data`; the units of positions and labels are in the metadata."""
    path, frames, factor = tmp_path / "rows.db", coppers(), mol / kcal
    database: Any = ase.db.connect(path)
    if units is None:
        names = {
            "energy_U": "kcal/mol",
            "forces_U": "kcal/mol/Ang",
            "stress_U": "kcal/mol/Ang/Ang/Ang",
            "dipole": "Debye",
        }
        database.metadata = {"_distance_unit": "Ang", "_property_unit_dict": names, "atomrefs": {}}
    for atoms in frames:
        data = {
            "energy_U": np.array([atoms.get_potential_energy()]) * factor,
            "forces_U": atoms.get_forces() * factor,
            "stress_U": atoms.get_stress(voigt=False)[None] * factor,
            "dipole": np.zeros(3),
        }
        database.write(bare(atoms), data=data)
    reading = read_file(path, Asked(units=units), NEED)
    assert_right(reading, frames, stress=True)
    assert reading.units.source == ("given" if units else "stated in the file")


def test_an_unknown_unit_in_metadata_is_named(tmp_path: Path) -> None:
    database: Any = ase.db.connect(tmp_path / "rows.db")
    database.metadata = {"_distance_unit": "Ang", "_property_unit_dict": {"energy": "furlong"}}
    database.write(bare(coppers(1)[0]), data={"energy": np.array([1.0])})
    with pytest.raises(MdpotError, match=r"unit of energy \(energy in its metadata\) 'furlong'"):
        read_file(tmp_path / "rows.db")


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


def outcar(frames: list[Atoms], cycles: list[int], nelm: int = 5) -> str:
    """An OUTCAR of these frames, whose steps took so many electronic cycles; nelm of them failed to converge."""
    text = (
        " vasp.6.4.2 20Jul23\n POTCAR:    PAW_PBE Cu 22Jun2005\n POTCAR:    PAW_PBE Cu 22Jun2005\n"
        "   ions per type =               4\n   k-points           NKPTS =      1   k-points in BZ     NKDIM =   1   "
        "number of bands    NBANDS=     4\n k-points in reciprocal lattice and weights: G\n   0.0 0.0 0.0    1.000\n"
        f"   ISPIN  =      1    spin polarized calculation?\n   NELM   =    {nelm};   NELMIN=  2; NELMDL= -5\n"
    )
    kbar = 0.1 / 160.21766208
    for n, (atoms, count) in enumerate(zip(frames, cycles, strict=True)):
        for cycle in range(count):
            text += f"------- Iteration {n + 1:4d}({cycle + 1:4d})  -------\n"
        said = "because EDIFF is reached" if count < nelm else "EDIFF was not reached (unconverged)"
        text += f"------- aborting loop {said} -------\n"
        xx, yy, zz, yz, xz, xy = -atoms.get_stress() / kbar
        text += f"  in kB {xx:.5f} {yy:.5f} {zz:.5f} {xy:.5f} {yz:.5f} {xz:.5f}\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        for row in atoms.cell.array:
            text += " {:.9f} {:.9f} {:.9f} 0.0 0.0 0.0\n".format(*row)
        text += f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        for row in np.hstack([atoms.positions, atoms.get_forces()]):
            text += (" {:.7f}" * 6 + "\n").format(*row)
        energy = atoms.get_potential_energy()
        text += (
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---------------------------------------------------\n"
            f"  free  energy   TOTEN  =     {energy:.8f} eV\n\n"
            f"  energy  without entropy=    {energy + 0.02:.8f}  energy(sigma->0) =    {energy + 0.01:.8f}\n"
        )
    return text


def test_steps_of_vasp_without_convergence_have_no_labels(tmp_path: Path) -> None:
    """The free energy is taken, the stress turned into eV/Å³, tension positive."""
    frames = coppers(4)
    (tmp_path / "OUTCAR").write_text(outcar(frames, [3, 5, 4, 2]))
    reading = read_file(tmp_path / "OUTCAR", need=NEED)
    assert_right(reading, [frames[0], *frames[2:]], stress=True)
    note = "the electrons did not converge within NELM cycles in 1 of 4 steps, the first of them step 1; their labels"
    assert any(note in said for said in reading.notes)
    assert any(said.startswith("1 of 4 frames are left out") for said in reading.notes)
    (tmp_path / "OUTCAR").write_text(outcar(frames, [3, 4, 4, 2]))
    assert len(read_file(tmp_path / "OUTCAR", need=NEED).frames) == 4


def test_outputs_of_vasp_one_after_the_other(tmp_path: Path) -> None:
    """A restart of the same system is read on; another system would be read as the first."""
    frames = coppers(4)
    first, second = outcar(frames[:2], [3, 3]), outcar(frames[2:], [3, 3])
    (tmp_path / "OUTCAR").write_text(first + second)
    assert_right(read_file(tmp_path / "OUTCAR", need=NEED), frames, stress=True)
    (tmp_path / "OUTCAR").write_text(first + second.replace("PAW_PBE Cu", "PAW_PBE Ag"))
    with pytest.raises(MdpotError, match="outputs of several systems, one after the other"):
        read_file(tmp_path / "OUTCAR")


def learned(atoms: Atoms) -> str:
    """What VASP's machine-learned force field says of a step."""
    text = "  ML FORCE on cell =-STRESS in cart. coord.  units (eV):\n  in kB 9. 9. 9. 9. 9. 9.\n"
    text += "      direct lattice vectors                 reciprocal lattice vectors\n"
    text += "".join(" {:.9f} {:.9f} {:.9f} 0.0 0.0 0.0\n".format(*row) for row in atoms.cell.array)
    text += f" POSITION                                       TOTAL-FORCE (eV/Angst) (ML)\n {'-' * 83}\n"
    text += "".join(" {:.7f} {:.7f} {:.7f} 9. 9. 9.\n".format(*row) for row in atoms.positions)
    return (
        f"{text} {'-' * 83}\n  ML FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 51}\n"
        "  free  energy ML TOTEN  =        -9.00000000 eV\n\n"
        "  ML energy  without entropy=       -9.00000000  ML energy(sigma->0) =       -9.00000000\n\n"
    )


def test_steps_that_vasp_learned_on_the_fly_are_none_of_dft(tmp_path: Path) -> None:
    """Between the steps of DFT, before and behind them, and beside them."""
    frames = coppers(4)
    moved = frames[0].copy()
    moved.rattle(0.1)
    parts = re.split(r"(?=^-+ Iteration +\d+\( +1\))|(?=^ POSITION)", outcar(frames, [3, 5, 4, 2]), flags=re.M)
    (tmp_path / "OUTCAR").write_text(learned(moved).join(parts) + learned(moved))
    reading = read_file(tmp_path / "OUTCAR", need=NEED)
    assert_right(reading, [frames[0], *frames[2:]], stress=True)


def vasprun(frames: list[Atoms], changes: list[float], nelm: int = 3) -> str:
    """A vasprun.xml of these frames: each step took `nelm` cycles, the last of which changed the energy by so much."""

    def rows(array: np.ndarray) -> str:
        return "".join("<v> {:.9f} {:.9f} {:.9f} </v>".format(*row) for row in array)

    def structure(atoms: Atoms) -> str:
        basis = f'<crystal><varray name="basis">{rows(atoms.cell.array)}</varray></crystal>'
        return f'{basis}<varray name="positions">{rows(atoms.get_scaled_positions(wrap=False))}</varray></structure>'

    kpoints = (
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>'
    )
    atoms = "".join("<rc><c>Cu</c><c>1</c></rc>" for _ in frames[0])
    text = (
        f'<?xml version="1.0"?>\n<modeling><kpoints>{kpoints}</kpoints><parameters><i type="int" name="NELM">{nelm}</i>'
        f'<i name="EDIFF"> 0.00001</i></parameters>\n'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>\n'
        f'<structure name="initialpos">{structure(frames[0])}\n'
    )
    for atoms, change in zip(frames, changes, strict=True):
        energy, stress = atoms.get_potential_energy(), -atoms.get_stress(voigt=False) * 1602.1766208
        text += "<calculation>\n"
        for cycle in range(nelm):
            at = energy + change * (nelm - 1 - cycle)
            energies = f'<i name="e_fr_energy"> {at:.9f} </i><i name="e_0_energy"> {at + 0.01:.9f} </i>'
            text += f"<scstep><energy>{energies}</energy></scstep>\n"
        text += (
            f'<structure>{structure(atoms)}<varray name="forces">{rows(atoms.get_forces())}</varray>'
            f'<varray name="stress">{rows(stress)}</varray>'
            f'<energy><i name="e_fr_energy"> {energy:.9f} </i></energy></calculation>\n'
        )
    return text + "</modeling>\n"


def test_vasprun_as_outcar(tmp_path: Path) -> None:
    frames = coppers(3)
    (tmp_path / "vasprun.xml").write_text(vasprun(frames, [1e-7, 1e-2, 1e-8]))
    reading = read_file(tmp_path / "vasprun.xml", need=NEED)
    assert_right(reading, [frames[0], frames[2]], stress=True)
    (tmp_path / "run_vasp.xml.bz2").write_bytes(bz2.compress((tmp_path / "vasprun.xml").read_bytes()))
    assert_right(read_file(tmp_path / "run_vasp.xml.bz2", need=NEED), [frames[0], frames[2]], stress=True)
    assert any("in 1 of 3 steps, the first of them step 1" in said for said in reading.notes)


def installed(name: str) -> str:
    """A file that ASE's own tests read."""
    path = Path(ase.__file__).parent / "test" / "testdata" / name
    if not path.is_file():
        pytest.skip(f"this ASE comes without {name}")
    return path.read_text()


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


def gaussian(orientations: list[str]) -> str:
    """An output of Gaussian with the forces of the input orientation, and a standard one turned by 90 degrees."""
    text = " Entering Gaussian System, Link 0=g16\n"
    atoms = molecule("H2O")
    ruler = " " + "-" * 69 + "\n"
    forces = np.array([[0.0, 0.0, 0.02], [0.0, -0.01, -0.01], [0.0, 0.01, -0.01]])  # along the bonds
    for name in orientations:
        places = atoms.positions if name == "Input" else atoms.positions[:, [2, 0, 1]]
        text += f"{' ' * 25}{name} orientation:\n{ruler} Center\n Number\n{ruler}"
        for n, (z, row) in enumerate(zip(atoms.numbers, places, strict=True)):
            text += f" {n + 1} {z} 0 " + " ".join(f"{x:.6f}" for x in row) + "\n"
        text += ruler
    text += f" SCF Done:  E(RHF) =  -76.0     A.U. after    9 cycles\n{ruler}"
    text += f" Center Atomic Forces (Hartrees/Bohr)\n Number\n{ruler}"
    for n, (z, row) in enumerate(zip(atoms.numbers, forces, strict=True)):
        text += f" {n + 1} {z} " + " ".join(f"{x:.9f}" for x in row) + "\n"
    return text + ruler


def test_the_electrons_of_gaussian(tmp_path: Path) -> None:
    """Those of each job, and of the whole where the layers of ONIOM or fragments have their own."""
    first, archive = (
        gaussian(["Input"]),
        " 1\\1\\GINC-NODE\\SP\\RHF\\STO-3G\\H2O1\\USER\n Normal termination of Gaussian 16\n",
    )
    said = " Charge =  1 Multiplicity = 2 for low   level calculation on real  system.\n Charge = -2 Multiplicity = 3\n"
    whole = first.replace("g16\n", f"g16\n{said}")
    anion = first.replace("g16\n", "g16\n Charge = -1 Multiplicity = 2\n")
    (tmp_path / "a.log").write_text(whole + archive + first + archive + anion + archive)
    frames = read_file(tmp_path / "a.log").frames
    assert [frame.electrons for frame in frames] == [Electrons(1, 1), Electrons(1, 1), Electrons(-1, 1)]
    (tmp_path / "a.log").write_text(first)
    assert read_file(tmp_path / "a.log").frames[0].electrons == NOTHING_SAID


ORCA = """
                                 *****************
                                 * O   R   C   A *
                                 *****************
Number of atoms                             ...      3
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.119262
  H      0.000000    0.763239   -0.477047
  H      0.000000   -0.763239   -0.477047

 Total Charge           Charge          ....   {charge}
 Multiplicity           Mult            ....    {multiplicity}
 Number of Electrons    NEL             ....    9
FINAL SINGLE POINT ENERGY       -75.900000000000
------------------
CARTESIAN GRADIENT
------------------

   1   O   :   -0.000000000    0.000000000    0.020000000
   2   H   :   -0.000000000   -0.010000000   -0.010000000
   3   H   :   -0.000000000    0.010000000   -0.010000000
                             ****ORCA TERMINATED NORMALLY****
"""


def test_the_electrons_of_orca(tmp_path: Path) -> None:
    one = ORCA.format(charge=1, multiplicity=2)
    (tmp_path / "a.out").write_text(one + one)
    assert [frame.electrons for frame in read_file(tmp_path / "a.out").frames] == 2 * [Electrons(1, 1)]
    (tmp_path / "a.out").write_text(one + ORCA.format(charge=-1, multiplicity=2))
    assert read_file(tmp_path / "a.out").frames[0].electrons == Electrons(None, 1)


@pytest.mark.parametrize("orientations", [["Input"], ["Input", "Standard"]])
def test_gaussian(tmp_path: Path, orientations: list[str]) -> None:
    (tmp_path / "a.log").write_text(gaussian(orientations))
    (frame,) = read_file(tmp_path / "a.log", need=NEED).frames
    assert frame.energy == pytest.approx(-76 * Hartree)
    np.testing.assert_allclose(frame.positions, molecule("H2O").positions, atol=1e-6)
    assert frame.forces is not None
    assert frame.forces[0, 2] == pytest.approx(0.02 * Hartree / Bohr)


def test_all_jobs_of_gaussian_are_read(tmp_path: Path) -> None:
    """As of files that were joined, and of --Link1--."""
    archive = " 1\\1\\GINC-NODE\\SP\\RHF\\STO-3G\\H2O1\\USER\n Normal termination of Gaussian 16\n"
    second = gaussian(["Input"]).replace("-76.0", "-76.1")
    (tmp_path / "a.log").write_text(gaussian(["Input"]) + archive + second + archive)
    energies = [frame.energy for frame in read_file(tmp_path / "a.log", need=NEED).frames]
    assert energies == pytest.approx([-76.0 * Hartree, -76.1 * Hartree])


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


def test_gaussian_without_the_positions_of_its_forces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(gaussian(["Standard"]))
    with pytest.raises(MdpotError, match=r"they do not belong together\. Run Gaussian with nosymm"):
        read_file(tmp_path / "a.log")


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


def test_all_molecules_of_sdf(tmp_path: Path) -> None:
    molecule = (
        "x\n  x\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0000    0.0000    {}.0000 O   0  0\nM  END\n$$$$\n"
    )
    (tmp_path / "a.sdf").write_text("".join(molecule.format(n) for n in range(3)))
    structures = parse_file(tmp_path / "a.sdf", Asked(), False).frames
    assert [frame.positions[0, 2] for frame in structures] == [0, 1, 2]


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


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run1.out", b" vasp.6.4.2 20Jul23\n", "ASE tells it by the name: rename it, e.g. OUTCAR"),
        ("rows.sqlite", b"SQLite format 3\0", "rename it, e.g. frames.db"),
        ("OUTCAR.xz", lzma.compress(b" vasp.6.4.2 20Jul23\n"), "unpack it, or pack it by gzip"),
        ("run1.xml", b'<?xml version="1.0"?>\n<modeling>\n', "rename it, e.g. run1_vasprun.xml"),
        ("coord.npy", b"\x93NUMPY\x01\x00", "give the folder of a system of DeePMD-kit"),
        ("vaspout.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "VASP's own HDF5, which is not read: give the vasprun.xml"),
        ("rows.parquet", b"PAR1" + bytes(99), "a table in Parquet"),
        ("frames.pckl", b"\x80\x05\x95" + bytes(99), "a pickle, which is not read"),
        ("frames.pt", b"PK\x03\x04" + bytes(26) + b"frames/data.pkl" + bytes(99), "a pickle, which is not read"),
        ("train.cfg", b"BEGIN_CFG\n Size\n    2\n", "an MTP file, whose atom types are numbers.*Write type_map.raw"),
        ("job.out", b" DBCSR| CPU\n CP2K| version string\n", "an output of CP2K: ASE does not read"),
        ("a.engrad", b"#\n# Number of atoms\n#\n 3\n#\n# The current total energy in Eh\n#\n", "give ORCA's output"),
        ("FORCE_SETS", b"8\n1\n\n1\n 0.01 0 0\n 0 0 0\n", "phonopy's forces without their structures"),
        (
            "phonopy_params.yaml",
            b"phonopy:\n  version: 2.20\n",
            "phonopy's displaced structures without their energies",
        ),
        ("run.out", b"Siesta Version  : 4.1.5\n", "an output of SIESTA: ASE does not read"),
        (
            "unknown.out",
            b"Total energy: -4.07 H\n",
            "no frame that ASE can read as espresso-out, which it takes it for",
        ),
        ("a.out", ORCA.encode("utf-16"), "text in UTF-16, as PowerShell writes it"),
        ("a.tar", tarred("a.xyz", b"1\n\nH 0 0 0\n"), "an archive of several files: unpack it"),
        ("a.tgz", gzip.compress(tarred("a.xyz", b"1\n\nH 0 0 0\n")), "an archive of several files: unpack it"),
        ("a.zip", zipped("a.xyz", b"1\n\nH 0 0 0\n"), "an archive of several files: unpack it"),
        ("data.lmdb", bytes(16) + b"\xde\xc0\xef\xbe" + bytes(4000), "a database in LMDB"),
        ("a.xyz.zst", b"\x28\xb5\x2f\xfd" + bytes(50), "packed by Zstandard"),
        ("mptrj.json", b'{"mp-1": {"0": {"structure": {"@module": "pymatgen.core.structure"', "structures of pymatgen"),
    ],
)
def test_what_is_not_read_says_what_it_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MdpotError, match=said) as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["force_constants_train.extxyz", "force_sets.xyz"])
def test_names_and_comments_that_only_sound_foreign(tmp_path: Path, name: str) -> None:
    atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)) + 0.1)
    atoms.info["comment"] = "computed by CP2K| 2023.1"
    write(tmp_path / name, [atoms, atoms], format="extxyz")
    assert len(read_file(tmp_path / name).frames) == 2


def test_a_molecule_at_rest_turns_nowhere() -> None:
    """Without a warning of numpy, of a median of nothing."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.full((len(atoms), 3), 1e-4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _twisted([atoms])
