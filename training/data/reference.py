"""The energy reference per element and the scale of the forces, from the training frames alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame


def fit_reference(frames: Sequence[Frame], elements: Iterable[int] | None = None) -> tuple[list[int], np.ndarray]:
    """Energies per element by least squares on the energy per atom.

    Minimises Σ_frames (E / n_atoms - Σ_z x_z shift_z)^2 with x_z the share of element z. Where the
    compositions do not tell the elements apart (pure water: H and O always 2 to 1), it is the solution of
    smallest norm.

    Args:
        frames: with energies.
        elements: atomic numbers to cover; those of the frames by default. An element in no frame gets 0.

    Returns:
        The atomic numbers, ascending, and their energies [n_elements] float64, eV.

    Raises:
        MdpotError: no frames, or a frame without an energy.
    """
    if not frames:
        raise MdpotError("the energy reference needs at least one frame; got none.")
    missing = next((i for i, frame in enumerate(frames) if frame.energy is None), None)
    if missing is not None:
        raise MdpotError(f"the energy reference needs the energy of every frame; frame {missing} has none.")
    found = np.unique(np.concatenate([frame.numbers for frame in frames])) if elements is None else elements
    known = sorted({int(z) for z in found})
    counts = np.array([np.bincount(frame.numbers, minlength=known[-1] + 1)[known] for frame in frames], np.float64)
    n_atoms = np.array([len(frame) for frame in frames], dtype=np.float64)
    energies = np.array([frame.energy for frame in frames], dtype=np.float64)
    # rcond is far above rounding and far below any real difference in composition.
    shift = np.linalg.lstsq(counts / n_atoms[:, None], energies / n_atoms, rcond=1e-10)[0]
    return known, shift


def rms_force(frames: Iterable[Frame]) -> float:
    """The root mean square of all force components, eV/Å.

    Raises:
        MdpotError: no frame has forces, or all forces are zero.
    """
    forces = [frame.forces.ravel() for frame in frames if frame.forces is not None]
    value = float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else 0.0
    if value == 0.0:
        raise MdpotError("the scale is the RMS force, but the training frames have no forces other than zero.")
    return value
