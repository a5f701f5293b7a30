"""HDF5 files in the layouts of SPICE, ANI-1x and QM7-X, and plain arrays."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.units import Bohr, Hartree, kcal, mol

from mdpot.electrons import Electrons
from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.reading import Reading

from .metals import coppers

h5py = pytest.importorskip("h5py")
NEED = ("energy", "forces")
SYSTEMS = {"ammonia": [7, 1, 1, 1], "methane": [6, 1, 1, 1, 1], "water": [8, 1, 1]}


def numbers_of(n: int, n_atoms: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, energies and forces in eV and Å."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_atoms, 3)), -2000 + rng.normal(size=n), rng.normal(size=(n, n_atoms, 3))


def put(group: Any, name: str, value: Any, unit: str | bytes | None = None) -> None:
    found = group.create_dataset(name, data=value)
    if unit is not None:
        found.attrs["units"] = unit


def spice(path: Path, n: int = 4, **units: str) -> Path:
    said = {"conformations": "bohr", "dft_total_energy": "hartree", "dft_total_gradient": "hartree/bohr", **units}
    with h5py.File(path, "w") as file:
        for seed, (name, z) in enumerate(SYSTEMS.items()):
            positions, energies, forces = numbers_of(n, len(z), seed)
            group = file.create_group(name)
            put(group, "atomic_numbers", np.array(z, np.int16))
            put(group, "conformations", (positions / Bohr).astype(np.float32), said["conformations"])
            put(group, "dft_total_energy", energies / Hartree, said["dft_total_energy"])
            gradients = (-forces / Hartree * Bohr).astype(np.float32)
            put(group, "dft_total_gradient", gradients, said["dft_total_gradient"])
            put(group, "formation_energy", energies / Hartree, said["dft_total_energy"])
            put(group, "mbis_charges", np.zeros((n, len(z), 1)), "elementary charge")
            put(group, "smiles", np.array(["[H:1]O"], dtype=object))
            put(group, "subset", np.array(["SPICE PubChem"], dtype=object))
    return path


def assert_all(reading: Reading, n: int = 4) -> None:
    frames = iter(reading.frames)
    for seed, z in enumerate(SYSTEMS.values()):
        for positions, energy, forces in zip(*numbers_of(n, len(z), seed), strict=True):
            frame = next(frames)
            assert frame.numbers.tolist() == z
            assert frame.energy == pytest.approx(energy, rel=1e-7)
            np.testing.assert_allclose(frame.positions, positions, atol=1e-6)
            np.testing.assert_allclose(frame.forces, forces, atol=1e-6)  # type: ignore[arg-type]
    assert next(frames, None) is None


def test_spice(tmp_path: Path) -> None:
    """In the file's units, with the gradient's sign turned; a molecule is a group."""
    reading = read_file(spice(tmp_path / "SPICE.hdf5"), need=NEED)
    assert_all(reading)
    assert (reading.keys.energy, reading.keys.forces) == ("dft_total_energy", "dft_total_gradient")
    assert (reading.units.energy, reading.units.force, reading.units.source) == (
        "Hartree",
        "Hartree/bohr",
        "stated in the file",
    )
    assert [frame.group.split("#")[0] for frame in reading.frames] == [name for name in SYSTEMS for _ in range(4)]
    assert {frame.file for frame in reading.frames} == set(SYSTEMS)
    (note,) = reading.notes
    assert note == "the file has data sets that are not read: formation_energy, mbis_charges, smiles, subset."
    given = read_file(tmp_path / "SPICE.hdf5", Asked(units="atomic", energy_key="dft_total_energy"), NEED)
    assert_all(given)
    assert given.units.source == "given"


def test_a_molecule_never_parts(tmp_path: Path) -> None:
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        for n in range(12):
            positions, energies, forces = numbers_of(3, 3, n)
            group = file.create_group(f"m{n:02}")
            for name, value in {"species": ["O", "H", "H"], "coordinates": positions, "energies": energies}.items():
                put(group, name, np.array(value, "S") if name == "species" else value)
            put(group, "forces", forces)
    reading = read_file(path, need=NEED)
    assert [frame.group for frame in reading.frames] == [f"m{n:02}" for n in range(12) for _ in range(3)]
    assert reading.frames[0].numbers.tolist() == [8, 1, 1]


def test_ani_1x(tmp_path: Path) -> None:
    """Of several families the user says which; NaN is no label; Hartree and Hartree/Å are known."""
    path = tmp_path / "ani1x-release.h5"
    with h5py.File(path, "w") as file:
        for seed, (name, z) in enumerate(SYSTEMS.items()):
            positions, energies, forces = numbers_of(4, len(z), seed)
            group = file.create_group(name)
            put(group, "atomic_numbers", np.array(z, np.uint8))
            put(group, "coordinates", positions.astype(np.float32))
            put(group, "wb97x_dz.energy", energies / Hartree)
            put(group, "wb97x_dz.forces", forces / Hartree)
            some = np.array([np.nan, 1, np.nan, 1])
            put(group, "wb97x_tz.energy", energies / Hartree * some - 1)
            put(group, "wb97x_tz.forces", forces / Hartree * some[:, None, None])
            put(group, "ccsd(t)_cbs.energy", energies / Hartree * some - 2)
    with pytest.raises(MdpotError, match=r"several families .*wb97x_dz\.energy, wb97x_dz\.forces .*wb97x_tz\.energy, "):
        read_file(path, need=NEED)
    reading = read_file(path, Asked(energy_key="wb97x_dz.energy"), NEED)
    assert_all(reading)
    assert (reading.keys.forces, reading.units.source) == ("wb97x_dz.forces", "of the format")
    reading = read_file(path, Asked(energy_key="wb97x_tz.energy"), NEED)
    assert (len(reading.frames), reading.n_unlabeled) == (6, 6)
    reading = read_file(path, Asked(energy_key="ccsd(t)_cbs.energy"), ("energy",))
    assert (len(reading.frames), reading.keys.forces) == (6, None)
    energy = numbers_of(4, 4)[1][1]
    assert reading.frames[0].energy == pytest.approx(energy - 2 * Hartree)


def test_qm7x(tmp_path: Path) -> None:
    """Groups in groups, a structure each; those of a molecule are together."""
    path = tmp_path / "1000.hdf5"
    with h5py.File(path, "w") as file:
        for seed, (name, z) in enumerate(SYSTEMS.items()):
            for n, (positions, energy, forces) in enumerate(zip(*numbers_of(4, len(z), seed), strict=True)):
                group = file.create_group(f"{name}/Geom-i1-c1-d{n}")
                put(group, "atNUM", np.array(z))
                put(group, "atXYZ", positions)
                put(group, "ePBE0+MBD", [energy])
                put(group, "totFOR", forces)
                put(group, "hCHG", np.zeros(len(z)))
    reading = read_file(path, need=NEED)
    assert [frame.file for frame in reading.frames] == [f"{name}/Geom-i1-c1-d{n}" for name in SYSTEMS for n in range(4)]
    by_name = {frame.file: frame for frame in reading.frames}
    positions, energies, forces = numbers_of(4, 5, 1)
    for n in range(4):
        frame = by_name[f"methane/Geom-i1-c1-d{n}"]
        assert frame.energy == energies[n]
        np.testing.assert_array_equal(frame.forces, forces[n])  # type: ignore[arg-type]
        np.testing.assert_array_equal(frame.positions, positions[n])
        assert frame.group.startswith("methane#")


def test_charges_of_structures_and_of_atoms(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    positions, energies, forces = numbers_of(3, 3)
    with h5py.File(path, "w") as file:
        for name, charge in {"all": 1, "each": [[0], [1], [-1]]}.items():
            for key, value in {
                "atNUM": [8, 1, 1],
                "positions": positions,
                "energy": energies,
                "forces": forces,
            }.items():
                put(file, f"{name}/{key}", np.array(value))
            put(file, f"{name}/charges", np.full((3, 3), 0.4))
            put(file, f"{name}/total_charge", np.array(charge, float))
        for key, value in {"atNUM": [8, 1, 1], "positions": positions[0], "forces": forces[0]}.items():
            put(file, f"one/a/{key}", np.array(value))
        put(file, "one/a/energy", energies[0])
        put(file, "one/a/charge", [0.4, 0.3, 0.3])
        put(file, "one/a/Q", 2)
        put(file, "one/a/multiplicity", [3])
    frames = read_file(path, need=NEED).frames
    assert [frame.electrons.charge for frame in frames] == [1, 1, 1, 0, 1, -1, 2]
    assert frames[-1].electrons == Electrons(2, 2)
    assert all(frame.numbers.tolist() == [8, 1, 1] for frame in frames)
    with h5py.File(path, "a") as file:
        file["all/total_charge"][()] = 0.5
    odd = next(frame for frame in read_file(path).frames if frame.electrons.unclear)
    with pytest.raises(
        MdpotError, match=r"charge=0\.5 is no whole number"
    ):  # of a force field; a network does not mind
        odd.electrons.settled(odd.numbers)


@pytest.mark.parametrize("name", ["frame_{}", "frame_{}/scf", "run/frame_{}/scf_{}"])
def test_a_group_for_each_frame_of_a_trajectory(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A structure alone in its group is no molecule: neighbors stay together, in the order of their numbers."""
    monkeypatch.setattr("mdpot.training.data.frames.N_CHUNKS", 20)
    z, (positions, energies, forces) = SYSTEMS["water"], numbers_of(60, 3)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for n in range(60):
            group = file.create_group(name.format(n, n))
            for key, value in {"numbers": z, "positions": positions[n], "forces": forces[n]}.items():
                put(group, key, np.array(value))
            put(group, "energy", energies[n])
    frames = read_file(path, need=NEED).frames
    assert [frame.energy for frame in frames] == list(energies)
    groups = [frame.group for frame in frames]
    assert sum(one != other for one, other in pairwise(groups)) == 19
    with h5py.File(path, "a") as file:  # another molecule is another group
        group = file.create_group("other")
        for key, value in {"numbers": [8, 1], "positions": np.eye(3)[:2], "forces": np.eye(3)[:2]}.items():
            put(group, key, np.array(value))
        put(group, "energy", -1.0)
    last = next(frame for frame in read_file(path, need=NEED).frames if len(frame) == 2)
    assert last.group == "HO#0"


@pytest.mark.parametrize("stated", ["attributes", "set", "option"])
def test_plain_arrays_as_in_npz(tmp_path: Path, stated: str) -> None:
    """A periodic crystal with a virial, in kcal/mol."""
    crystals, unit = coppers(5), kcal / mol
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        put(file, "z", crystals[0].numbers)
        put(file, "R", np.array([a.positions for a in crystals]))
        put(file, "E", np.array([[a.get_potential_energy()] for a in crystals]) / unit)
        put(file, "F", np.array([a.get_forces() for a in crystals]) / unit)
        put(file, "box", np.array([a.cell.array for a in crystals]))
        put(file, "virial", np.array([-a.get_stress() * a.get_volume() for a in crystals]) / unit)
        if stated == "set":
            put(file, "units", "kcal/mol")
        if stated == "attributes":
            file.attrs["energy_unit"], file.attrs["length_unit"] = "kcal/mol", "Ang"
    reading = read_file(path, Asked(units="kcal/mol" if stated == "option" else None), NEED)
    assert str(reading.keys) == "E, F, virial"
    assert reading.doubts() == []
    for frame, atoms in zip(reading.frames, crystals, strict=True):
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), rtol=1e-6, atol=1e-9)  # type: ignore[arg-type]
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), rtol=1e-6, atol=1e-9)  # type: ignore[arg-type]
        assert frame.pbc.all()


def test_molecules_of_one_size_are_told_apart_by_formula(tmp_path: Path) -> None:
    """As of ANI-2x: a group for each number of atoms, the elements of each structure; numbers may be padded."""
    path = tmp_path / "ani2x.h5"
    positions, energies, forces = numbers_of(4, 3)
    with h5py.File(path, "w") as file:
        for name, z in {
            "003": [[8, 1, 1], [1, 8, 1], [16, 1, 1], [8, 1, 1]],
            "00x": [[8, 1, 0], [8, 1, 1]] * 2,
        }.items():
            group = file.create_group(name)
            for key, value in {"species": z, "atomic_numbers": z, "coordinates": positions}.items():
                put(group, key, np.array(value))
            put(group, "energies", energies)
            put(group, "forces", forces)
    reading = read_file(path, need=NEED)
    assert [frame.group.split("#")[0] for frame in reading.frames] == (
        ["00x, HO", "00x, H2O"] * 2 + ["003, H2O", "003, H2O", "003, H2S", "003, H2O"]
    )


def test_a_group_is_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    """As of Transition1x, whose parts are links into its data."""
    path = spice(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        names = list(file)
        file.create_group("train")
        for name in names:
            file[f"train/{name}"] = h5py.SoftLink(f"/{name}")
        file["train/again"] = file["/"]
    assert_all(read_file(path, need=NEED))


@pytest.mark.parametrize("link", ["alias", "zz", "mol/a", "mol/conf/again"])
def test_links_that_come_before_the_group_with_the_atomic_numbers(tmp_path: Path, link: str) -> None:
    path = tmp_path / "a.h5"
    positions, energies, forces = numbers_of(4, 3)
    with h5py.File(path, "w") as file:
        put(file, "mol/atomic_numbers", np.array([8, 1, 1]))
        for name, value in {"positions": positions, "energy": energies, "forces": forces}.items():
            put(file, f"mol/conf/{name}", value)
        file[link] = h5py.SoftLink("/mol/conf")
    reading = read_file(path, need=NEED)
    assert [frame.energy for frame in reading.frames] == pytest.approx(list(energies))


def test_what_the_groups_of_others_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        put(file, "003/species", np.array([[8, 1, 1]] * 4))
        put(file, "003/coordinates", np.zeros((4, 3, 3)))
    with pytest.raises(
        MdpotError, match=r"If 003/species holds atomic numbers, .* save them as atomic_numbers as well"
    ):
        read_file(path)
    with h5py.File(path, "w") as file:
        put(file, "water/type.raw", np.array([0, 1, 1]))
        put(file, "water/set.000/coord.npy", np.zeros((4, 9)))
    with pytest.raises(MdpotError, match=r"It is DeePMD-kit's: save its systems as folders"):
        read_file(path)


def test_errors(tmp_path: Path) -> None:
    path = spice(tmp_path / "a.hdf5", dft_total_gradient="furlong")
    with pytest.raises(MdpotError, match=r"unknown unit of force \(units of .*/dft_total_gradient\) 'furlong'"):
        read_file(path, need=NEED)
    assert_all(read_file(path, Asked(units="atomic"), NEED))
    with h5py.File(path, "a") as file:
        for name in SYSTEMS:
            file[f"{name}/dft_total_gradient"].attrs["units"] = "hartree/bohr"
        file["water/conformations"].attrs["units"] = "angstrom"
    with pytest.raises(MdpotError, match=r"ammonia/conformations is in bohr, and water/conformations in Å"):
        read_file(path, need=NEED)
    with h5py.File(path, "w") as file:
        put(file, "weights", np.zeros(3))
    with pytest.raises(MdpotError, match=r"no group in it has atomic numbers .*; at the top it has weights"):
        read_file(path)
    with h5py.File(path, "w") as file:
        put(file, "water/numbers", [8, 1])
        put(file, "water/positions", np.zeros((4, 3, 3)))
    with pytest.raises(MdpotError, match=r"a\.hdf5/water: atomic numbers must be 3 integers"):
        read_file(path)
    spice(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(MdpotError, match="no HDF5 file, truncated or damaged"):
        read_file(path)


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = spice(tmp_path / "a.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MdpotError, match=r'h5py, which is not installed\. pip install "mdpot\[hdf5\]"'):
        read_file(path)


def test_files_in_a_folder(tmp_path: Path) -> None:
    spice(tmp_path / "a.h5")
    spice(tmp_path / "b.h5")
    reading = read_file(tmp_path, need=NEED)
    assert len(reading.frames) == 24
    assert reading.files == "2 HDF5: a.h5 to b.h5"
