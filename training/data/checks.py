"""What frames must hold before anything is trained on them; each fault is one clear line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase.data import chemical_symbols

from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.structures import MIN_DISTANCE
from mdpot.training.data.frames import Frame, require_elements
from mdpot.training.data.reading import ENERGY_AND_FORCES, Reading
from mdpot.training.data.targets import PROPERTY, target
from mdpot.vesin_neighbors import full_cell

#: No label, in any unit, is larger; and its square still is a number. A property may be a concentration.
LARGEST, LARGEST_PROPERTY = 1e12, 1e100
# A search for shorter pairs than this is slower, for the bins of the search are then too many.
_SEARCH = 1.5
# Up to so many atoms all pairs are looked at, which takes less than a search.
_FEW = 64


def accept(reading: Reading, where: str, need: Collection[str] | None, physics: bool) -> Reading:
    """What was read, if it can be trained on.

    Args:
        reading: of a file or a data set.
        where: its name, for the message.
        need: the labels that every frame must have.
        physics: whether labels that contradict physics are refused as well.

    Raises:
        MdpotError: as `validate_frames` and `Reading.check`.
    """
    if not reading.refusal:
        validate_frames(reading.frames, where, need or ())
    reading.check(physics)
    return reading


def validate_frames(frames: Sequence[Frame], where: str = "data", need: Collection[str] = ENERGY_AND_FORCES) -> None:
    """Refuses frames that cannot be trained on.

    Args:
        frames: to be checked; they are called by their place in the file.
        where: the file, for the message.
        need: the labels that every frame must have; pretraining needs none.

    Raises:
        MdpotError: no frames; no atoms; NaN, infinity or what comes near it; a periodic frame without a cell;
            overlapping atoms, images included; a label that is missing or of a wrong shape.
    """
    if not frames:
        raise MdpotError(f"{where}: empty: it holds no frame.")
    placed = any(frame.index or frame.file for frame in frames)
    for n, frame in enumerate(frames):
        at = f"{where}, {frame.place if placed else f'frame {n}'}"
        _check_structure(frame, at)
        there = frame.labels
        for label in sorted(need):
            if label not in there:
                raise MdpotError(
                    f"{at}: no {label}. Training needs {' and '.join(sorted(need))}; pretraining does not."
                )
        for name, value in there.items():
            _check_label(name, value, len(frame), at)
        _check_distances(frame, at)


def _check_structure(frame: Frame, at: str) -> None:
    if len(frame) == 0:
        raise MdpotError(f"{at}: it has no atoms.")
    require_elements(frame.numbers, at)
    _check_finite(frame.positions, f"{at}: positions")
    _check_finite(frame.cell, f"{at}: cell")
    if not frame.pbc.any():
        return
    # For a cell that is periodic in some directions only, the vectors of those must span their line or plane.
    lattice = frame.cell[frame.pbc]
    if np.linalg.norm(lattice, axis=1).min() < 1e-3 or np.linalg.svd(_unit(lattice))[1].min() < 1e-6:
        raise MdpotError(
            f"{at}: a periodic frame needs a cell; pbc is {frame.pbc.tolist()} and the cell "
            f'{frame.cell.tolist()}. Write the lattice into the file, or pbc="F F F".'
        )


def _unit(lattice: np.ndarray) -> np.ndarray:
    return lattice / np.linalg.norm(lattice, axis=1, keepdims=True)


def _check_label(name: str, value: np.ndarray, n_atoms: int, at: str) -> None:
    kind = target(name)
    shape = (n_atoms, *kind.shape) if kind.per == "atom" else kind.shape
    if value.shape != shape:
        positions = " of the positions," if shape == (n_atoms, 3) else ""
        raise MdpotError(f"{at}: {name} must have the shape{positions} {shape}; got {value.shape}.")
    _check_finite(value, f"{at}: {name}", LARGEST_PROPERTY if kind is PROPERTY else LARGEST)


def _check_finite(values: np.ndarray, what: str, largest: float = LARGEST) -> None:
    bad = np.argwhere(~(np.abs(values) < largest))
    if len(bad):
        place = f" (row {bad[0][0]})" if values.ndim == 2 else ""
        worst = values[tuple(bad[0])]
        rule = f"be less than {largest:g} in size" if np.isfinite(worst) else "be finite"
        raise MdpotError(f"{what} must {rule}; got {worst}{place}. Remove the frame or mend the file.")


def _check_distances(frame: Frame, at: str) -> None:
    if len(frame) <= _FEW and _surely_apart(frame):
        return
    pairs, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, _SEARCH)
    vectors = pair_vectors(frame.positions, frame.cell, pairs, shifts)
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.min(initial=MIN_DISTANCE) >= MIN_DISTANCE:
        return
    worst = lengths.argmin()
    i, j = pairs[:, worst]
    first, second = (chemical_symbols[frame.numbers[k]] for k in (i, j))
    image = f" (image {shifts[worst].tolist()})" if shifts[worst].any() else ""
    raise MdpotError(
        f"{at}: atoms overlap: {first} {i} and {second} {j}{image} are {lengths[worst]:.3f} Å apart; "
        f"at least {MIN_DISTANCE} Å is expected. Check the units and the cell."
    )


def _surely_apart(frame: Frame) -> bool:
    """Whether no two atoms overlap, told without a search: only the nearest image of a pair can, in a cell of heights
    above twice `MIN_DISTANCE`."""
    box = full_cell(frame.cell, frame.pbc)
    inverse = np.linalg.inv(box)
    thin = (np.linalg.norm(inverse, axis=0)[frame.pbc] * 2 * MIN_DISTANCE >= 1).any()
    if thin or np.abs(frame.positions).max() > 1e6:  # the search knows what to say of positions so far out
        return False
    places = frame.positions @ inverse
    first, second = np.triu_indices(len(frame), 1)
    apart = places[first] - places[second]
    vectors = (apart - np.round(apart) * frame.pbc) @ box
    return bool((np.einsum("ij,ij->i", vectors, vectors) >= MIN_DISTANCE**2).all())
