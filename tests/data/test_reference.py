"""Energy references against energies made from known ones."""

from __future__ import annotations

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, rms_force


def _frame(numbers: list[int], energy: float | None) -> Frame:
    n_atoms = len(numbers)
    return Frame(
        np.array(numbers),
        np.zeros((n_atoms, 3)),
        np.zeros((3, 3)),
        np.zeros(3, bool),
        energy,
        np.ones((n_atoms, 3)),
    )


def test_known_references_are_found_again() -> None:
    known = {1: -13.6, 6: -1030.0, 8: -2040.0}
    molecules = [[8, 1, 1], [6, 1, 1, 1, 1], [6, 8, 8], [8, 8], [6, 8]]
    elements, shift = fit_reference([_frame(m, sum(known[z] for z in m)) for m in molecules])
    assert elements == [1, 6, 8]
    np.testing.assert_allclose(shift, [known[z] for z in elements], rtol=1e-10)


def test_pure_water_has_the_solution_of_smallest_norm(sample_frames) -> None:
    elements, shift = fit_reference(sample_frames)
    assert elements == [1, 8]
    # Along the composition (2, 1), the smallest solution is proportional to it.
    assert shift[0] == pytest.approx(2 * shift[1], rel=1e-9)
    residual = [(f.energy - shift[0] * 2 * len(f) / 3 - shift[1] * len(f) / 3) / len(f) for f in sample_frames]
    assert abs(np.mean(residual)) < 1e-6


def test_elements_in_no_frame_get_zero() -> None:
    elements, shift = fit_reference([_frame([1, 1], -20.0)], elements=[8, 1])
    assert elements == [1, 8]
    np.testing.assert_allclose(shift, [-10.0, 0.0], atol=1e-12)


def test_rms_force(make_frame) -> None:
    frames = [make_frame(forces=np.full((3, 3), 2.0)), make_frame(forces=np.zeros((3, 3)))]
    assert rms_force(frames) == pytest.approx(np.sqrt(2.0))


def test_refusals(make_frame) -> None:
    with pytest.raises(MdpotError, match="at least one frame"):
        fit_reference([])
    with pytest.raises(MdpotError, match="frame 1 has none"):
        fit_reference([make_frame(), make_frame(energy=None)])
    with pytest.raises(MdpotError, match="no forces other than zero"):
        rms_force([make_frame(forces=None), make_frame(forces=np.zeros((3, 3)))])
