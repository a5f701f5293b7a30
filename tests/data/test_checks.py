"""One clear line for each fault a frame can have."""

from __future__ import annotations

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list
from mdpot.training.data.checks import MIN_DISTANCE, _surely_apart, validate_frames
from mdpot.training.data.frames import Frame
from mdpot.vesin_neighbors import full_cell

NAN_POSITIONS = np.array([[0.0, 0, 0], [0.96, np.nan, 0], [-0.24, 0.93, 0]])
TWO_CLOSE = np.array([[0.0, 0, 0], [0.96, 0, 0], [0.96, 0.2, 0]])
CLOSE_ACROSS = np.array([[0.1, 0, 0], [5.9, 0, 0], [3, 3, 3.0]])
FLAT = np.array([[6.0, 0, 0], [0, 6, 0], [6, 6, 0]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"energy": None}, r"frame 1: no energy\. Training needs"),
        ({"forces": None}, r"frame 1: no forces\. Training needs"),
        ({"forces": np.zeros((2, 3))}, r"frame 1: forces must have the shape .*\(3, 3\); got \(2, 3\)"),
        ({"energy": np.nan}, r"frame 1: energy must be finite; got nan"),
        ({"forces": np.full((3, 3), np.inf)}, r"frame 1: forces must be finite; got inf"),
        ({"stress": np.full((3, 3), np.nan)}, r"frame 1: stress must be finite"),
        ({"positions": NAN_POSITIONS}, r"frame 1: positions must be finite; got nan \(row 1\)"),
        ({"positions": TWO_CLOSE}, r"frame 1: atoms overlap: H 1 and H 2 are 0\.200 Å apart"),
        (
            {"positions": CLOSE_ACROSS},
            r"frame 1: atoms overlap: O 0 and H 1 \(image \[-1, 0, 0\]\) are 0\.200",
        ),
        ({"cell": np.diag([6, 6, 0.3])}, r"frame 1: atoms overlap: O 0 and O 0 \(image"),
        ({"cell": np.zeros((3, 3))}, r"frame 1: a periodic frame needs a cell"),
        ({"cell": FLAT}, r"frame 1: a periodic frame needs a cell"),
        ({"cell": np.full((3, 3), np.nan)}, r"frame 1: cell must be finite"),
        ({"numbers": np.array([8, 1, 0])}, r"frame 1: atomic numbers go from 1 to 118; got 0"),
    ],
)
def test_faults(make_frame, fields: dict, message: str) -> None:
    with pytest.raises(MdpotError, match=r"frames\.xyz, " + message) as caught:
        validate_frames([make_frame(), make_frame(**fields)], "frames.xyz")
    assert "\n" not in str(caught.value)


def test_no_frames_and_the_place_in_the_file(make_frame) -> None:
    with pytest.raises(MdpotError, match="empty"):
        validate_frames([])
    with pytest.raises(MdpotError, match=r"frame 7: no forces\. Training needs energy and forces"):
        validate_frames([make_frame(index=7, forces=None)] * 2)


def test_sound_frames(make_frame, sample_frames) -> None:
    validate_frames([make_frame(energy=None, forces=None)], need=())
    validate_frames([make_frame(cell=np.zeros((3, 3)), pbc=np.zeros(3, dtype=bool))])
    # A slab: the third vector is of no matter where that direction is not periodic.
    validate_frames([make_frame(cell=np.diag([6.0, 6, 0]), pbc=np.array([True, True, False]))])
    validate_frames(sample_frames)


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 1, 0), (0, 0, 1), (0, 0, 0)])
def test_few_atoms_are_told_apart_without_a_search(pbc: tuple[int, int, int]) -> None:
    """The same answer as a search gives, for skewed and thin cells, atoms outside the cell and near its faces."""
    rng = np.random.default_rng(0)
    answers = set()
    for _ in range(300):
        cell = rng.normal(size=(3, 3)) + np.eye(3) * rng.uniform(1, 6)
        periodic = np.array(pbc, bool)
        positions = rng.uniform(-2, 3, size=(4, 3)) @ cell
        frame = Frame(np.full(4, 1), positions, cell, periodic)
        pairs, _ = neighbor_list(positions, cell, periodic, MIN_DISTANCE)
        quick = _surely_apart(frame)
        assert not (quick and pairs.size)
        heights = 1 / np.linalg.norm(np.linalg.inv(full_cell(cell, periodic)), axis=0)[periodic]
        if (heights > 2 * MIN_DISTANCE).all():
            assert quick == (not pairs.size)
        answers.add(quick)
    assert answers == {True, False}
