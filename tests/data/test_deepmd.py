"""DeePMD-kit's folders: types, sets, boxes, the sign of the virial, and what an incomplete one says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file
from mdpot.training.data.sources import load_dataset

from .metals import alloys

Arrays = dict[str, np.ndarray]


def arrays_of(frames: list[Atoms]) -> Arrays:
    """As DeePMD-kit has them; its virial is -dE/dε, ASE's stress (1/V) dE/dε."""
    return {
        "coord": np.array([a.positions.ravel() for a in frames]),
        "box": np.array([a.cell.array.ravel() for a in frames]),
        "energy": np.array([a.get_potential_energy() for a in frames]),
        "force": np.array([a.get_forces().ravel() for a in frames]),
        "virial": np.array([-a.get_volume() * a.get_stress(voigt=False).ravel() for a in frames]),
    }


def write_system(folder: Path, types: list[int], sets: list[Arrays], elements: str = "Cu\nAu\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    if elements:
        (folder / "type_map.raw").write_text(elements)
    for n, arrays in enumerate(sets):
        (folder / f"set.{n:03}").mkdir()
        for name, array in arrays.items():
            np.save(folder / f"set.{n:03}" / f"{name}.npy", array)
    return folder


@pytest.fixture
def frames() -> list[Atoms]:
    return alloys()


@pytest.fixture
def system(tmp_path: Path, frames: list[Atoms]) -> Path:
    return write_system(tmp_path / "CuAu", [0, 1, 1, 0], [arrays_of(frames[:2]), arrays_of(frames[2:])])


def test_parameters_of_frames_that_differ_are_noted(system: Path) -> None:
    """As the temperatures of their electrons do; networks do not know them."""
    for folder, values in (("set.000", [[300.0, 1.0], [300.0, 1.0]]), ("set.001", [[300.0, 1.0]])):
        np.save(system / folder / "fparam.npy", np.array(values))
    assert not read_file(system).notes
    np.save(system / "set.001" / "fparam.npy", np.array([[9000.0, 1.0]]))
    assert any("fparam.npy differs among the frames" in note for note in read_file(system).notes)


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (np.full((2, 1), 300.1), np.full((1, 1), 300.1, np.float32), False),
        (np.full((2, 1), 300.1), np.full((1, 1), 300.2, np.float32), True),
        (np.full(2, 300), np.full(1, 300.0), False),
        (np.zeros((2, 1)), -np.zeros((1, 1)), False),
        (np.array(300.0), np.array([300.0]), False),
        (np.array(300.0), np.array([400.0]), True),
        (np.full((2, 1), 300.0), None, True),
    ],
)
def test_parameters_are_compared_as_numbers(
    system: Path, first: np.ndarray, second: np.ndarray | None, differ: bool
) -> None:
    """Of any type and shape; frames without them differ from those that have some."""
    np.save(system / "set.000" / "fparam.npy", first)
    if second is not None:
        np.save(system / "set.001" / "fparam.npy", second)
    assert any("fparam.npy differs" in note for note in read_file(system).notes) == differ


def test_labels_are_those_of_the_calculator(system: Path, frames: list[Atoms]) -> None:
    reading = read_file(system)
    assert (reading.keys.energy, reading.keys.forces, reading.keys.stress) == ("energy", "force", "virial")
    assert str(reading.units).startswith("eV")
    assert reading.doubts() == []
    assert len(reading.frames) == 3
    assert [frame.index for frame in reading.frames] == [0, 1, 2]
    for frame, atoms in zip(reading.frames, frames, strict=True):
        assert (frame.numbers == atoms.numbers).all()
        assert frame.pbc.all()
        np.testing.assert_allclose(frame.positions, atoms.positions)
        np.testing.assert_allclose(frame.cell, atoms.cell.array)
        assert frame.energy == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(frame.labels["forces"], atoms.get_forces())
        np.testing.assert_allclose(frame.labels["stress"], atoms.get_stress(voigt=False), atol=1e-12)


def test_text_is_read_where_there_are_no_sets(tmp_path: Path, frames: list[Atoms]) -> None:
    folder = write_system(tmp_path / "raw", [0, 1, 1, 0], [])
    for name, array in arrays_of(frames).items():
        np.savetxt(folder / f"{name}.raw", array)
    found = read_file(folder).frames
    assert len(found) == 3
    np.testing.assert_allclose(found[2].labels["forces"], frames[2].get_forces())
    np.testing.assert_allclose(found[2].labels["stress"], frames[2].get_stress(voigt=False), atol=1e-12)


def test_systems_at_any_depth_share_the_elements_of_the_folder(tmp_path: Path, frames: list[Atoms]) -> None:
    water = molecule("H2O")
    (tmp_path / "type_map.raw").write_text("O H Cu Au")
    write_system(tmp_path / "iter0" / "CuAu", [2, 3, 3, 2], [arrays_of(frames)], elements="")
    water_only = {"coord": water.positions.reshape(1, 9), "energy": np.array([[-14.2]]), "force": np.ones((1, 9))}
    (write_system(tmp_path / "iter1" / "H2O", [0, 1, 1], [water_only], elements="") / "nopbc").touch()
    reading = read_file(tmp_path)
    assert [frame.numbers.tolist() for frame in reading.frames] == [[29, 79, 79, 29]] * 3 + [[8, 1, 1]]
    single = reading.frames[-1]
    assert not single.pbc.any()
    assert not single.cell.any()
    assert single.stress is None
    assert single.energy == -14.2


def test_mixed_types(tmp_path: Path, frames: list[Atoms]) -> None:
    arrays = arrays_of(frames[:2])
    arrays["real_atom_types"] = np.array([[1, 0, 0, 1], [0, 1, 0, -1]])
    found = read_file(write_system(tmp_path / "4", [0, 0, 0, 0], [arrays])).frames
    assert found[0].numbers.tolist() == [79, 29, 29, 79]
    assert found[1].numbers.tolist() == [29, 79, 29]
    assert found[1].forces is not None
    assert len(found[1].forces) == 3


def test_labels_may_be_absent_and_units_given(tmp_path: Path, frames: list[Atoms]) -> None:
    arrays = {name: array for name, array in arrays_of(frames).items() if name != "virial"}
    folder = write_system(tmp_path / "s", [0, 1, 1, 0], [arrays])
    assert read_file(folder).keys.stress is None
    inspected = CliRunner().invoke(main, ["data", "inspect", str(folder), "--units", "energy=meV,force=eV/Å", "--json"])
    assert inspected.exit_code == 0, inspected.output
    facts = json.loads(inspected.stdout)
    assert facts["frames"] == 3
    assert facts["elements"] == ["Cu", "Au"]
    assert facts["first"]["energy"] == pytest.approx(1e-3 * frames[0].get_potential_energy())


def test_a_folder_is_data_for_custom_alone(system: Path) -> None:
    assert len(load_dataset("custom", system)) == 3
    with pytest.raises(MdpotError, match="--data for water-rpbe must be, or hold"):
        load_dataset("water-rpbe", system)
    (empty := system.parent / "empty").mkdir()
    with pytest.raises(MdpotError, match=r"no output of a calculation.*it is empty"):
        load_dataset("custom", empty)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "type_map.raw").unlink(), "no type_map.raw, here or in a folder.*an element a line"),
        (lambda s: (s / "type_map.raw").write_text("Cu\n"), "types must be integers from 0 to 0.*got 0, 1"),
        (lambda s: (s / "type_map.raw").write_text("Cu Gold"), "unknown element in .*type_map.raw 'Gold'"),
        (lambda s: (s / "type.raw").write_text("0\nCu\n"), "type.raw: it must hold numbers"),
        (lambda s: (s / "type.raw").write_text(""), "type.raw: empty"),
        (
            lambda s: (s / "type.raw").write_text("0 1 1"),
            r"coord.npy: it must have the shape \[n_frames, 9\].*\[2, 12\]",
        ),
        (lambda s: (s / "set.000" / "coord.npy").unlink(), "has coord.npy in each folder set"),
        (
            lambda s: (s / "set.000" / "box.npy").unlink(),
            "no box.npy, and there is no file named nopbc",
        ),
        (lambda s: (s / "set.001" / "force.npy").write_bytes(b"\x93NUMPY"), "force.npy: no array of NumPy"),
        (
            lambda s: (s / "set.001" / "force.npy").write_bytes(b"PK\x03\x04" + b"x" * 50),
            "force.npy: no array of NumPy",
        ),
        (
            lambda s: (s / "set.001" / "force.npy").write_bytes(b"\x93NUMPY\x01\x00\x05\x00{'a'\n"),
            "force.npy: no array",
        ),
        (lambda s: (s / "set.001" / "force.npy").write_bytes(b"nothing"), "it holds Python objects, or something else"),
        (lambda s: (s / "type.raw").write_text("# only this\n"), "type.raw: it must hold numbers"),
        (lambda s: (s / "type_map.raw").write_text(" "), "type_map.raw: empty"),
        (lambda s: ((s / "type.raw").unlink(), (s / "type.raw").mkdir()), "type.raw: a folder"),
        (lambda s: np.save(s / "set.000" / "real_atom_types.npy", np.full((2, 4), -1)), "frame 0 has no atom"),
        (lambda s: np.save(s / "set.001" / "energy.npy", np.ones(2)), r"energy.npy: .*shape \[1, 1\].*got \[2\]"),
        (lambda s: np.save(s / "set.001" / "energy.npy", np.array(["a"])), "array of real numbers"),
    ],
)
def test_what_is_wrong_is_named(system: Path, spoil, message: str) -> None:
    spoil(system)
    with pytest.raises(MdpotError, match=message) as error:
        read_file(system)
    assert "\n" not in str(error.value)
