"""Units by name, in the spellings that people use, against ASE's numbers."""

from __future__ import annotations

import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.units import VASP, canonical, parse_units, stated_units, units_of

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
        ("parsec", "unknown units 'parsec'"),
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
    of_family = {"REF_energy_unit": "kcal/mol", "unit_forces": "meV/Å"}
    assert stated_units(of_family) == {
        "energy": "kcal/mol",
        "force": "meV/Å",
    }
    assert stated_units({"e_unit": "Ha", "r_unit": "bohr"}) == {"energy": "Hartree", "length": "bohr"}
    of_all = {"energy": "kcal/mol", "force": "kcal/mol/Å", "stress": "kcal/mol/Å³", "virial": "kcal/mol"}
    assert stated_units({"units": "kcal/mol"}) == of_all
    assert stated_units({"units": "kcal/mol", "force_units": "eV/Å"}) == of_all | {"force": "eV/Å"}
    assert stated_units({"units": "angstrom"}) == {}
    with pytest.raises(MdpotError, match="two units of energy are stated: energy_unit=eV and dft_energy_unit=Hartree"):
        stated_units({"energy_unit": "eV", "dft_energy_unit": "Ha"})
    assert units_of({}).source == "assumed"
    given = parse_units("energy=kcal/mol,length=bohr", units_of({"force": "Hartree/bohr", "stress": "GPa"}))
    assert (given.energy, given.force, given.stress, given.virial) == ("kcal/mol", "Hartree/bohr", "GPa", "kcal/mol")
    assert parse_units("energy=eV", VASP).stress == "-kbar"
    # What the user says of one quantity leaves the others as the file states them.
    assert parse_units("stress=kbar", units_of(stated)).energy == "Hartree"


def test_every_name_is_its_own_spelling() -> None:
    for name in ("eV", "Hartree", "kcal/mol"):
        assert canonical("energy", name) == name
    assert canonical("stress", "-GPa") == "-GPa"
    assert canonical("virial", "-eV") == "-eV"
