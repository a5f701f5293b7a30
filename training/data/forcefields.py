"""Free labels: frames with the energies and forces of a force field in place of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mdpot.forcefields import find_forcefield
from mdpot.training.data.frames import Frame


def relabel(frames: Sequence[Frame], name: str) -> list[Frame]:
    """The frames with energy and forces of a force field in place of their own labels.

    Args:
        frames: structures; their labels are not read and may be None.
        name: in `mdpot.forcefields.FORCE_FIELDS`.

    Returns:
        New frames in the same order, without those that the force field cannot describe (other molecules, broken
        ones). Energies have the force field's own zero. They have no stress.

    Raises:
        MdpotError: an unknown name, or a package that is not installed.
    """
    labelled, forcefield = [], find_forcefield(name)
    for frame in frames:
        labels = forcefield.label(frame)
        if labels is not None:
            labelled.append(replace(frame, energy=labels[0], forces=labels[1], stress=None))
    return labelled
