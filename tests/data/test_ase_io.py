"""Reading through ASE: labels under several names, stress, groups, bad files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file, read_frames
from mdpot.training.data.readers.ase_io import parse_ase

from .metals import coppers


@pytest.fixture
def atoms() -> Atoms:
    rng = np.random.default_rng(0)
    structure = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    structure.rattle(0.1, seed=1)
    stress = rng.normal(size=6) * 0.01
    structure.calc = SinglePointCalculator(structure, energy=-27.0, forces=rng.normal(size=(8, 3)), stress=stress)
    return structure


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.extxyz.gz", "frames.traj", "frames.json"])
def test_formats(tmp_path: Path, atoms: Atoms, name: str) -> None:
    write(tmp_path / name, [atoms, atoms])
    frames = read_frames(tmp_path / name)
    assert len(frames) == 2
    frame = frames[1]
    assert frame.energy == pytest.approx(-27.0)
    assert frame.forces is not None
    assert frame.stress is not None
    np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-7)
    np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-7)
    np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
    np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-7)
    assert frame.numbers.tolist() == atoms.numbers.tolist()


def test_labels_under_other_names(tmp_path: Path, atoms: Atoms) -> None:
    plain = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    plain.info["REF_energy"] = -1.5
    plain.arrays["REF_forces"] = atoms.get_forces()
    plain.info["REF_virial"] = -atoms.get_stress(voigt=False) * atoms.get_volume()
    write(tmp_path / "frames.extxyz", plain)
    (frame,) = read_frames(tmp_path / "frames.extxyz")
    assert frame.energy == -1.5
    assert frame.forces is not None
    assert frame.stress is not None
    np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-7)
    np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-7)


def test_absent_labels_are_none(tmp_path: Path, atoms: Atoms) -> None:
    atoms.calc = None
    write(tmp_path / "frames.xyz", atoms, format="extxyz")
    (frame,) = read_frames(tmp_path / "frames.xyz")
    assert frame.energy is None
    assert frame.forces is None
    assert frame.stress is None


@pytest.mark.parametrize("key", ["trajectory", "config_type"])
@pytest.mark.parametrize(
    "names", [[f"run {k}" for k in range(10)], [chr(65 + k // 7) + chr(65 + k % 7) for k in range(50)]]
)
def test_names_that_count_or_are_many_are_groups(tmp_path: Path, atoms: Atoms, key: str, names: list[str]) -> None:
    frames = _named(tmp_path, atoms, key, [name for name in names for _ in range(3)])
    assert [f.group for f in frames] == [name for name in names for _ in range(3)]


@pytest.mark.parametrize("key", ["group", "config_type"])
def test_other_names_are_those_of_kinds(tmp_path: Path, atoms: Atoms, key: str) -> None:
    names = [
        "EOS",
        "Elastic_BCC",
        "Elastic_FCC",
        "GSF_110",
        "GSF_112",
        "Shear",
        "Strain",
        "Volume_A15",
        "aIn",
        "aP",
        "s_aIn",
        "vv",
    ]
    frames = _named(tmp_path, atoms, key, [name for name in names for _ in range(6)])
    assert [f.kind for f in frames] == [name for name in names for _ in range(6)]
    assert len({f.group for f in frames}) >= 3 * len(names)


def _named(folder: Path, atoms: Atoms, key: str, names: list[str]) -> list[Frame]:
    """Frames of a file, all different, that it gives names to."""
    structures = []
    for k, name in enumerate(names):
        structures.append(atoms.copy())
        structures[-1].rattle(seed=k)
        structures[-1].info[key] = name
    write(folder / "frames.extxyz", structures)
    return read_frames(folder / "frames.extxyz")


@pytest.mark.parametrize("n_lines", [3, 5, 15])
def test_truncated(tmp_path: Path, atoms: Atoms, n_lines: int) -> None:
    path = tmp_path / "frames.extxyz"
    write(path, [atoms, atoms])
    path.write_text("\n".join(path.read_text().splitlines()[:n_lines]))
    with pytest.raises(MdpotError, match=r"frames\.extxyz: truncated: the frame of line") as caught:
        read_frames(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="no such file"):
        read_frames(tmp_path / "none.xyz")
    (tmp_path / "empty.xyz").touch()
    with pytest.raises(MdpotError, match="empty"):
        read_frames(tmp_path / "empty.xyz")
    (tmp_path / "letter.txt").write_text("Dear reviewer,\nthe frames are in the attachment.\n")
    with pytest.raises(MdpotError, match="not a format that is known here"):
        read_frames(tmp_path / "letter.txt")
    (tmp_path / "packed.xyz.gz").write_bytes(gzip.compress(b"3\n\nO 0 0 0\nH 0")[:-9])
    with pytest.raises(MdpotError, match="truncated"):
        read_frames(tmp_path / "packed.xyz.gz")


def test_what_has_not_the_shape_of_a_label_is_none(tmp_path: Path, atoms: Atoms) -> None:
    atoms.info["model_stress"] = np.zeros(5)
    write(tmp_path / "frames.extxyz", atoms)
    reading = read_file(tmp_path / "frames.extxyz")
    assert reading.keys.stress == "stress"
    assert list(reading.ignored) == ["model_stress"]


@pytest.mark.parametrize("text", ["0.34 eV", "None", "***"])
def test_an_energy_that_is_text_is_named(tmp_path: Path, atoms: Atoms, text: str) -> None:
    path = tmp_path / "frames.extxyz"
    write(path, [atoms, atoms])
    first, energy, second = path.read_text().rpartition("energy=-27.0")
    path.write_text(f'{first}energy="{text}"{second}')
    assert energy
    reading = read_file(path)
    note = f"energy is not a number in 1 of 2 frames, and not used there: in frame 1 it is {text!r}."
    assert note in reading.notes
    assert len(reading.frames) == 2
    assert reading.frames[1].energy is None
    path.write_text(path.read_text().replace("energy=-27.0", "energy=unknown"))
    refusal = read_file(path, need=("energy", "forces")).refusal
    assert "Keys there that might be labels: energy." in refusal
    assert "in frame 0 it is 'unknown'" in refusal


def test_an_energy_whose_key_names_its_unit(tmp_path: Path, atoms: Atoms) -> None:
    path = tmp_path / "frames.extxyz"
    write(path, [atoms, atoms])
    path.write_text(path.read_text().replace("energy=-27.0", "energy_Ha=-1.0"))
    reading = read_file(path, Asked(energy_key="energy_Ha", forces_key="forces"))
    assert reading.frames[0].energy == pytest.approx(-27.2114, abs=1e-4)
    path.write_text(path.read_text().replace("energy_Ha=-1.0", "energy_Ha=-1.0 energy_unit=eV"))
    assert read_file(path, Asked(energy_key="energy_Ha", forces_key="forces")).frames[0].energy == -1.0


def test_frames_that_did_not_converge_are_named(tmp_path: Path, atoms: Atoms) -> None:
    frames = [atoms.copy() for _ in range(3)]
    for n, frame in enumerate(frames):
        frame.calc, frame.info["scf_converged"] = atoms.calc, n != 1
    write(tmp_path / "frames.extxyz", frames)
    note = "scf_converged is false in 1 of 3 frames, the first of them frame 1: if their electrons did not converge"
    assert any(said.startswith(note) for said in read_file(tmp_path / "frames.extxyz").notes)
    for frame in frames:
        frame.info["scf_converged"] = True
    write(tmp_path / "frames.extxyz", frames)
    assert not any("converge" in said for said in read_file(tmp_path / "frames.extxyz").notes)


def test_an_energy_with_a_decimal_comma_is_named(tmp_path: Path, atoms: Atoms) -> None:
    path = tmp_path / "frames.extxyz"
    write(path, [atoms, atoms])
    path.write_text(path.read_text().replace("energy=-27.0", "energy=-27,5"))
    refusal = read_file(path, need=("energy", "forces")).refusal
    assert "in frame 0 it is [-27, 5] (if of a decimal comma, write a point)" in refusal


def test_a_key_of_units_is_no_label_of_text(tmp_path: Path, atoms: Atoms) -> None:
    atoms.info["unit_energy"] = "eV"
    write(tmp_path / "frames.extxyz", atoms)
    assert not read_file(tmp_path / "frames.extxyz").notes


def test_the_stress_of_a_slab_is_named(tmp_path: Path, atoms: Atoms) -> None:
    slab = atoms.copy()
    slab.calc = atoms.calc
    slab.pbc = (True, True, False)
    write(tmp_path / "frames.extxyz", [atoms, slab])
    reading = read_file(tmp_path / "frames.extxyz")
    assert [frame.stress is None for frame in reading.frames] == [False, True]
    assert reading.notes == [
        "stress is not used in 1 of 2 frames, the first of them frame 1, for they are not periodic in all three "
        "directions."
    ]


def test_real_crystals(data_folder: Path) -> None:
    frames = read_frames(data_folder / "crystals" / "mad_subset.extxyz.gz")
    assert len(frames) == 850
    assert all(frame.energy is not None and frame.forces is not None for frame in frames)
    assert any(frame.stress is not None for frame in frames)


def test_charges_that_differ_are_noted(tmp_path: Path, atoms: Atoms) -> None:
    """No network here knows them."""
    structures = [atoms.copy() for _ in range(4)]
    for k, one in enumerate(structures):
        one.calc = SinglePointCalculator(one, energy=-1.0 - k, forces=np.full((len(one), 3), 0.1))
        one.info |= {"charge": k % 2, "spin": 1}
    write(tmp_path / "frames.extxyz", structures)
    (note,) = (n for n in parse_ase(tmp_path / "frames.extxyz", Asked()).keys.notes if "networks" in n)
    assert note.startswith("charge differs among the frames (0, 1)")


@pytest.mark.parametrize(("moments", "noted"), [([0.6, 0.6, 0.6, 0.6], False), ([0.6, -0.6, 0.6, -0.6], True)])
def test_several_magnetic_orders_are_noted(tmp_path: Path, moments: list[float], noted: bool) -> None:
    frames = coppers(4)
    for n, atoms in enumerate(frames):
        assert atoms.calc is not None
        atoms.calc.results["magmoms"] = np.array(moments if n == 2 else [0.6, 0.55, 0.6, 0.6])
    write(tmp_path / "frames.extxyz", frames, format="extxyz")
    said = "net magnetic moments of Cu are 0 to 0.59 μB per atom, and networks do not know them"
    assert any(said in note for note in read_file(tmp_path / "frames.extxyz").notes) == noted
