"""One family of labels, its units, and what is absent: small inputs with the right answer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

from mdpot.errors import MdpotError
from mdpot.training.data.label_keys import family_of

from .labeled import WATER, copper, labeled, read, results_of


@pytest.mark.parametrize(
    ("key", "family"),
    [
        ("energy", ("energy", "energy", "")),
        ("Energy", ("energy", "energy", "")),
        ("free_energy", ("energy", "free_energy", "")),
        ("REF_energy", ("energy", "energy", "ref")),
        ("DFT_forces", ("forces", "forces", "dft")),
        ("forces_xtb", ("forces", "forces", "xtb")),
        ("force", ("forces", "force", "")),
        ("Virial", ("stress", "virial", "")),
        ("atomic_forces", ("forces", "atomic_forces", "")),
        ("dft_atomic_forces", ("forces", "atomic_forces", "dft")),
        ("cauchy_stress", ("stress", "cauchy_stress", "")),
        ("mace_mp_stress", ("stress", "stress", "mace_mp")),
        ("TotEnergy", ("energy", "tot_energy", "")),
        ("dftForces", ("forces", "forces", "dft")),
        ("energy_eV", ("energy", "energy", "")),
        ("forces_eV_A", ("forces", "forces", "")),
        ("forces (eV/Å)", ("forces", "forces", "")),
        ("REF_energy_eV", ("energy", "energy", "ref")),
        ("energy_hartree", ("energy", "energy", "hartree")),
        ("forces_xtb_Ha_bohr", ("forces", "forces", "xtb_hartree")),
        ("forces.kcal/mol/Angstrom", ("forces", "forces", "kcal/mol")),
        ("forces_kJ_per_mol_per_nm", ("forces", "forces", "kj/mol")),
        ("stress_GPa", ("stress", "stress", "")),
        ("stress_eV_A3", ("stress", "stress", "")),
        ("energy_A", ("energy", "energy", "a")),
        ("energy_Ha_b", ("energy", "energy", "ha_b")),
        ("energy_eV_per_atom", None),
        ("energy_eV_atom", None),
        ("dft_normal_mode_energy", None),
        ("energy_per_atom", None),
        ("force_weight", None),
        ("energy_unit", None),
        ("kinetic_energy", None),
        ("config_type", None),
    ],
)
def test_families(key: str, family: tuple[str, str, str] | None) -> None:
    assert family_of(key) == family


@pytest.mark.parametrize(
    ("keys", "energy_key", "forces_key"),
    [
        ({"energy": -14.2, "REF_energy": -470.0, "REF_forces": 0.5}, "REF_energy", "REF_forces"),
        ({"energy_xtb": -470.0, "forces_xtb": 0.5}, "energy_xtb", "forces_xtb"),
        ({"Energy": -470.0, "force": 0.5}, "Energy", "force"),
        ({"total_energy": -469.0, "energy": -470.0, "forces": 0.5}, "energy", "forces"),
        ({"total_energy": -470.0, "forces": 0.5}, "total_energy", "forces"),
        ({"total_energy": -470.0, "atomic_forces": 0.5}, "total_energy", "atomic_forces"),
        (
            {"potential_energy": -470.0, "total_energy": -469.0, "kinetic_energy": 1.0, "forces": 0.5},
            "potential_energy",
            "forces",
        ),
        ({"energy_eV": -470.0, "forces_eV_A": 0.5}, "energy_eV", "forces_eV_A"),
        ({"energy_eV": -470.0, "forces": 0.5}, "energy_eV", "forces"),
        ({"free_energy": -470.0, "energy": -469.9, "forces": 0.5}, "free_energy", "forces"),
        ({"free_energy": -470.0, "energy": -470.0, "forces": 0.5}, "energy", "forces"),
        (
            {"potential_energy": -470.0, "kinetic_energy": 2.0, "total_energy": -468.0, "forces": 0.5},
            "potential_energy",
            "forces",
        ),
        ({"dft_energy": -470.0, "dft_normal_mode_energy": 0.2, "dft_forces": 0.5}, "dft_energy", "dft_forces"),
        ({"energy": -470.0, "forces": 0.5, "mace_energy": -470.0, "mace_forces": 0.5}, "energy", "forces"),
    ],
)
def test_one_family(tmp_path: Path, keys: dict[str, float], energy_key: str, forces_key: str) -> None:
    reading = read(tmp_path, labeled(**keys))
    assert (reading.keys.energy, reading.keys.forces) == (energy_key, forces_key)
    (frame,) = reading.frames
    assert frame.energy == -470.0
    np.testing.assert_array_equal(np.array(frame.forces), np.full((3, 3), 0.5))


def test_spellings_that_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="forces and atomic_forces contradict each other in frame 0"):
        read(tmp_path, labeled(energy=-470.0, forces=0.5, atomic_forces=0.4))


def test_the_total_energy_of_dynamics_is_refused(tmp_path: Path) -> None:
    frames = labeled(total_energy=-469.0, ekin_energy=1.0, forces=0.5)
    frames.info = {"total_energy": -469.0, "Ekin": 1.0}
    with pytest.raises(MdpotError, match="total_energy has the kinetic energy Ekin beside it"):
        read(tmp_path, frames)
    assert read(tmp_path, frames, energy_key="total_energy").frames[0].energy == -469.0


def test_the_family_of_most_frames_is_taken(tmp_path: Path) -> None:
    """Isolated atoms are often labeled under other keys than the frames."""
    atom = Atoms("O", cell=[15.0] * 3, pbc=True)
    atom.calc = SinglePointCalculator(atom, energy=-430.0, forces=np.zeros((1, 3)))
    reading = read(
        tmp_path, [atom, labeled(REF_energy=-470.0, REF_forces=0.5), labeled(REF_energy=-471.0, REF_forces=0.5)]
    )
    assert [frame.energy for frame in reading.frames] == [-470.0, -471.0]
    assert reading.isolated == {}


def test_a_unit_of_the_energy_alone_does_not_tell_that_of_the_forces(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"energies are in energy_Ha, forces in forces\. If they belong together"):
        read(tmp_path, labeled(energy_Ha=-17.0, forces=0.5))


def test_families_that_contradict_each_other_are_listed(tmp_path: Path) -> None:
    atoms = labeled(energy=-14.2, forces=0.1, REF_energy=-470.0, REF_forces=0.5)
    with pytest.raises(
        MdpotError, match=r"contradict .*energy, forces .*-14\.2.*REF_energy, REF_forces .*--energy-key"
    ):
        read(tmp_path, atoms)
    reading = read(tmp_path, atoms, energy_key="REF_energy")
    assert (reading.frames[0].energy, reading.keys.forces) == (-470.0, "REF_forces")
    # Structures are read whatever the labels say.
    assert len(read(tmp_path, atoms, need=()).frames) == 1


def test_halves_of_two_families_are_refused(tmp_path: Path) -> None:
    atoms = labeled(energy=-14.2, dft_forces=0.1)
    with pytest.raises(
        MdpotError, match="no family of keys has energies and forces: energies are in energy, forces in dft"
    ):
        read(tmp_path, atoms)
    reading = read(tmp_path, atoms, energy_key="energy", forces_key="dft_forces")
    assert reading.frames[0].forces is not None


def test_a_free_energy_that_few_frames_have_costs_no_frames(tmp_path: Path) -> None:
    frames = [labeled(energy=-470.0 - k, forces=0.1) for k in range(4)]
    frames[1].info["free_energy"] = -471.2
    reading = read(tmp_path, frames)
    assert (reading.keys.energy, len(reading.frames)) == ("energy", 4)
    assert any("energy is taken, not free_energy (they differ by up to 0.2)" in note for note in reading.notes)


def test_a_bare_word_is_no_energy(tmp_path: Path) -> None:
    """ASE gives True for a word in a comment that has no value."""
    atoms = labeled(forces=0.1)
    atoms.info |= {"energy": True, "E": -470.0}
    refusal = read(tmp_path, atoms).refusal
    assert re.search(r"no energy in any of its 1 frames .* might be labels: .*\bE\b", refusal)


def test_frames_of_another_family_are_left_out_by_its_name(tmp_path: Path) -> None:
    frames = [labeled(REF_energy=-470.0, REF_forces=0.1), *(labeled(energy=-470.0, forces=0.1) for _ in range(2))]
    reading = read(tmp_path, frames)
    (note,) = (note for note in reading.notes if "left out" in note)
    assert note.startswith("1 of 3 frames are left out, for they have no energy or no forces")
    assert "Labels that were not taken: REF_energy, REF_forces." in note


def test_atoms_whose_forces_were_set_to_zero_are_noted(tmp_path: Path) -> None:
    frames = [labeled(energy=-470.0 - k, forces=0.1) for k in range(3)]
    assert not any("exactly zero" in note for note in read(tmp_path, frames).notes)
    for atoms in frames[:2]:
        atoms.arrays["forces"][0] = 0.0
    assert any("in 2 frames some atoms have forces of exactly zero" in note for note in read(tmp_path, frames).notes)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"energy_key is 'E', but no frame has a number of that name.*there: energy"):
        read(tmp_path, labeled(energy=-1.0, forces=0.1), energy_key="E")


def test_frames_without_labels_and_isolated_atoms(tmp_path: Path) -> None:
    alone = Atoms("H", cell=[20.0] * 3, pbc=True)
    alone.info |= {"energy": -13.6, "config_type": "IsolatedAtom"}
    free = Atoms("O")
    free.info["energy"] = -400.0
    lattice = Atoms("Cu", cell=[2.5] * 3, pbc=True)  # one atom, and a crystal
    lattice.info["energy"] = -3.0
    lattice.arrays["forces"] = np.full((1, 3), 1e-3)
    bare = WATER.copy()
    full = labeled(energy=-470.5, forces=0.1)
    reading = read(tmp_path, [alone, bare, full, free, lattice])
    assert [frame.index for frame in reading.frames] == [2, 4]
    assert reading.isolated == {1: -13.6, 8: -400.0}
    assert (reading.n_frames, reading.n_isolated, reading.n_unlabeled) == (5, 2, 1)
    assert any("1 of 5 frames are left out" in note for note in reading.notes)


def test_labels_of_zero_are_absent(tmp_path: Path) -> None:
    frames = [labeled(energy=-470.0 - k, forces=0.0) for k in range(3)]
    reading = read(tmp_path, frames)
    assert reading.frames == []
    with pytest.raises(MdpotError, match=r"no forces in any of its 3 frames.*zero in all frames, so taken as absent"):
        reading.check()
    assert len(read(tmp_path, frames, need={"energy"}).frames) == 3
    some = [labeled(energy=-470.0, forces=0.1), labeled(energy=0.0, forces=0.0)]
    assert [frame.index for frame in read(tmp_path, some).frames] == [0]


def test_what_has_to_be_there_is_a_choice(tmp_path: Path) -> None:
    frames = [labeled(energy=-470.0), labeled(forces=0.1)]
    assert len(read(tmp_path, frames, need=None).frames) == 2
    assert [frame.index for frame in read(tmp_path, frames, need={"energy"}).frames] == [0]
    assert [frame.index for frame in read(tmp_path, frames, need={"forces"}).frames] == [1]
    with pytest.raises(MdpotError, match=r"finetune\.force_weight=0"):
        read(tmp_path, frames[:1]).check()


def test_units_that_a_file_states_and_that_a_user_says(tmp_path: Path) -> None:
    atoms = labeled(energy=-17.0, forces=0.1)
    atoms.info |= {"energy-unit": "Hartree", "force-unit": "Hartree/bohr"}
    reading = read(tmp_path, atoms)
    assert reading.units.source == "stated in the file"
    assert reading.frames[0].energy == pytest.approx(-17.0 * units.Hartree, rel=1e-7)
    assert reading.frames[0].forces is not None
    assert reading.frames[0].forces[0, 0] == pytest.approx(0.1 * units.Hartree / units.Bohr, rel=1e-7)
    said = read(tmp_path, atoms, units="energy=eV, force=eV/Å")
    assert said.frames[0].energy == -17.0
    atoms.info["energy-unit"] = "furlong"
    with pytest.raises(MdpotError, match=r"unknown unit of energy \(energy-unit=furlong\)"):
        read(tmp_path, atoms)


def test_a_stress_in_some_frames_and_a_virial_in_others(tmp_path: Path) -> None:
    frames = copper(6)
    for n, atoms in enumerate(frames):
        stress = results_of(atoms).pop("stress")
        atoms.info.update({"stress": stress} if n < 4 else {"virial": -stress * atoms.get_volume()})
    reading = read(tmp_path, frames)
    assert [frame.stress is None for frame in reading.frames] == [False] * 4 + [True] * 2
    assert any("2 frames have virial in place of stress, which is not used" in note for note in reading.notes)


def test_a_virial_is_minus_the_stress_times_the_volume(tmp_path: Path) -> None:
    frames = copper(5)
    expected = [atoms.get_stress(voigt=False) for atoms in frames]
    for atoms, stress in zip(frames, expected, strict=True):
        atoms.info["virial"] = -stress * atoms.get_volume()
        del results_of(atoms)["stress"]
    reading = read(tmp_path, frames)
    assert reading.keys.stress == "virial"
    np.testing.assert_allclose(np.array([frame.stress for frame in reading.frames]), expected, atol=1e-7)
    meant = read(tmp_path, frames, units="virial=-eV")
    np.testing.assert_allclose(np.array([frame.stress for frame in meant.frames]), -np.array(expected), atol=1e-7)
