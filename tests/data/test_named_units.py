"""Units in the keys of labels: each label has the one that its own key names, and what none names is assumed."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mdpot.errors import MdpotError
from mdpot.training.data.label_keys import is_per_atom
from mdpot.training.data.labels import Asked, Keys
from mdpot.training.data.named_units import units_in_names, units_of_labels
from mdpot.training.data.readers import read_file
from mdpot.training.data.units import SYSTEMS
from mdpot.units import BOHR, GPA, HARTREE, KCAL_PER_MOL

FORCES = np.array([[0.5, 0.0, 0.25], [-0.5, 0.0, -0.25]])


def write(path: Path, energy: str, forces: str, stress: str = "") -> Path:
    tensor = f'{stress}="0.1 0 0 0 0.2 0 0 0 0.3" ' * bool(stress)
    lattice = 'Lattice="9 0 0 0 9 0 0 0 9" '
    text = ""
    for n in range(2):
        text += f"2\n{lattice}{tensor}{energy}={-3.0 - n} Properties=species:S:1:pos:R:3:{forces}:R:3\n"
        text += "".join(f"N 0 0 {1.1 * k} {' '.join(map(str, row))}\n" for k, row in enumerate(FORCES))
    path.write_text(text)
    return path


def test_each_key_names_the_unit_of_its_own_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", "energy_kcal", "forces_kcal", "stress_GPa")
    reading = read_file(path, Asked("energy_kcal", "forces_kcal", "stress_GPa", check=False))
    assert str(reading.units) == "kcal/mol, kcal/mol/Å, Å (stated in the file)"
    frame = reading.frames[0]
    assert frame.forces is not None
    assert frame.stress is not None
    assert frame.energy == pytest.approx(-3.0 * KCAL_PER_MOL)
    np.testing.assert_allclose(frame.forces, FORCES * KCAL_PER_MOL)
    np.testing.assert_allclose(frame.stress, np.diag([0.1, 0.2, 0.3]) * GPA)


def test_what_no_key_names_is_assumed(tmp_path: Path) -> None:
    asked = Asked("energy_Ha", "forces", check=False)
    path = write(tmp_path / "a.xyz", "energy_Ha", "forces")
    assert str(read_file(path, asked).units) == "Hartree, eV/Å, Å (partly assumed)"
    path.write_text(path.read_text().replace("energy_Ha=", "force_unit=Ha/bohr energy_Ha="))
    assert str(read_file(path, asked).units) == "Hartree, Hartree/bohr, Å (stated in the file)"


def test_keys_with_units_are_one_family(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", "energy_hartree", "forces_Ha_bohr")
    reading = read_file(path, Asked(check=False))
    assert (reading.keys.energy, reading.keys.forces) == ("energy_hartree", "forces_Ha_bohr")
    assert reading.frames[0].energy == pytest.approx(-3.0 * HARTREE)
    np.testing.assert_allclose(np.asarray(reading.frames[0].forces), FORCES * HARTREE / BOHR)


@pytest.mark.parametrize(
    ("key", "units", "factor"),
    [
        ("energy_per_atom", None, 1.0),
        ("energy_per_atom", "energy=Hartree", HARTREE),
        ("energy_eV_per_atom", None, 1.0),
        ("energy_kcal_mol_per_atom", None, KCAL_PER_MOL),
        ("cohesive_energy_peratom", "energy=eV/atom", 1.0),
        ("energy/atom", None, 1.0),
        ("energy_eV/atom", None, 1.0),
        ("EnergyPerAtom", None, 1.0),
        ("energyPerAtom", None, 1.0),
        ("energyperatom", None, 1.0),
        ("energy_per_atoms", None, 1.0),
        ("energy_peratoms", None, 1.0),
        ("energy_per_at", None, 1.0),
        ("dft_energy_per_atom", None, 1.0),
        ("REF_energy_peratom", None, 1.0),
        ("free_energy_per_atom", None, 1.0),
    ],
)
def test_energies_per_atom_by_their_key(tmp_path: Path, key: str, units: str | None, factor: float) -> None:
    """Whatever unit is said, they are not those of whole frames."""
    path = write(tmp_path / "a.xyz", key, "forces")
    reading = read_file(path, Asked(energy_key=key, units=units, check=False))
    assert [frame.energy for frame in reading.frames] == pytest.approx([-6.0 * factor, -8.0 * factor])
    with pytest.raises(MdpotError) as caught:
        read_file(path, need=("energy", "forces")).check()
    assert (f"--energy-key {key} takes it for energies per atom" in str(caught.value)) == (
        not key.startswith("cohesive")
    )


@pytest.mark.parametrize("key", ["energy_at_0K", "energyPerator", "super_atom_energy", "energy_per_cell", "energy"])
def test_keys_that_say_nothing_of_atoms(key: str) -> None:
    assert not is_per_atom(key)


def test_whole_energies_under_a_key_per_atom(tmp_path: Path) -> None:
    frames = [bulk("Cu", cubic=True) for _ in range(20)]
    for n, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=n)
        atoms.calc = EMT()
        atoms.info["energy_per_atom"] = atoms.get_potential_energy()
        atoms.arrays["dft_forces"] = atoms.get_forces()
        atoms.calc = None
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    asked = Asked(energy_key="energy_per_atom", forces_key="dft_forces")
    with pytest.raises(MdpotError, match=r"energy_per_atom is taken for energies per atom: if it holds .*, rename it"):
        read_file(tmp_path / "a.xyz", asked).check()


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    atoms = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"], file["positions"] = atoms.numbers, atoms.positions[None]
        file["energy_Ha"], file["forces_Ha_bohr"] = np.array([-3.0]), FORCES[None]
    asked = Asked(energy_key="energy_Ha", forces_key="forces_Ha_bohr", check=False)
    reading = read_file(tmp_path / "a.h5", asked)
    assert str(reading.units) == "Hartree, Hartree/bohr, Å (stated in the file)"
    (frame,) = reading.frames
    assert frame.forces is not None
    np.testing.assert_allclose(frame.forces, FORCES * HARTREE / BOHR)


def test_names() -> None:
    for forces, unit in (
        ("forces_Ha/Bohr", "Hartree/bohr"),
        ("forces_eV_A", "eV/Å"),
        ("dft_forces_kcal_mol_ang", "kcal/mol/Å"),
        ("forces_Ha", "Hartree/Å"),
        ("forces", None),
        ("forces_A", None),
    ):
        assert units_in_names(Keys(forces=forces)).get("force") == unit
    assert units_in_names(Keys(forces="forces_Ha"), "bohr") == {"force": "Hartree/bohr"}
    for stress, found in (
        ("stress_kbar", {"stress": "kbar"}),
        ("stress_eV_A3", {"stress": "eV/Å³"}),
        ("virial_kcal", {"virial": "kcal/mol"}),
        ("REF_stress", {}),
        ("REF_virial", {}),
    ):
        assert units_in_names(Keys(stress=stress)) == found


def test_what_the_file_states_goes_before_names() -> None:
    keys = Keys("energy_kcal", "forces_kcal")
    stated = units_of_labels(keys, {"force": "eV/Å"}, SYSTEMS["atomic"])
    assert (stated.energy, stated.force, stated.length) == ("kcal/mol", "eV/Å", "bohr")
    assert units_of_labels(Keys("energy", "forces"), {}).source == "assumed"
