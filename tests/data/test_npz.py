"""Archives of NumPy: known kinds, and what people save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import units

from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file, read_frames
from mdpot.training.data.readers.npz import read_water_npz

from .archives import archive, read_saved


def test_water_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n_atoms in (3, 6):
        np.savez(
            tmp_path / f"scan_water_{n_atoms}atoms.npz",
            numbers=np.tile(np.array([8, 1, 1], dtype=np.uint8), n_atoms // 3),
            positions=rng.normal(size=(7, n_atoms, 3)).astype(np.float32),
            forces=rng.normal(size=(7, n_atoms, 3)).astype(np.float32),
            energies=rng.normal(size=7),
            cells=np.tile(np.eye(3) * 9, (7, 1, 1)),
            source=np.array([f"run/{k}" for k in range(7)]),
        )
    frames = read_water_npz(sorted(tmp_path.glob("*.npz")))
    assert [len(frame) for frame in frames] == [3] * 7 + [6] * 7
    assert len({frame.group for frame in frames}) == 14
    assert frames[0].positions.dtype == np.float64
    assert frames[0].pbc.all()
    assert len(read_frames(tmp_path / "scan_water_6atoms.npz")) == 7


def test_rmd17_archives_in_electronvolts(tmp_path: Path) -> None:
    path = tmp_path / "any.npz"
    coords = np.random.default_rng(0).normal(size=(2, 3, 3))
    np.savez(
        path,
        nuclear_charges=np.array([8, 1, 1]),
        coords=coords,
        energies=np.array([-1.0, -2.0]),
        forces=coords,
    )
    frames = read_frames(path)
    assert frames[1].energy == pytest.approx(-2 * units.kcal / units.mol, rel=1e-6)
    assert frames[1].forces is not None
    np.testing.assert_allclose(frames[1].forces, coords[1] * units.kcal / units.mol, rtol=1e-6)
    np.testing.assert_array_equal(frames[1].positions, coords[1])
    assert not frames[1].pbc.any()


def test_bad_archives(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(MdpotError, match=r"other\.npz: an archive of frames holds .* got weights"):
        read_frames(path)
    with pytest.raises(MdpotError, match="lacks"):
        read_water_npz([path])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(MdpotError, match="truncated or damaged"):
        read_frames(path)
    with pytest.raises(MdpotError, match="no such file"):
        read_frames(tmp_path / "none.npz")


@pytest.mark.parametrize("stated", [{}, {"e_unit": np.array("kcal/mol"), "r_unit": np.array("Ang")}])
def test_archives_of_md17_and_sgdml(tmp_path: Path, stated: dict) -> None:
    rng = np.random.default_rng(0)
    arrays = {"z": np.array([8, 1, 1]), "R": rng.normal(size=(2, 3, 3)), "F": rng.normal(size=(2, 3, 3))}
    np.savez(tmp_path / "a.npz", E=np.array([[-1.0], [-2.0]]), **arrays, **stated)
    reading = read_file(tmp_path / "a.npz")
    assert (reading.keys.energy, reading.keys.forces, reading.units.energy) == ("E", "F", "kcal/mol")
    assert reading.frames[1].energy == pytest.approx(-2 * units.kcal / units.mol, rel=1e-6)
    said = read_file(tmp_path / "a.npz", Asked(units="ase"))
    assert said.frames[1].energy == -2.0


def test_a_lattice_of_sgdml_that_may_be_turned(tmp_path: Path) -> None:
    """Its versions have the vectors as rows or as columns; under the name cells they are rows."""
    arrays = {"z": np.array([8, 1, 1]), "R": np.arange(18.0).reshape(2, 3, 3), "F": np.ones((2, 3, 3)), "E": np.ones(2)}
    lattice = np.array([[9.0, 0, 0], [-4.5, 8, 0], [0, 0, 9]])
    np.savez(tmp_path / "a.npz", type="d", lattice=lattice, **arrays)
    with pytest.raises(MdpotError, match="lattice of sGDML, whose versions differ"):
        read_file(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", type="d", lattice=9 * np.eye(3), **arrays)
    np.testing.assert_array_equal(read_file(tmp_path / "a.npz").frames[0].cell, 9 * np.eye(3))
    np.savez(tmp_path / "a.npz", type="d", cells=lattice, **arrays)
    np.testing.assert_array_equal(read_file(tmp_path / "a.npz").frames[0].cell, lattice)


GOOD = {
    "nuclear_charges": np.array([8, 1, 1]),
    "coords": np.random.default_rng(0).normal(size=(4, 3, 3)),
    "energies": np.arange(4.0),
    "forces": np.ones((4, 3, 3)),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coords": np.zeros((4, 3))}, r"positions must have the shape \[n_frames, n_atoms, 3\]; got \[4, 3\]"),
        ({"coords": np.zeros((0, 3, 3))}, r"positions must have the shape"),
        ({"coords": np.array(["a"] * 4)}, r"positions must be real numbers; got the type <U1"),
        ({"coords": np.zeros((4, 3, 3), complex)}, r"positions must be real numbers"),
        ({"nuclear_charges": np.array([8, 1])}, r"atomic numbers must be 3 integers.*got the shape \[2\]"),
        ({"nuclear_charges": np.array([8, 1, 119])}, r"a\.npz: atomic numbers go from 1 to 118; got 119"),
        ({"nuclear_charges": np.array([8, 1, np.inf])}, r"atomic numbers go from 1 to 118; got inf"),
        ({"nuclear_charges": np.array(8)}, r"atomic numbers must be 3 integers"),
        ({"nuclear_charges": np.array([8.5, 1, 1])}, r"atomic numbers must be 3 integers"),
        ({"energies": np.arange(3.0)}, r"energies must be 4, one for each frame; got the shape \[3\]"),
        ({"energies": np.array(1.0)}, r"energies must be 4"),
        ({"forces": np.ones((4, 3, 2))}, r"forces must have the shape of the positions, \[4, 3, 3\]; got \[4, 3, 2\]"),
        ({"forces": np.array([None] * 4)}, r"pickled objects"),
        ({"cells": np.eye(2)}, r"cells must have the shape \[4, 3, 3\].*got \[2, 2\]"),
        ({"box": np.ones((4, 6))}, r"cells must have the shape \[4, 3, 3\].*got \[4, 6\]"),
        ({"pbc": np.array("T T F")}, r"pbc must be true or false; got \['T T F'\]"),
        ({"pbc": np.array([True, False])}, r"pbc must have the shape \[3\], \[4\] or \[4, 3\]; got \[2\]"),
        ({"virial": np.ones((4, 3))}, r"stresses and virials must have the shape .*got \[4, 3\]"),
        ({"N": np.array([3, 3, 2, 3])}, r"frame 2: 3 of its atomic numbers are no padding; .* says, 2"),
        ({"nuclear_charges": np.zeros((4, 3), int)}, r"frame 0: 0 of its atomic numbers"),
        ({"nuclear_charges": np.array(["O", "H", "Hx"])}, r"unknown element in .*Hx"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **{**GOOD, **change})
    with pytest.raises(MdpotError, match=message) as caught:
        read_file(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["charge", "total_charge", "Q"])
@pytest.mark.parametrize("spin", ["multiplicity", "spin_multiplicity"])
def test_charges_of_structures(tmp_path: Path, name: str, spin: str) -> None:
    """One for each, of any type, or one for all; those of atoms are left alone."""
    charges = np.array([0, 1, -1, 2])
    for values in (charges, charges[:, None].astype(float), charges.astype(np.float32)):
        frames = read_saved(tmp_path, **archive(4), **{name: values}).frames
        assert [frame.electrons for frame in frames] == [Electrons(charge) for charge in charges]
    for one in (np.array(-1), np.array([-1.0])):
        frames = read_saved(tmp_path, **archive(4), **{name: one, spin: np.array([1, 3, 1, 3])}).frames
        assert [frame.electrons for frame in frames] == [Electrons(-1, n) for n in (0, 2, 0, 2)]
    frames = read_saved(tmp_path, **archive(2), **{name: np.array([np.nan, 1]), spin: np.array([2, np.nan])}).frames
    assert [frame.electrons for frame in frames] == [Electrons(None, 1), Electrons(1)]
    for partial in (np.full((4, 3), 0.1), np.full((4, 3, 1), 0.1), np.full(3, 0.1)):
        reading = read_saved(tmp_path, **archive(4), **{name: partial})
        assert reading.frames[0].electrons == NOTHING_SAID
        assert reading.notes == [f"the archive has arrays that are not read: {name}."]
    # What cannot be is for a force field to refuse; a network does not mind.
    for key, values, message in ((name, [0, 0.5], r"charge=0\.5 is no whole number"), (spin, [1, 0], "unpaired")):
        frame = read_saved(tmp_path, **archive(2), **{key: np.array(values)}).frames[1]
        with pytest.raises(MdpotError, match=message):
            frame.electrons.settled(frame.numbers)


def test_partial_charges_are_no_elements(tmp_path: Path) -> None:
    arrays = archive(4)
    del arrays["numbers"]
    assert len(read_saved(tmp_path, **arrays, charges=np.array([8, 1, 1])).frames) == 4  # as of QM9
    with pytest.raises(MdpotError, match="an archive of frames holds atomic numbers"):
        read_saved(tmp_path, **arrays, charges=np.zeros((4, 3)))
    reading = read_saved(tmp_path, **arrays, atNUM=np.array([8, 1, 1]), charges=np.ones((4, 3)))
    assert reading.frames[0].numbers.tolist() == [8, 1, 1]


@pytest.mark.parametrize("key", ["units", "energy_unit", "e_unit"])
def test_units_that_are_stated_go_before_those_of_md17(tmp_path: Path, key: str) -> None:
    arrays = {"E": np.array([-1.0, -2.0]), "F": np.ones((2, 3, 3)), "R": np.eye(3)[None].repeat(2, 0), "z": [8, 1, 1]}
    reading = read_saved(tmp_path, **arrays, **{key: "eV"})
    assert (reading.units.energy, reading.frames[1].energy) == ("eV", -2.0)


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    reading = read_saved(
        tmp_path,
        **archive(4),
        **{"name": "water", "theory": b"PBE", "md5": b"0a", "type": "d", "README": np.array(["two", "lines"])},
        **{"F_max": 3.0, "energy_unit": "eV", "units": "eV", "Energies": np.ones(4), "dipoles": np.ones((4, 3))},
        **{"Q": np.zeros(4), "smiles": np.array(["O"] * 4), "charges": np.array([-0.8, 0.4, 0.4]), "charge": 0.0},
    )
    unused = "Energies, dipoles, Q, smiles, charges"  # charge is read
    assert reading.notes == [f"the archive has arrays that are not read: {unused}."]
    assert (reading.keys.energy, list(reading.ignored)) == ("energies", ["Energies"])
    found = inspect_file(tmp_path / "saved.npz", Asked(check=False))
    assert any(unused in warning for warning in found["warnings"])


@pytest.mark.parametrize("name", ["gradients", "gradient", "grad", "energy_grad"])
def test_gradients_are_no_forces(tmp_path: Path, name: str) -> None:
    arrays = archive(4)
    reading = read_saved(tmp_path, **{name: -arrays.pop("forces")}, **arrays)
    assert reading.keys.forces is None
    assert all(frame.forces is None for frame in reading.frames)
    assert reading.notes[0] == f"the archive has arrays that are not read: {name}."
    assert "negative gradient" in reading.notes[1]


@pytest.mark.parametrize(
    "save", [np.bytes_, np.str_, lambda text: np.array([text]), lambda text: np.array([text], "S")]
)
def test_units_in_bytes(tmp_path: Path, save: Callable[[str], np.ndarray]) -> None:
    arrays = archive(2)
    said = {"e_unit": save("kcal/mol"), "r_unit": save("bohr")}
    reading = read_saved(tmp_path, z=[8, 1, 1], R=arrays["positions"], E=arrays["energies"], F=arrays["forces"], **said)
    assert (reading.units.energy, reading.units.length, reading.units.force) == ("kcal/mol", "bohr", "kcal/mol/bohr")
    assert reading.frames[1].energy == pytest.approx(arrays["energies"][1] * units.kcal / units.mol, rel=1e-6)
    np.testing.assert_allclose(reading.frames[1].positions, arrays["positions"][1] * units.Bohr, rtol=1e-6)
    assert reading.notes == []
    said = {"z": [8, 1, 1], "R": arrays["positions"], "E": arrays["energies"], "F": arrays["forces"]}
    reading = read_saved(tmp_path, **said, e_unit=save("eV"))  # without a unit of length, forces follow as well
    assert (reading.units.energy, reading.units.length, reading.units.force) == ("eV", "Å", "eV/Å")
    reading = read_saved(tmp_path, **said, stress_unit=save("GPa"))  # says nothing of the others, which are MD17's
    assert (reading.units.energy, reading.units.force, reading.units.stress) == ("kcal/mol", "kcal/mol/Å", "GPa")


def test_groups_in_bytes(tmp_path: Path) -> None:
    names = np.array([f"run {n}" for n in range(12)])
    written = [read_saved(tmp_path, **archive(12), source=names.astype(kind)) for kind in ("U", "S")]
    assert [frame.group for frame in written[0].frames] == [frame.group for frame in written[1].frames]
    assert written[1].frames[3].group == "3 atoms, run 3"
    assert len(read_saved(tmp_path, **archive(12), source="VASP").frames) == 12


@pytest.mark.parametrize("counts", [{}, {"N": np.array([3, 2, 1, 3])}])
@pytest.mark.parametrize("padding", [0, -1])
def test_padded_atoms_as_of_physnet(tmp_path: Path, counts: dict[str, np.ndarray], padding: int) -> None:
    arrays = archive(4)
    numbers = np.array([[8, 1, 1], [8, 1, padding], [8, padding, padding], [1, 8, 1]])
    arrays["forces"][numbers == padding] = np.nan
    fields = {"Z": numbers, "R": arrays["positions"], "F": arrays["forces"], "E": arrays["energies"]}
    reading = read_saved(tmp_path, **fields, **counts)
    assert reading.n_isolated == 1  # the single atom
    assert [frame.numbers.tolist() for frame in reading.frames] == [[8, 1, 1], [8, 1], [1, 8, 1]]
    np.testing.assert_array_equal(reading.frames[1].positions, arrays["positions"][1, :2])
    np.testing.assert_array_equal(reading.frames[1].forces, arrays["forces"][1, :2])  # type: ignore[arg-type]
    assert reading.frames[2].energy == arrays["energies"][3]
    assert (reading.units.energy, [note for note in reading.notes if "isolated" not in note]) == ("eV", [])


@pytest.mark.parametrize("name", ["symbols", "elements", "species"])
def test_symbols_of_elements(tmp_path: Path, name: str) -> None:
    arrays = archive(2)
    del arrays["numbers"]
    assert read_saved(tmp_path, **arrays, **{name: ["O", "H", "H"]}).frames[0].numbers.tolist() == [8, 1, 1]
    padded = read_saved(tmp_path, **arrays, **{name: np.array([["O", "H", "H"], ["H", "Cl", ""]], "S")})
    assert [frame.numbers.tolist() for frame in padded.frames] == [[8, 1, 1], [1, 17]]
    with pytest.raises(MdpotError, match="an archive of frames holds atomic numbers"):  # may be types, from 0 on
        read_saved(tmp_path, **arrays, **{name: [0, 1, 1]})
