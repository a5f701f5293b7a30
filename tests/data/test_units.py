"""Units by name, in the spellings that people use, against ASE's numbers."""

from __future__ import annotations

import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.unit_statements import (
    canonical,
    energy_in_name,
    parse_units,
    stated_system,
    stated_units,
    units_of,
)
from mdpot.training.data.units import VASP

KCAL = units.kcal / units.mol
EH, BOHR = units.Hartree, units.Bohr


@pytest.mark.parametrize(
    ("text", "energy", "length", "force", "stress"),
    [
        ("ase", 1, 1, 1, 1),
        ("atomic", EH, BOHR, EH / BOHR, EH / BOHR**3),
        ("vasp", 1, 1, 1, -0.1 * units.GPa),
        ("metal", 1, 1, 1, -1e-4 * units.GPa),
        ("real", KCAL, 1, KCAL, -1.01325e-4 * units.GPa),
        ("stress=GPa", 1, 1, 1, units.GPa),
        ("GPa", 1, 1, 1, units.GPa),
        ("stress-unit=-kB", 1, 1, 1, -0.1 * units.GPa),
        (
            "energy=Hartree,length=bohr",
            units.Hartree,
            units.Bohr,
            units.Hartree / units.Bohr,
            units.Hartree / units.Bohr**3,
        ),
        ("energy: Ry, force: Ry/bohr", units.Ry, 1, units.Ry / BOHR, 1),
        ("energy=kcal/mol", KCAL, 1, 1, 1),
        ("length=bohr", 1, BOHR, 1, 1),
        ("atomic, length=Å", EH, 1, EH / BOHR, EH / BOHR**3),
        ("force=-eV/Å", 1, 1, -1, 1),
        ("energy=Hartree/atom", EH, 1, 1, 1),
        ("force=kcal mol^-1 Å^-1", 1, 1, KCAL, 1),
        ("forces=meV/Angstrom", 1, 1, 1e-3, 1),
        ("energy=kJ/mol length=nm", units.kJ / units.mol, 10, units.kJ / units.mol / 10, units.kJ / units.mol / 1000),
        ("stress=eV/A^3", 1, 1, 1, 1),
    ],
)
def test_systems_and_single_units(text: str, energy: float, length: float, force: float, stress: float) -> None:
    found = parse_units(text)
    assert found.source == "given"
    assert found.conversions[:4] == pytest.approx((energy, length, force, stress), rel=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parsec", "unknown units 'parsec'.*Known: (?!.*\\b(kcal/mol), .*\\1)"),
        ("energy=parsec", "unknown unit of energy 'parsec'"),
        ("speed=1", "unknown quantity in units 'speed'"),
        ("", "units must name a system"),
        ("stress=Å", "unknown unit of stress"),
        ("force=eV", "unknown unit of force"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        parse_units(text)


def test_stated_units() -> None:
    info = {"energy-unit": "Hartree", "force_units": "Ha/Bohr", "unit": "eV", "stress-unit": "GPa", "dipole-unit": "au"}
    stated = stated_units(info)
    assert stated == {"energy": "Hartree", "force": "Hartree/bohr", "stress": "GPa"}
    assert units_of(stated).source == "stated in the file"
    assert stated_units({"e_unit": "Ha", "r_unit": "bohr"}) == {"energy": "Hartree", "length": "bohr"}
    # Those of the labels' family count, and those of what is no label do not.
    others = {"formation_energy_unit": "eV/atom", "kinetic_energy_unit": "K", "primitive_cell_unit": "nm"}
    of_family = {**others, "REF_energy_unit": "kcal/mol", "dft_energy_unit": "Ha", "unit_forces": "meV/Å"}
    assert stated_units(of_family, "ref") == {"energy": "kcal/mol", "force": "meV/Å"}
    assert stated_units(of_family | {"unit_cell": "primitive"}) == {"force": "meV/Å"}
    assert units_of({}).source == "assumed"
    given = parse_units("energy=kcal/mol,length=bohr", units_of({"force": "Hartree/bohr", "stress": "GPa"}))
    assert (given.energy, given.force, given.stress, given.virial) == ("kcal/mol", "Hartree/bohr", "GPa", "kcal/mol")
    assert parse_units("energy=eV", VASP).stress == "-kbar"
    # What the user says of one quantity leaves the others as the file states them.
    assert parse_units("stress=kbar", units_of(stated)).energy == "Hartree"


def test_units_in_the_names_of_energies() -> None:
    names = {"energy_Ha": "Hartree", "E(eV)": "eV", "DFT_energy_kcal_mol": "kcal/mol", "energy.kJ/mol": "kJ/mol"}
    assert {name: energy_in_name(name) for name in names} == names
    for name in ("energy", "REF_energy", "energy_A", "wb97x_dz.energy", "energy_gpa"):
        assert energy_in_name(name) is None


def test_units_stated_of_all_quantities() -> None:
    kcal = stated_system({"units": "kcal/mol"})
    assert kcal is not None
    assert (kcal.energy, kcal.force, kcal.length) == ("kcal/mol", "kcal/mol/Å", "Å")
    assert units_of({"force": "eV/Å"}, kcal).force == "eV/Å"
    # Positions in bohr are no matter of course where energies are in Hartree, but they are in atomic units.
    hartree, atomic = stated_system({"unit": "Ha"}), stated_system({"Units": "atomic"})
    assert hartree is not None
    assert atomic is not None
    assert (hartree.energy, hartree.length, atomic.length) == ("Hartree", "Å", "bohr")
    assert units_of({"energy": "eV", "length": "Å"}, atomic).force == "eV/Å"
    for other in ("SI", "lj", "cell", "angstrom"):
        assert stated_system({"units": other}) is None
    assert stated_system({"energy_units": "eV"}) is None


def test_every_name_is_its_own_spelling() -> None:
    for name in ("eV", "Hartree", "kcal/mol"):
        assert canonical("energy", name) == name
    assert canonical("stress", "-GPa") == "-GPa"
    assert canonical("virial", "-eV") == "-eV"
