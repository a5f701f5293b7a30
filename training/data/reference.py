"""The energy reference per element and the scale of the network, from the training frames alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, elements_of

#: A frame whose energy lies further off than both, in typical residuals and in eV per atom, is wild: it hardly counts,
#: and it is named. Real frames, hot or compressed, lie off by ten typical residuals where most are near equilibrium.
WILD, WILD_ENERGY = 15.0, 1.0
#: A force component counts for no more than this many times their mean size.
WILD_FORCE = 5.0
ITERATIONS = 30


def fit_reference(
    frames: Sequence[Frame], elements: Iterable[int] | None = None, isolated: Mapping[int, float] | None = None
) -> tuple[list[int], np.ndarray]:
    """Energies per element by a robust fit to the energy per atom.

    Minimizes Σ_frames w (E / n_atoms - Σ_z x_z shift_z)^2 + λ Σ_z (shift_z - m)^2, with x_z the share of element z,
    and m the same for all elements and free. The weight w is 1 but for wild frames, which do not bend it; an element
    that is rare, or always comes in the same share, has the energy of an average atom. λ is the square of the
    residuals' typical size over that of the spread of the energies that composition makes, so it vanishes where
    compositions explain everything. Where they do not tell the elements apart at all (pure water: H and O always 2 to
    1), it is the solution of smallest norm.

    Args:
        frames: those without an energy do not count.
        elements: atomic numbers to cover; those of the frames by default. An element in no frame gets 0.
        isolated: energies, eV, of single atoms by atomic number. They are kept as they are, and the others fitted.

    Returns:
        The atomic numbers, ascending, and their energies [n_elements] float64, eV.

    Raises:
        MdpotError: no frame with an energy.
    """
    labeled = [frame for frame in frames if frame.energy is not None]
    if not labeled:
        raise MdpotError(
            f"the energy reference needs at least one frame with an energy; got none among {len(frames)} frames."
        )
    known = elements_of(frames) if elements is None else sorted({int(z) for z in elements})
    shares, energies = _shares(labeled, known)
    shift = np.array([(isolated or {}).get(z, np.nan) for z in known])
    fixed = np.isfinite(shift)
    if not fixed.all():
        shift[~fixed] = robust_shift(shares[:, ~fixed], energies - shares[:, fixed] @ shift[fixed])
    return known, shift


def _shares(frames: Sequence[Frame], known: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The share of each element [n_frames, n_elements], and the energies per atom [n_frames]."""
    counts = np.array([np.bincount(frame.numbers, minlength=known[-1] + 1)[known] for frame in frames], np.float64)
    n_atoms = np.array([len(frame) for frame in frames], dtype=np.float64)
    return counts / n_atoms[:, None], np.array([frame.energy for frame in frames], dtype=np.float64) / n_atoms


def robust_shift(shares: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """What `fit_reference` fits, by iteratively reweighted least squares.

    Args:
        shares: [n_frames, n_elements], of each element among the atoms.
        energies: [n_frames], eV per atom.

    Returns:
        [n_elements], eV.
    """
    n = shares.shape[1]
    # Far above rounding and far below any real difference in composition. What is the same for every atom, as far as
    # the frames can tell it: 1 for each element, or the projection of that onto what their compositions span.
    same = np.linalg.pinv(shares, rcond=1e-10) @ shares.sum(1)
    design = np.hstack([(shares @ same)[:, None], shares])
    weight, ridge = np.ones(len(shares)), 0.0
    spread = _spread(shares, energies) / np.square(shares).sum(1).mean()
    residual = energies
    for _ in range(ITERATIONS):
        root = np.sqrt(weight)
        rows = np.vstack([root[:, None] * design, np.sqrt(ridge) * np.eye(n, n + 1, 1)])
        found = np.linalg.lstsq(rows, np.concatenate([root * energies, np.zeros(n)]), rcond=1e-10)[0]
        before, residual = residual, energies - design @ found
        typical = _typical(residual)
        limit = max(WILD * typical, WILD_ENERGY)
        weight = (limit / np.maximum(np.abs(residual), limit)) ** 4
        ridge = typical**2 / spread if spread > 0 else 0.0
        if np.abs(residual - before).max() <= 1e-9 * typical:
            break
    return found[0] * same + found[1:]


def _spread(shares: np.ndarray, energies: np.ndarray) -> float:
    """The mean square by which compositions differ in energy, one as good as the other however many frames it has.

    Of each composition the median counts, and no difference for more than a wild one: a single wild frame may have a
    composition of its own.
    """
    _, which, counts = np.unique(shares.round(9), axis=0, return_inverse=True, return_counts=True)
    ordered = energies[np.argsort(which.ravel(), kind="stable")]
    medians = np.array([np.median(part) for part in np.split(ordered, np.cumsum(counts)[:-1])])
    off = np.abs(medians - np.median(medians))
    return float(np.mean(np.minimum(off, max(WILD * _typical(off), WILD_ENERGY)) ** 2))


def _typical(residual: np.ndarray) -> float:
    """A standard deviation that a fifth of the values, however wild, does not change."""
    return float(np.quantile(np.abs(residual), 0.8)) / 1.2816


def wild_frames(frames: Sequence[Frame], elements: Sequence[int], shift: np.ndarray) -> list[tuple[Frame, float]]:
    """Frames whose energies fit to nothing else, and how far off they are, eV per atom; the worst first.

    Args:
        frames: those without an energy do not count.
        elements, shift: from `fit_reference`.
    """
    labeled = [frame for frame in frames if frame.energy is not None]
    shares, energies = _shares(labeled, elements)
    off = energies - shares @ shift
    off -= np.median(off)
    limit = max(WILD * _typical(off), WILD_ENERGY)
    wild = [n for n in np.argsort(-np.abs(off)) if abs(off[n]) > limit]
    return [(labeled[n], float(off[n])) for n in wild]


def mean_offset(frames: Sequence[Frame], elements: Sequence[int], shift: np.ndarray) -> float:
    """The median energy per atom, eV, that is left beyond the reference; arguments as of `wild_frames`.

    It is what binds an atom on average, where the reference is the energy of isolated atoms.
    """
    shares, energies = _shares([frame for frame in frames if frame.energy is not None], elements)
    return float(np.median(energies - shares @ shift))


def label_scale(frames: Sequence[Frame], elements: Sequence[int], shift: np.ndarray) -> float:
    """What one unit of a network's output is worth, eV: the typical force, eV/Å, times 1 Å.

    That is the root mean square of the force components, each taken for no larger than `WILD_FORCE` times their mean
    absolute value: a few frames of huge forces do not make the network coarse for all others. Without any forces it is
    the standard deviation of the energies per atom beyond the reference.

    Args:
        frames: with forces or energies.
        elements, shift: from `fit_reference`.

    Raises:
        MdpotError: neither forces nor energies; all forces are zero, or without forces all energies per atom those of
            the reference.
    """
    forces = [frame.forces.ravel() for frame in frames if frame.forces is not None]
    if forces:
        size = np.abs(np.concatenate(forces))
        value = float(np.sqrt(np.mean(np.minimum(size, WILD_FORCE * size.mean()) ** 2)))
        if value == 0.0:
            raise MdpotError("the scale is the typical force, but the training frames have no forces other than zero.")
        return value
    labeled = [frame for frame in frames if frame.energy is not None]
    if not labeled:
        raise MdpotError(
            "the scale is the typical force, or the spread of the energies; the training frames have neither."
        )
    shares, energies = _shares(labeled, elements)
    value = float(np.std(energies - shares @ shift))
    if value == 0.0:
        raise MdpotError(
            "the scale is the spread of the energies, but the elements alone explain those of all training frames; "
            "and there are no forces."
        )
    return value


def rms_force(frames: Iterable[Frame]) -> float:
    """The root mean square of all force components, eV/Å.

    Raises:
        MdpotError: no frame has forces, or all forces are zero.
    """
    forces = [frame.forces.ravel() for frame in frames if frame.forces is not None]
    value = float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else 0.0
    if value == 0.0:
        raise MdpotError("the frames have no forces other than zero.")
    return value
