"""Energy references against energies made from known ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.reference import fit_reference, label_scale, mean_offset, rms_force, wild_frames


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
    with pytest.raises(MdpotError, match="at least one frame with an energy; got none among 2"):
        fit_reference([make_frame(energy=None)] * 2)
    with pytest.raises(MdpotError, match="no forces other than zero"):
        rms_force([make_frame(forces=None), make_frame(forces=np.zeros((3, 3)))])


def _noisy(n_frames: int = 60) -> tuple[list[Frame], dict[int, float]]:
    """Frames of five elements with known energies and noise of 0.05 eV per atom."""
    known = {1: -3.0, 6: -8.0, 8: -5.0, 14: -6.0, 29: -3.5}
    rng, frames = np.random.default_rng(0), []
    for _ in range(n_frames):
        numbers = rng.choice(list(known), 12)
        energy = sum(known[int(z)] for z in numbers) + 12 * rng.normal(scale=0.05)
        frames.append(_frame(numbers.tolist(), energy))
    return frames, known


def test_a_wild_frame_bends_nothing_and_is_named() -> None:
    frames, known = _noisy()
    frames[17].energy, frames[17].index = frames[17].energy - 558.0, 123  # type: ignore[operator]
    elements, shift = fit_reference(frames)
    np.testing.assert_allclose(shift, [known[z] for z in elements], atol=0.15)
    wild = wild_frames(frames, elements, shift)
    assert [frame.index for frame, _ in wild] == [123]
    assert wild[0][1] == pytest.approx(-558.0 / 12, abs=0.5)


def test_an_element_seen_once_stays_near_the_others() -> None:
    frames, _ = _noisy()
    once = _frame([79, *frames[0].numbers[1:].tolist()], -60.0)  # a twelfth of it is gold, and its energy is odd
    elements, shift = fit_reference([*frames, once])
    assert -25.0 < shift[elements.index(79)] < 5.0


def test_a_composition_that_hardly_varies_gives_no_huge_numbers() -> None:
    rng = np.random.default_rng(0)
    frames = [_frame([8] * 100 + [1] * (200 + n % 2), -300.0 * 5 + rng.normal(scale=3.0)) for n in range(40)]
    _, shift = fit_reference(frames)
    assert np.abs(shift).max() < 20.0


@pytest.mark.parametrize("others", [1, 3, 20, 150])
@pytest.mark.parametrize("wild", [False, True])
def test_a_composition_that_nearly_all_frames_have_does_not_make_the_others_wild(others: int, wild: bool) -> None:
    """Methyl radicals and few methanes, with DFT's total energies."""
    rng, known = np.random.default_rng(0), {1: -13.5, 6: -1028.0}
    frames = [_frame([6] + [1] * n, known[6] + n * known[1] + rng.normal(scale=0.1)) for n in [3] * 150 + [4] * others]
    if wild:
        frames[5].energy -= 400.0  # type: ignore[operator]
    elements, shift = fit_reference(frames)
    np.testing.assert_allclose(shift, [known[z] for z in elements], atol=1.0)
    assert len(wild_frames(frames, elements, shift)) == wild


def test_frames_of_one_composition_and_a_few_of_many() -> None:
    frames, known = _noisy(9)
    frames += [_frame([1, 1, 8] * 4, 4 * (2 * known[1] + known[8]) + 0.01 * n) for n in range(100)]
    elements, shift = fit_reference(frames)
    np.testing.assert_allclose(shift, [known[z] for z in elements], atol=0.4)


def test_isolated_atoms_are_the_reference_of_their_elements() -> None:
    frames, known = _noisy()
    elements, shift = fit_reference(frames, isolated={1: -1.0, 8: -2.0})
    assert shift[elements.index(1)] == -1.0
    assert shift[elements.index(8)] == -2.0
    every = {z: energy + 3.0 for z, energy in known.items()}
    elements, shift = fit_reference(frames, isolated=every)
    assert shift.tolist() == [every[z] for z in elements]
    # What binds an atom is left to the network, which starts from it.
    assert mean_offset(frames, elements, shift) == pytest.approx(-3.0, abs=0.05)


def test_frames_without_an_energy_do_not_count() -> None:
    frames, _ = _noisy()
    bare = [_frame([1, 8], None)] * 5
    np.testing.assert_array_equal(fit_reference([*frames, *bare])[1], fit_reference(frames)[1])


def test_the_scale_is_that_of_most_forces() -> None:
    frames, _ = _noisy()
    elements, shift = fit_reference(frames)
    assert label_scale(frames, elements, shift) == pytest.approx(1.0)
    frames[3].forces = np.full((12, 3), 1000.0)
    assert label_scale(frames, elements, shift) < 15.0  # the root mean square is 129
    for frame in frames:
        frame.forces = None
    assert label_scale(frames, elements, shift) == pytest.approx(0.05, rel=0.3)


def test_without_forces_and_energies_there_is_no_scale() -> None:
    with pytest.raises(MdpotError, match="the training frames have neither"):
        label_scale([replace(_frame([1, 8], None), forces=None)], [1, 8], np.zeros(2))
