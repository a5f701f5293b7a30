"""Archives of NumPy: cells, periodic directions, stress and virial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units

from mdpot.errors import MdpotError

from .archives import archive, read_saved
from .metals import coppers

CELL = np.array([[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [0.5, -2.0, 7.0]])
EDGES = np.array([9.0, 8.0, 7.0])
SLAB = [True, True, False]


@pytest.mark.parametrize("name", ["box", "boxes", "cell", "cells", "lattice", "lattices", "Lattice"])
def test_cells_under_all_of_their_names(tmp_path: Path, name: str) -> None:
    cells = CELL * np.linspace(1.0, 1.2, 4)[:, None, None]
    reading = read_saved(tmp_path, **archive(4), **{name: cells})
    np.testing.assert_array_equal([frame.cell for frame in reading.frames], cells)
    assert all(frame.pbc.all() for frame in reading.frames)
    assert reading.notes == []


@pytest.mark.parametrize("n", [1, 3, 4, 9])
@pytest.mark.parametrize(
    ("cells", "cell"),
    [
        (lambda n: CELL, CELL),
        (lambda n: CELL[None], CELL),
        (lambda n: CELL.ravel(), CELL),
        (lambda n: np.tile(CELL.ravel(), (n, 1)), CELL),
        (lambda n: EDGES, np.diag(EDGES)),
        (lambda n: EDGES.astype(int), np.diag(EDGES)),
    ],
)
def test_one_cell_for_all_frames(tmp_path: Path, n: int, cells: Callable[[int], np.ndarray], cell: np.ndarray) -> None:
    for frame in read_saved(tmp_path, **archive(n), cell=cells(n)).frames:
        np.testing.assert_array_equal(frame.cell, cell)
        assert frame.pbc.all()


def test_edges_of_boxes(tmp_path: Path) -> None:
    edges = EDGES * np.linspace(1.0, 1.2, 4)[:, None]
    for frame, row in zip(read_saved(tmp_path, **archive(4), box=edges).frames, edges, strict=True):
        np.testing.assert_array_equal(frame.cell, np.diag(row))
    with pytest.raises(MdpotError, match=r"cells of the shape \[3, 3\] may be one cell or"):
        read_saved(tmp_path, **archive(3), box=edges[:3])


def test_one_number_is_the_edge_of_a_cube(tmp_path: Path) -> None:
    reading = read_saved(tmp_path, **archive(2), box=np.array(9.0))
    assert all(np.array_equal(frame.cell, 9 * np.eye(3)) and frame.pbc.all() for frame in reading.frames)


def test_pressures_are_no_stress(tmp_path: Path) -> None:
    reading = read_saved(tmp_path, **archive(2), box=np.array(9.0), stress=np.ones(2))
    assert all(frame.stress is None for frame in reading.frames)
    assert any("not read: stress" in note for note in reading.notes)


def test_zeros_are_no_cell(tmp_path: Path) -> None:
    mixed = np.array([CELL, np.zeros((3, 3)), CELL, CELL * [[1], [1], [0]]])
    reading = read_saved(tmp_path, **archive(4), cell=mixed)
    assert [frame.pbc.tolist() for frame in reading.frames] == [
        [True] * 3,
        [False] * 3,
        [True] * 3,
        [True, True, False],
    ]
    assert not any(frame.pbc.any() for frame in read_saved(tmp_path, **archive(4), cell=np.zeros((4, 3, 3))).frames)
    assert not any(frame.pbc.any() for frame in read_saved(tmp_path, **archive(4), box=np.zeros(3)).frames)


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize(
    ("pbc", "expected"),
    [
        (lambda n: np.tile(SLAB, (n, 1)), SLAB),
        (lambda n: np.tile(SLAB, (n, 1)).astype(int), SLAB),
        (lambda n: np.zeros((n, 3), bool), [False] * 3),
        (lambda n: np.zeros(n, bool), [False] * 3),
        (lambda n: np.array(False), [False] * 3),
        (lambda n: np.ones(3), [True] * 3),
    ],
)
def test_periodic_directions(tmp_path: Path, n: int, pbc: Callable[[int], np.ndarray], expected: list[bool]) -> None:
    reading = read_saved(tmp_path, **archive(n), cell=CELL, pbc=pbc(n))
    assert [frame.pbc.tolist() for frame in reading.frames] == [expected] * n


def test_three_words_for_the_directions(tmp_path: Path) -> None:
    assert read_saved(tmp_path, **archive(4), cell=CELL, pbc=np.array(SLAB)).frames[2].pbc.tolist() == SLAB
    with pytest.raises(MdpotError, match=r"pbc of the shape \[3\] may be of 3 directions or of 3 frames"):
        read_saved(tmp_path, **archive(3), cell=CELL, pbc=np.array(SLAB))


@pytest.fixture(scope="module")
def copper() -> list[Atoms]:
    return coppers(12)


def arrays_of(crystals: list[Atoms]) -> dict[str, np.ndarray]:
    return {
        "numbers": crystals[0].numbers,
        "positions": np.array([atoms.positions for atoms in crystals]),
        "energies": np.array([atoms.get_potential_energy() for atoms in crystals]),
        "forces": np.array([atoms.get_forces() for atoms in crystals]),
        "box": np.array([atoms.cell.array for atoms in crystals]),
    }


def virials(crystals: list[Atoms], voigt: bool = False) -> np.ndarray:
    return np.array([-atoms.get_stress(voigt=voigt) * atoms.get_volume() for atoms in crystals])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("stress", lambda crystals: [atoms.get_stress() for atoms in crystals]),
        ("stress", lambda crystals: [atoms.get_stress(voigt=False) for atoms in crystals]),
        ("stresses", lambda crystals: [atoms.get_stress(voigt=False).ravel() for atoms in crystals]),
        ("virial", virials),
        ("virials", lambda crystals: virials(crystals, voigt=True)),
        ("virials", lambda crystals: virials(crystals).reshape(-1, 9)),
    ],
)
def test_stress_and_virial(tmp_path: Path, copper: list[Atoms], name: str, make: Callable) -> None:
    reading = read_saved(tmp_path, **arrays_of(copper), **{name: np.array(make(copper))})
    assert (reading.keys.stress, reading.notes, reading.doubts()) == (name, [], [])
    for frame, atoms in zip(reading.frames, copper, strict=True):
        assert frame.stress is not None
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), rtol=1e-12, atol=1e-15)


def test_units_of_stress_and_virial(tmp_path: Path, copper: list[Atoms]) -> None:
    true = copper[3].get_stress(voigt=False)
    in_gpa = {**arrays_of(copper), "stress": np.array([atoms.get_stress() for atoms in copper]) / units.GPa}
    said = read_saved(tmp_path, **in_gpa, stress_unit="GPa").frames[3].stress
    np.testing.assert_allclose(said, true, rtol=1e-6)  # type: ignore[arg-type]
    assert "GPa" in " ".join(read_saved(tmp_path, **in_gpa).doubts())
    compressed = {**arrays_of(copper), "stress": -in_gpa["stress"] * units.GPa}
    assert "sign" in " ".join(read_saved(tmp_path, **compressed).doubts())
    kcal = units.kcal / units.mol
    arrays = {key: array / kcal if key in ("energies", "forces") else array for key, array in arrays_of(copper).items()}
    reading = read_saved(tmp_path, **arrays, virial=virials(copper) / kcal, e_unit=b"kcal/mol")
    np.testing.assert_allclose(reading.frames[3].stress, true, rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(reading.frames[3].forces, copper[3].get_forces(), rtol=1e-6)  # type: ignore[arg-type]


def test_a_stress_without_a_crystal_is_told(tmp_path: Path) -> None:
    pbc = np.array([[True] * 3, [True] * 3, SLAB, [False] * 3])
    reading = read_saved(tmp_path, **archive(4), cell=CELL, pbc=pbc, stress=np.ones((4, 6)))
    assert [frame.stress is None for frame in reading.frames] == [False, False, True, True]
    assert reading.notes == ["stress is not used in 2 of 4 frames: they are not periodic in all directions."]
