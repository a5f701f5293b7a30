"""MTP's .cfg: types that are numbers, cells, and the sign of the virial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.sources import load_dataset

from .metals import alloys

NEED = ("energy", "forces")
TYPES = ("Au", "Cu", "H")


def row(values: np.ndarray | list[float]) -> str:
    return " ".join(f"{x:.10f}" for x in values)


def cfg(frames: list[Atoms], direct: bool = False, labels: bool = True) -> str:
    text = ""
    for atoms in frames:
        text += f"BEGIN_CFG\n Size\n    {len(atoms)}\n"
        if atoms.pbc.any():
            text += " Supercell\n" + "".join(f"   {row(vector)}\n" for vector in atoms.cell.array)
        kind = "direct" if direct else "cartes"
        text += f" AtomData:  id type {kind}_x {kind}_y {kind}_z" + " fx fy fz" * labels + " nbh_grades\n"
        places = atoms.get_scaled_positions(wrap=False) if direct else atoms.positions
        for n, (symbol, place) in enumerate(zip(atoms.symbols, places, strict=True), 1):
            forces = row(atoms.get_forces()[n - 1]) if labels else ""
            text += f"   {n} {TYPES.index(symbol)} {row(place)} {forces} 0.0\n"
        if labels:
            text += f" Energy\n   {atoms.get_potential_energy():.10f}\n"
        if labels and atoms.pbc.all():
            text += f" PlusStress:  xx yy zz yz xz xy\n   {row(-atoms.get_volume() * atoms.get_stress())}\n"
        text += " Feature   EFS_by       VASP\n Feature   mindist      2.1\nEND_CFG\n\n"
    return text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "type_map.raw").write_text("\n".join(TYPES) + "\n")
    return tmp_path / "train.cfg"


@pytest.mark.parametrize("direct", [False, True])
def test_crystals(path: Path, direct: bool) -> None:
    frames = alloys(12, sizes=(1, 2))
    path.write_text(cfg(frames, direct))
    reading = read_file(path, need=NEED)
    assert (str(reading.keys), reading.units.source, reading.notes) == ("energy, forces, virial", "of the format", [])
    assert reading.doubts() == []
    for frame, atoms in zip(reading.frames, frames, strict=True):
        assert frame.numbers.tolist() == atoms.numbers.tolist()
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-9)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-9)  # type: ignore[arg-type]
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-9)  # type: ignore[arg-type]
    assert len(load_dataset("custom", path)) == 12
    assert read_file(path, Asked(stress_key="ignore"), NEED).frames[0].stress is None


def test_molecules_and_crystals(path: Path) -> None:
    water = molecule("H2")
    water.calc = EMT()
    path.write_text(cfg([*alloys(2, sizes=(1, 2)), water]))
    frame = read_file(path, need=NEED).frames[2]
    assert (frame.numbers.tolist(), frame.pbc.any(), frame.cell.any(), frame.stress) == ([1, 1], False, False, None)
    path.write_text(cfg(alloys(2, sizes=(1, 2)), labels=False))
    assert read_file(path, need=()).frames[1].forces is None


def test_a_stress_of_unknown_sign_is_not_read(path: Path) -> None:
    path.write_text(cfg(alloys(2, sizes=(1, 2))).replace("PlusStress:", "Stress:"))
    reading = read_file(path, need=NEED)
    assert [frame.stress for frame in reading.frames] == [None, None]
    assert "2 configurations have a stress that is not called PlusStress" in reading.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("END_CFG\n\n", "", r"truncated: the configuration of line 1 has no END_CFG"),
        (
            " Size\n    4\n",
            " Size\n    5\n",
            r"configuration 1 \(line 1\): its AtomData must be 5 rows.*got 4 rows, and 3",
        ),
        ("   1 1 ", "   1 7 ", r"types must be integers from 0 to 2, for type_map\.raw names 3 elements; got 0, 1, 7"),
        ("   1 1 ", "   1 ", r"cannot be read \(ValueError"),
        (" Energy\n   ", " Energy\n   none ", r"cannot be read \(ValueError"),
        ("cartes_x", "cart_x", r"AtomData needs the columns direct_x direct_y direct_z; got id type cart_x"),
        (" Size\n", " 4\n Size\n", r"it must begin with Size; got '4'"),
    ],
)
def test_damaged_files(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(cfg(alloys(1)).replace(old, new))
    with pytest.raises(MdpotError, match=message):
        read_file(path, need=NEED)


def test_a_folder_of_them(path: Path) -> None:
    for name in ("train.cfg", "valid.cfg"):
        path.with_name(name).write_text(cfg(alloys(2, sizes=(1, 2))))
    reading = read_file(path.parent, need=NEED)
    assert reading.files == "2 MTP: train.cfg to valid.cfg"
    assert (len(reading.frames), reading.keys.stress) == (4, "virial")


def test_without_elements(path: Path) -> None:
    path.write_text(cfg(alloys(1)))
    (path.parent / "type_map.raw").write_text("Au\nCopper\n")
    with pytest.raises(MdpotError, match=r"unknown element in .*type_map\.raw 'Copper'"):
        read_file(path)
    (path.parent / "type_map.raw").unlink()
    with pytest.raises(MdpotError, match=r"Write type_map\.raw beside it, an element a line in the order of the types"):
        read_file(path)
