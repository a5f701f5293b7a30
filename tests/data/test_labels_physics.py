"""Labels that contradict physics are refused, with the remedy: small inputs with the right answer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mdpot.errors import MdpotError
from mdpot.training.data.reading import Reading

from .labeled import copper, read, results_of


@pytest.mark.parametrize(
    ("factor", "likely"),
    [
        (160.21766208, "GPa"),
        (1602.1766208, "kbar"),
        (-1602.1766208, "-kbar"),
        (-1.0, "-eV/Å³"),
        (-160.21766208, "-GPa"),
    ],
)
def test_a_stress_in_another_unit_is_refused_and_named(tmp_path: Path, factor: float, likely: str) -> None:
    frames = copper()
    expected = frames[0].get_stress(voigt=False)
    for atoms in frames:
        results_of(atoms)["stress"] = results_of(atoms)["stress"] * factor
    reading = read(tmp_path, frames)
    with pytest.raises(MdpotError, match=f"--units stress={likely}"):
        reading.check()
    reading.check(physics=False)
    converted = read(tmp_path, frames, units=f"stress={likely}")
    converted.check()
    np.testing.assert_allclose(np.array(converted.frames[0].stress), expected, rtol=1e-6, atol=1e-7)
    assert read(tmp_path, frames, stress_key="ignore").frames[0].stress is None


def remedied(tmp_path: Path, frames: list[Atoms]) -> Reading:
    """The frames read as the refusal of them says."""
    with pytest.raises(MdpotError) as caught:
        read(tmp_path, frames).check()
    found = re.search(r"--units (\S+?)[,.]? ", str(caught.value) + " ")
    assert found is not None, str(caught.value)
    reading = read(tmp_path, frames, units=found[1])
    reading.check()
    return reading


def changed(frames: list[Atoms], energy: float = 1.0, forces: float = 1.0, stress: float = 1.0) -> list[Atoms]:
    """Copies with their labels multiplied."""
    out = []
    for atoms in frames:
        factors = {"energy": energy, "forces": forces, "stress": stress}
        out.append(atoms.copy())
        out[-1].calc = SinglePointCalculator(
            out[-1], **{name: value * factors[name] for name, value in results_of(atoms).items()}
        )
    return out


@pytest.mark.parametrize(
    "factors",
    [
        {"energy": 1 / units.Hartree},
        {"energy": 1 / 8},
        {"forces": -1.0},
        {"forces": 1e3},
        {"forces": units.Bohr / units.Hartree},
        {"energy": 1 / units.Hartree, "forces": units.Bohr / units.Hartree},
    ],
)
def test_energies_against_forces(tmp_path: Path, factors: dict[str, float]) -> None:
    frames = copper(60, strain=0.0)
    for atoms in frames:
        del results_of(atoms)["stress"]
    right = read(tmp_path, frames)
    right.check()
    reading = remedied(tmp_path, changed(frames, **factors))
    for one, other in zip(reading.frames, right.frames, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
        np.testing.assert_allclose(np.array(one.forces), np.array(other.forces), atol=2e-5)


def test_hartree_and_rydberg_are_both_named(tmp_path: Path) -> None:
    """Energies and forces in either contradict each other alike, as lengths are in Å."""
    frames = copper(60, strain=0.0)
    for atoms in frames:
        del results_of(atoms)["stress"]
    rydberg = changed(frames, energy=2 / units.Hartree, forces=2 * units.Bohr / units.Hartree)
    with pytest.raises(MdpotError, match=r"force=Hartree/bohr or --units energy=Rydberg,force=Rydberg/bohr\."):
        read(tmp_path, rydberg).check()
    right = read(tmp_path, rydberg, units="energy=Rydberg,force=Rydberg/bohr")
    assert right.frames[0].energy == pytest.approx(frames[0].get_potential_energy(), abs=1e-5)


def test_work_along_a_trajectory_of_a_slab(tmp_path: Path) -> None:
    frames = copper(60, strain=0.0)
    for atoms in frames:
        del results_of(atoms)["stress"]
        atoms.pbc = (True, True, False)
    with pytest.raises(MdpotError, match="energy=Hartree"):
        read(tmp_path, changed(frames, energy=1 / units.Hartree)).check()


def test_lengths_against_covalent_radii(tmp_path: Path) -> None:
    frames = copper(10)
    for factor, likely in ((1 / units.Bohr, "length=bohr"), (0.5, "far too close"), (10.0, "no neighbor within 6 Å")):
        wrong = []
        for atoms in frames:
            wrong.append(atoms.copy())
            wrong[-1].set_cell(atoms.cell.array * factor, scale_atoms=True)
            wrong[-1].calc = SinglePointCalculator(wrong[-1], **results_of(atoms))
        with pytest.raises(MdpotError, match=likely):
            read(tmp_path, wrong).check()


def test_forces_against_bonds_to_hydrogen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(40):
        atoms = molecule("CH4")
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        bonds = atoms.positions[1:] - atoms.positions[0]
        lengths = np.linalg.norm(bonds, axis=1, keepdims=True)
        pulls = -32.0 * (lengths - 1.09) * bonds / lengths  # eV/Å, as C-H bonds pull
        forces = np.concatenate([-pulls.sum(0, keepdims=True), pulls])
        atoms.calc = SinglePointCalculator(atoms, energy=-40.0, forces=forces)
        frames.append(atoms)
    read(tmp_path, frames).check()
    for atoms in frames:
        results_of(atoms)["forces"] = results_of(atoms)["forces"] / (units.kcal / units.mol)
        results_of(atoms)["energy"] = -40.0 / (units.kcal / units.mol)
    assert remedied(tmp_path, frames).frames[0].energy == pytest.approx(-40.0, rel=1e-6)
    softer = changed(frames, energy=units.kcal / units.mol, forces=0.01)
    with pytest.raises(MdpotError, match="No usual unit explains it"):
        read(tmp_path, softer).check()
