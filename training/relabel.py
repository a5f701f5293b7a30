"""Labels of a cheap force field in place of those of the data; they are kept, and a run that was stopped goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mdpot.forcefields import find_forcefield
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store
from mdpot.training.forcefield_dynamics import sample_dynamics
from mdpot.training.kept import SAVE_EVERY, Tell, keep_arrays, kept_arrays, tell_nobody
from mdpot.training.prepared import Prepared
from mdpot.training.schema import Recipe

FILE = "labels.npz"


def with_forcefield_labels(
    recipe: Recipe, prepared: Prepared, folder: Path, seed: int, tell: Tell = tell_nobody
) -> Prepared:
    """The training and validation frames that the force field of the recipe describes, with its labels; or, with
    `pretrain.dynamics`, structures of its dynamics that begin at these.

    Pair energy, reference energies and scale are fitted to these labels as they are to those of the data.

    Args:
        recipe: the force field and the cutoff.
        prepared: the frames.
        folder: keeps the labels, those that are there when it is stopped too, for a run that goes on.
        seed: of the dynamics.
        tell: called with the number of frames labelled, and of all.

    Raises:
        Stopped: on SIGINT or SIGTERM; the labels so far are kept.
    """
    if recipe.pretrain.dynamics is None:
        parts = _labeled_frames(recipe, prepared, folder / FILE, tell)
    else:
        parts = _dynamics(recipe, prepared, folder, seed, tell)
    stores = {split: Store(part, recipe.model.cutoff, molecules=False) for split, part in parts.items()}
    # The isolated atoms of the data have energies of another method.
    dataset = replace(prepared.dataset, isolated={})
    labelled = replace(prepared, dataset=dataset, stores=stores, pair=None, means=None, offset=0.0, notes=[])
    labelled.refer(recipe.model, parts["train"])
    for store in stores.values():
        store.to(prepared.train.device)
    return labelled


def _labeled_frames(recipe: Recipe, prepared: Prepared, file: Path, tell: Tell) -> dict[str, list[Frame]]:
    """By split, the frames that the force field describes."""
    frames = prepared.frames("train") + prepared.frames("validation")
    energies, forces = _forcefield_labels(frames, recipe.pretrain.forcefield, file, tell)
    parts: dict[str, list[Frame]] = {"train": [], "validation": []}
    for n, (frame, energy, force) in enumerate(zip(frames, energies, forces, strict=True)):
        if np.isfinite(energy):
            split = "train" if n < len(prepared.splits["train"]) else "validation"
            parts[split].append(replace(frame, energy=float(energy), forces=force, stress=None))
    return parts


def _dynamics(recipe: Recipe, prepared: Prepared, folder: Path, seed: int, tell: Tell) -> dict[str, list[Frame]]:
    """By split, structures of dynamics that begins at its frames; to validate, a tenth as many."""
    stage = recipe.pretrain
    assert stage.dynamics is not None
    sizes = {"train": stage.dynamics, "validation": math.ceil(stage.dynamics / 10)}
    n = sum(sizes.values())
    parts, before = {}, 0
    for number, (split, size) in enumerate(sizes.items()):
        so_far = partial(lambda done, _, before: tell(before + done, n), before=before)
        file = folder / f"dynamics-{split}.npz"
        parts[split] = sample_dynamics(prepared.frames(split), size, stage, (seed, number), file, so_far)
        before += size
    return parts


def describes(forcefield: str, frames: Sequence[Frame]) -> bool:
    """Whether a force field describes any of the frames."""
    label = find_forcefield(forcefield).label
    return any(label(frame) is not None for frame in frames)


def _forcefield_labels(
    frames: Sequence[Frame], forcefield: str, file: Path, tell: Tell
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Energies, NaN where a frame is not described, and forces of each frame; see `with_forcefield_labels`."""
    energies, forces, done = np.full(len(frames), np.nan), [np.full((len(frame), 3), np.nan) for frame in frames], 0
    if file.is_file():
        energies, forces, done = _kept_labels(file, [len(frame) for frame in frames])
    label, saved = find_forcefield(forcefield).label, time.monotonic()
    with StopSignal() as stop:
        while done < len(frames) and not stop.requested:
            if (found := label(frames[done])) is not None:
                energies[done], forces[done] = found
            done += 1
            tell(done, len(frames))
            if done == len(frames) or stop.requested or time.monotonic() - saved > SAVE_EVERY:
                keep_arrays(file, {"energies": energies, "forces": np.concatenate(forces), "done": np.array(done)})
                saved = time.monotonic()
    if stop.requested:
        raise Stopped(f"stopped after {done} of {len(frames)} labels of the force field, which are kept.")
    return energies, forces


def _kept_labels(file: Path, sizes: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Energies, forces and the number of frames done, of a file that `_forcefield_labels` left.

    Raises:
        MdpotError: it was changed since, or is of other frames.
    """
    with kept_arrays(file, "to label the frames again") as kept:
        energies, forces, done = kept["energies"], kept["forces"], int(kept["done"])
        if energies.shape != (len(sizes),) or forces.shape != (sum(sizes), 3):
            raise ValueError("it is of other frames")
    return energies, np.split(forces, np.cumsum(sizes)[:-1]), done
