"""Outputs of several jobs or stages: the energy, the forces and the positions of a frame are of one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.espresso import units
from ase.units import Bohr, Hartree

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

from .metals import coppers
from .outputs import ORCA, assert_right, gaussian, installed

NEED = ("energy", "forces")
RY, BOHR = units["Ry"], units["Bohr"]


def rows(values: np.ndarray, before: str = "") -> str:
    return "".join(before + " ".join(f"{x:.9f}" for x in row) + "\n" for row in values)


def pwscf(frames: list[Atoms], energies: list[str]) -> str:
    """An output of pw.x for copper, with what it prints of the energy in each step."""
    alat = 4.0 / BOHR
    text = (
        "     Program PWSCF v.7.2 starts on 13Jul2023 at 12:35:46\n\n"
        f"     number of atoms/cell      = {len(frames[0])}\n     number of atomic types    = 1\n"
        f"     celldm(1)=   {alat:.6f}  celldm(2)=   0.000000\n     crystal axes: (cart. coord. in units of alat)\n"
    )
    text += "".join(
        f"  a({k}) = ( {' '.join(f'{x:.9f}' for x in row / 4)} )\n" for k, row in enumerate(frames[0].cell.array)
    )
    text += "   site n.     atom                  positions (alat units)\n"
    for k, row in enumerate(frames[0].positions / 4):
        text += f"  {k + 1}  Cu  tau(   {k + 1}) = ( {' '.join(f'{x:.9f}' for x in row)} )\n"
    for atoms, energy in zip(frames, energies, strict=True):
        if atoms is not frames[0]:
            text += f"CELL_PARAMETERS (angstrom)\n{rows(atoms.cell.array)}\nATOMIC_POSITIONS (angstrom)\n"
            text += rows(atoms.positions, "Cu ")
        stress = -atoms.get_stress(voigt=False) * BOHR**3 / RY
        text += f"{energy}     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        text += rows(atoms.get_forces() * BOHR / RY, "     atom    1 type  1   force = ")
        text += f"     total   stress  (Ry/bohr**3)                   (kbar)     P=  1.0\n{rows(stress)}"
    return text + "   JOB DONE.\n"


def of(atoms: Atoms, off: float = 0.0, mark: str = "!    ") -> str:
    return f"{mark}total energy              = {atoms.get_potential_energy() / RY + off:.9f} Ry\n"


def test_quantum_espresso_with_exact_exchange(tmp_path: Path) -> None:
    """Before it there is an energy without exact exchange, and one that has not converged."""
    frames = coppers(4)
    back = "     EXX: now go back to refine exchange calculation\n"
    energies = [of(a, 0.3) + back + of(a, 0.1) + of(a, 0.1, "     ") + back + of(a) + of(a, 0, "!!   ") for a in frames]
    energies[2] = of(frames[2], 0.3) + back
    (tmp_path / "pw.out").write_text(pwscf(frames, energies))
    reading = read_file(tmp_path / "pw.out", need=NEED)
    assert_right(reading, [frames[0], frames[1], frames[3]], stress=True)
    assert any("electron_maxstep cycles in 1 of 4 steps, the first of them step 2" in note for note in reading.notes)


def test_asterisks_for_an_energy_are_refused(tmp_path: Path) -> None:
    frames = coppers(1)
    (tmp_path / "pw.out").write_text(pwscf(frames, [of(frames[0]) + "!!   total energy              = ******** Ry\n"]))
    with pytest.raises(MdpotError, match=r"cannot be read \(ValueError: could not convert string to float"):
        read_file(tmp_path / "pw.out")


def test_quantum_espresso_that_did_not_converge(tmp_path: Path) -> None:
    """Its forces are none, either."""
    frames = coppers(3)
    energies = [of(frames[0]), "     convergence NOT achieved after   9 iterations: stopping\n", of(frames[2])]
    (tmp_path / "pw.out").write_text(pwscf(frames, energies))
    assert_right(read_file(tmp_path / "pw.out", need=("forces",)), [frames[0], frames[2]], stress=True)


def test_castep_with_a_correction_for_dispersion(tmp_path: Path) -> None:
    text = installed("castep/md.castep")
    (tmp_path / "md.castep").write_text(text)
    before = [frame.energy for frame in read_file(tmp_path / "md.castep", need=NEED).frames]
    assert len(set(before)) == 3
    corrected = ""
    for line in text.splitlines(keepends=True):
        corrected += line
        if line.startswith("NB est. 0K energy"):
            energy = float(line.split()[-2])
            corrected += (
                f"Dispersion corrected final energy*, Ecor          =  {energy - 50.5}     eV\n"
                f"Dispersion corrected final free energy* (Ecor-TS) =  {energy - 50.75}    eV\n"
                f"NB dispersion corrected est. 0K energy* (Ecor-0.5TS) =  {energy - 50.625}     eV\n"
            )
    (tmp_path / "md.castep").write_text(corrected)
    after = [frame.energy for frame in read_file(tmp_path / "md.castep", need=NEED).frames]
    assert after == pytest.approx([energy - 50.75 for energy in before if energy is not None], abs=1e-6)


@pytest.mark.parametrize("method", ["TD-HF/TD-DFT", "TD-HF/TD-KS", "CIS/TDA"])
def test_gaussian_in_an_excited_state(tmp_path: Path, method: str) -> None:
    """Its forces are those of that state; without forces, the energy is that of the ground state."""
    ground = gaussian(["Input"])
    text = ground.replace("9 cycles\n", f"9 cycles\n Total Energy, E({method}) =  -75.5\n")
    (tmp_path / "a.log").write_text(text)
    (frame,) = read_file(tmp_path / "a.log", need=NEED).frames
    assert frame.energy == pytest.approx(-75.5 * Hartree)
    (tmp_path / "a.log").write_text(text.replace("Forces (Hartrees/Bohr)", "Charges"))
    assert read_file(tmp_path / "a.log").frames[0].energy == pytest.approx(-76 * Hartree)


@pytest.mark.parametrize("excited", [0, 1])
def test_the_state_of_each_job_of_gaussian(tmp_path: Path, excited: int) -> None:
    """Of one with forces that of the forces, whatever the other is."""
    jobs = [gaussian(["Input"])] * 2
    jobs[excited] = jobs[0].replace("9 cycles\n", "9 cycles\n Total Energy, E(TD-HF/TD-DFT) =  -75.5\n")
    alone = [job.replace("Forces (Hartrees/Bohr)", "Charges") if n == excited else job for n, job in enumerate(jobs)]
    archive = " 1\\1\\GINC-NODE\\SP\\RHF\\STO-3G\\H2O1\\USER\n Normal termination of Gaussian 16\n"
    for texts, energy in ((jobs, -75.5), (alone, -76.0)):
        (tmp_path / "a.log").write_text("".join(text + archive for text in texts))
        energies = [-76.0 * Hartree] * 2
        energies[excited] = energy * Hartree
        assert [frame.energy for frame in read_file(tmp_path / "a.log").frames] == pytest.approx(energies)


@pytest.mark.parametrize("of", ["Forces (Hartrees/Bohr)", "Charges"])
@pytest.mark.parametrize("mark", ["ONIOM: extrapolated energy =", "Counterpoise corrected energy ="])
def test_energies_of_several_parts_are_refused(tmp_path: Path, mark: str, of: str) -> None:
    (tmp_path / "a.log").write_text(gaussian(["Input"]).replace("Forces (Hartrees/Bohr)", of) + f" {mark} -155.1\n")
    with pytest.raises(MdpotError, match="energies of several parts of the system"):
        read_file(tmp_path / "a.log")


@pytest.mark.parametrize("between", ["$$$$$$$$  JOB NUMBER  2 $$$$$$$$", "* Multiple XYZ Scan Step 2 *"])
def test_all_jobs_of_orca_are_read(tmp_path: Path, between: str) -> None:
    one = ORCA.format(charge=0, multiplicity=1)
    other = one.replace("0.119262", "0.125000").replace("0.020000", "0.040000").replace("-75.9", "-75.8")
    (tmp_path / "a.out").write_text(one.replace("****ORCA TERMINATED NORMALLY****", between) + other)
    first, second = read_file(tmp_path / "a.out", need=NEED).frames
    assert first.positions[0, 2] == pytest.approx(0.119262)
    assert second.positions[0, 2] == pytest.approx(0.125)
    assert [first.energy, second.energy] == pytest.approx([-75.9 * Hartree, -75.8 * Hartree])
    for frame, gradient in ((first, 0.02), (second, 0.04)):
        assert frame.forces is not None
        assert frame.forces[0, 2] == pytest.approx(-gradient * Hartree / Bohr)


@pytest.mark.parametrize("second", ["! TightSCF HF def2-SVP EnGrad MOREAD", "! TightSCF MP2 def2-SVP"])
def test_jobs_of_orca_at_several_levels_are_noted(tmp_path: Path, second: str) -> None:
    """What is computed and where it begins are no level."""
    one = ORCA.format(charge=0, multiplicity=1)
    asked = f"|  1> ! HF def2-SVP\n|  2> ! TightSCF\n|  3> * xyzfile 0 1 a.xyz\n|  4> $new_job\n|  5> {second}\n"
    (tmp_path / "a.out").write_text(one.replace("Number of atoms", f"{asked}Number of atoms") + one)
    note = "keywords differs among the jobs of one output: DEF2-SVP HF TIGHTSCF, then DEF2-SVP MP2 TIGHTSCF. Energies"
    assert any(said.startswith(note) for said in read_file(tmp_path / "a.out").notes) == ("MP2" in second)


@pytest.mark.parametrize("second", ["# HF/STO-3G geom=check force", "#N GenChk RHF/STO-3G Freq", "# MP2/STO-3G"])
def test_jobs_of_gaussian_at_several_levels_are_noted(tmp_path: Path, second: str) -> None:
    """Those that Gaussian begins itself are at the same."""
    jobs = [gaussian(["Input"]).replace("g16\n", f"g16\n {route}\n") for route in ("# HF/STO-3G opt", second)]
    (tmp_path / "a.log").write_text(" 1\\1\\GINC-NODE\\SP\n Normal termination of Gaussian 16\n".join(jobs))
    note = "method differs among the jobs of one output: HF/STO-3G, then MP2/STO-3G. Energies"
    assert any(said.startswith(note) for said in read_file(tmp_path / "a.log").notes) == ("MP2" in second)


def test_an_output_in_latin_1(tmp_path: Path) -> None:
    text = ORCA.format(charge=0, multiplicity=1).replace("Number of atoms", "C:\\Users\\M\u00fcller\nNumber of atoms")
    (tmp_path / "a.out").write_bytes(text.encode("latin-1"))
    assert read_file(tmp_path / "a.out", need=NEED).frames[0].energy == pytest.approx(-75.9 * Hartree)


def test_an_optimization_by_orca(tmp_path: Path) -> None:
    """Its last energy, of the converged structure, has no forces."""
    step = ORCA.format(charge=0, multiplicity=1).replace(
        "****ORCA TERMINATED NORMALLY****", "ORCA GEOMETRY RELAXATION STEP"
    )
    end = "                             ****ORCA TERMINATED NORMALLY****\n"
    text = step + step.replace("0.119262", "0.125000") + step[: step.index("CARTESIAN GRADIENT")] + end
    (tmp_path / "a.out").write_text(text)
    assert [frame.positions[0, 2] for frame in read_file(tmp_path / "a.out", need=NEED).frames] == [0.119262, 0.125]
    assert len(read_file(tmp_path / "a.out").frames) == 3


def waters(n: int) -> list[Atoms]:
    rng, frames = np.random.default_rng(0), []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def table(atoms: Atoms, values: np.ndarray, title: str, numbered: bool) -> str:
    text = f"{title}\n   ATOM   CHARGE       X              Y              Z\n {60 * '-'}\n"
    for n, (symbol, z, row) in enumerate(zip(atoms.symbols, atoms.numbers, values, strict=True), 1):
        text += f"    {n}" * numbered + f"  {symbol}     {z:.1f} " + " ".join(f"{x:.9f}" for x in row) + "\n"
    return f"{text}\n"


def gradients_by_gamess(frames: list[Atoms], search: bool) -> str:
    """A search of a geometry by GAMESS, or gradients alone; an analysis of the pi electrons has an energy, too."""
    text = " *         GAMESS VERSION = 30 SEP 2018 (R3)          *\n"
    text += " ATOM      ATOMIC                      COORDINATES (BOHR)\n           CHARGE         X    Y    Z\n"
    for symbol, z, row in zip(frames[0].symbols, frames[0].numbers, frames[0].positions / Bohr, strict=True):
        text += f" {symbol} {z:.1f} " + " ".join(f"{x:.10f}" for x in row) + "\n"
    for n, atoms in enumerate(frames):
        energy, gradient = atoms.get_potential_energy() / Hartree, -atoms.get_forces() * Bohr / Hartree
        if search:
            text += f"\n BEGINNING GEOMETRY SEARCH POINT NSERCH=   {n} ...\n\n"
            text += table(atoms, atoms.positions, " COORDINATES OF ALL ATOMS ARE (ANGS)", numbered=False)
        text += f"\n\n FINAL RHF ENERGY IS {energy:.10f} AFTER  14 ITERATIONS\n\n"
        text += f"  ...... PI ENERGY ANALYSIS ......\n           TOTAL ENERGY=   {energy + 1:.10f}\n"
        text += " ...... END OF PI ENERGY ANALYSIS ......\n\n"
        text += f"   {22 * '-'}\n   GRADIENT OF THE ENERGY\n   {22 * '-'}\n"
        if search:
            text += f"          NSERCH=  {n}     ENERGY=    {energy:.9f}\n\n"
            text += table(atoms, gradient, f" {23 * '-'}\n GRADIENT (HARTREE/BOHR)\n {23 * '-'}", numbered=True)
        else:
            text += "\n UNITS ARE HARTREE/BOHR    E'X               E'Y               E'Z\n"
            for k, (symbol, row) in enumerate(zip(atoms.symbols, gradient, strict=True)):
                text += f" {k + 1} {symbol} " + " ".join(f"{x:.10f}" for x in row) + "\n"
        text += "\n"
    return text


def test_a_search_by_gamess(tmp_path: Path) -> None:
    frames = waters(3)
    (tmp_path / "a.log").write_text(gradients_by_gamess(frames, search=True))
    assert_right(read_file(tmp_path / "a.log", need=NEED), frames)
    (tmp_path / "a.log").write_text(gradients_by_gamess(frames[:1], search=False))
    assert_right(read_file(tmp_path / "a.log", need=NEED), frames[:1])
    (tmp_path / "a.log").write_text(gradients_by_gamess(frames, search=True).replace("GRADIENT (HART", "(HART"))
    with pytest.raises(MdpotError, match="has no gradient"):
        read_file(tmp_path / "a.log")


def test_gradients_of_gamess_without_their_positions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(gradients_by_gamess(waters(2), search=False))
    with pytest.raises(MdpotError, match="gradients of several structures"):
        read_file(tmp_path / "a.log")


def turbomole(frames: list[Atoms]) -> str:
    """The file `gradient` of Turbomole and xtb, with exponents of Fortran."""
    text = "$grad          cartesian gradients\n"
    for n, atoms in enumerate(frames, 1):
        text += f"  cycle = {n:6d}    SCF energy = {atoms.get_potential_energy() / Hartree:.10f}   |dE/dxyz| =  0.15\n"
        for symbol, row in zip(atoms.symbols, atoms.positions / Bohr, strict=True):
            text += " ".join(f"{x:22.14f}" for x in row) + f"      {symbol.lower()}\n"
        for row in -atoms.get_forces() * Bohr / Hartree:
            text += " ".join(f"{x:22.13E}".replace("E", "D") for x in row) + "\n"
    return f"{text}$end\n"


def test_gradients_of_turbomole_and_xtb(tmp_path: Path) -> None:
    frames = waters(4)
    for name, part in (("a", frames[:3]), ("b", frames[3:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gradient").write_text(turbomole(part))
    assert_right(read_file(tmp_path / "a" / "gradient", need=NEED), frames[:3])
    assert_right(read_file(tmp_path, need=NEED), frames)


def nwchem(frames: list[Atoms]) -> str:
    """An optimization by NWChem: before each step but the first, a trial has an energy, and then the step positions."""
    text = "              Northwest Computational Chemistry Package (NWChem) 7.2.0\n"
    for n, atoms in enumerate(frames):
        geometry = '\n                         Geometry "geometry" -> "geometry"\n                         -------\n\n'
        geometry += " Output coordinates in angstroms (scale by  1.889725989 to convert to a.u.)\n\n"
        geometry += (
            "  No.       Tag          Charge          X              Y              Z\n ---- ---- ---- ---- ---- ----\n"
        )
        for k, (symbol, z, row) in enumerate(zip(atoms.symbols, atoms.numbers, atoms.positions, strict=True), 1):
            geometry += f"    {k} {symbol}      {z:.4f} " + " ".join(f"{x:.8f}" for x in row) + "\n"
        module = "\n                                 NWChem DFT Module\n\n         Total DFT energy =    {:.10f}\n\n"
        text += module.format(-99.0) * (n > 0) + geometry
        text += module.format(atoms.get_potential_energy() / Hartree)
        text += (
            "                         DFT ENERGY GRADIENTS\n\n    atom               coordinates          gradient\n"
        )
        text += "                 x          y          z           x          y          z\n"
        both = np.hstack([atoms.positions / Bohr, -atoms.get_forces() * Bohr / Hartree])
        for k, (symbol, row) in enumerate(zip(atoms.symbols, both, strict=True), 1):
            text += f"   {k} {symbol} " + " ".join(f"{x:.8f}" for x in row) + "\n"
        text += "\n"
    return text


def test_trials_of_an_optimization_by_nwchem(tmp_path: Path) -> None:
    frames = waters(3)
    (tmp_path / "a.nwo").write_text(nwchem(frames))
    reading = read_file(tmp_path / "a.nwo")
    assert_right(reading, frames)
    assert "2 energies without forces, of trial steps of an optimization, are not used." in reading.notes
