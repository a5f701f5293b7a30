"""What the labels of data have beyond those of a force field, for a network that corrects it.

The difference of two methods is learned from fewer frames than either of them (Δ-machine learning: Ramakrishnan et al.,
J. Chem. Theory Comput. 11, 2087, 2015). The force field runs with the network then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from mdpot.electrons import NOTHING_SAID, STATED, Electrons
from mdpot.errors import MdpotError
from mdpot.forcefields import find_forcefield
from mdpot.training.data.cache import Arrays, cached
from mdpot.training.data.frames import Dataset, Frame, fingerprint
from mdpot.training.kept import Tell, tell_nobody

#: Frames whose labels are kept together in the cache: what is lost where a run is stopped.
CHUNK = 100
#: Decimals, of eV and eV/Å, that labels of a force field keep: few enough that a run that goes on finds the same
#: numbers, and far more than anything that is learned.
DIGITS = 6


def less_baseline(
    dataset: Dataset,
    indices: Iterable[int],
    name: str,
    tell: Tell = tell_nobody,
    otherwise: Electrons = NOTHING_SAID,
) -> Dataset:
    """A data set in which some frames have their energies and forces less those of a force field, and no stress.

    Args:
        dataset: the frames, of which those that are left out stay as they are, and further test sets.
        indices: of the frames.
        name: in `mdpot.forcefields.FORCE_FIELDS`.
        tell: called with the number of frames that the force field has labelled, and of all.
        otherwise: what holds for the electrons of frames that do not state it.

    Raises:
        MdpotError: a frame that it does not describe or whose electrons are not known, or a package that is not
            installed.
    """
    frames, chosen = list(dataset.frames), sorted(set(indices))
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        known = [replace(frames[n], electrons=frames[n].electrons.or_else(otherwise)) for n in part]
        for index, frame in zip(part, _less(known, name, dataset.origin), strict=True):
            frames[index] = frame
        tell(min(start + CHUNK, len(chosen)), len(chosen))
    tests = {
        key: less_baseline(test, range(len(test)), name, otherwise=otherwise) for key, test in dataset.tests.items()
    }
    # Energies of single atoms are none of molecules that a force field describes.
    labels = f"{dataset.labels}; the network learns what they have beyond {name}"
    notes = dataset.notes
    if any(dataset.frames[n].stress is not None for n in chosen):
        notes = (*notes, f"stress is not learned, for the baseline {name} has none")
    found = replace(dataset, frames=frames, tests=tests, isolated={}, labels=labels, notes=notes)
    found.fingerprint = dataset.fingerprint
    return found


def electrons_of_all(frames: Sequence[Frame]) -> dict[str, int | None] | str | None:
    """What the header of a correction says of the electrons: what holds for all its frames, as a table; `STATED` where
    they differ, so that a structure has to state its charge; None where they state nothing."""
    if all(frame.electrons == NOTHING_SAID for frame in frames):
        return None
    found = set()
    for frame in frames:
        charge, unpaired = frame.electrons.settled(frame.numbers)
        # As few unpaired electrons as there can be is what is taken where nothing is said.
        found.add((charge, None if unpaired in (0, 1) else unpaired))
    return STATED if len(found) > 1 else dict(zip(("charge", "unpaired"), found.pop(), strict=True))


def _less(frames: Sequence[Frame], name: str, origin: str) -> list[Frame]:
    forcefield = find_forcefield(name)

    def compute() -> Arrays:
        labels = [forcefield.label(frame) for frame in frames]
        energies = [np.nan if found is None else found[0] for found in labels]
        nothing = [np.full((len(frame), 3), np.nan) for frame in frames]
        forces = [none if found is None else found[1] for found, none in zip(labels, nothing, strict=True)]
        return {"energies": np.round(energies, DIGITS), "forces": np.round(np.concatenate(forces), DIGITS)}

    said = [repr(frame.electrons) for frame in frames if frame.electrons != NOTHING_SAID]
    arrays = cached("baseline", [fingerprint(frames), name, *said], (forcefield.label,), compute)
    parts = np.split(arrays["forces"], np.cumsum([len(frame) for frame in frames])[:-1])
    return [
        _difference(frame, float(e), f, name, origin)
        for frame, e, f in zip(frames, arrays["energies"], parts, strict=True)
    ]


def _difference(frame: Frame, energy: float, forces: np.ndarray, name: str, origin: str) -> Frame:
    if not np.isfinite(energy):
        raise MdpotError(
            f"{origin}: the baseline {name} does not describe {frame.place}, of {len(frame)} atoms. Leave it "
            "out, or set model.baseline=none."
        )
    return replace(
        frame,
        energy=None if frame.energy is None else frame.energy - energy,
        forces=None if frame.forces is None else frame.forces - forces,
        stress=None,
    )
