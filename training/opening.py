"""How a run begins or goes on: its folder, its data, and that they are the same as when it began."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mdpot.errors import MdpotError
from mdpot.modelfile import open_model
from mdpot.training import folder as files
from mdpot.training.data.frames import Dataset
from mdpot.training.listener import Listener, labelling
from mdpot.training.prepare import data_to_pretrain, prepare
from mdpot.training.prepared import Prepared
from mdpot.training.schema import Recipe
from mdpot.training.together import SOLO, Team
from mdpot.training.transfer import pretraining_of

MAX_SEED = 2**32 - 1
"""Times a million and some steps, a seed of a step must be one of torch's."""


@dataclass(frozen=True)
class Run:
    """A run that is about to train.

    Attributes:
        recipe: all of it.
        out: its folder.
        seed: of the split, the weights, the batches and the masks.
        device: where it trains.
        listener: hears of the progress.
        kind: train, pretrain or finetune.
        resume: whether it goes on with what is in its folder.
        team: the processes that train.
    """

    recipe: Recipe
    out: Path
    seed: int
    device: torch.device
    listener: Listener
    kind: str
    resume: bool
    team: Team = SOLO


@dataclass(frozen=True)
class Material:
    """What a run trains on.

    Attributes:
        prepared: the data of the recipe.
        pretraining: those of the pretraining; None where there is none.
    """

    prepared: Prepared
    pretraining: Prepared | None


def open_run(run: Run, data: Path | str | Dataset | None, from_file: Path | None = None) -> Material:
    """The folder of the run and its data; a resumed run gets the same frames in the same splits and starts from the
    same weights, or an error.

    Args:
        run: which.
        data: file or folder with the frames, or the frames themselves; None searches.
        from_file: the file with the weights that it starts from.

    Raises:
        MdpotError: bad input of any kind, or another run in the folder.
    """
    began = time.perf_counter()
    recipe, out = run.recipe, run.out
    if not 0 <= run.seed <= MAX_SEED:
        raise MdpotError(f"seed must be from 0 to {MAX_SEED}; got {run.seed}.")
    if run.kind == "pretrain" and recipe.pretrain.objective == "none":
        raise MdpotError('there is nothing to pretrain: pretrain.objective is "none".')
    goes_on = run.resume and (out / files.RUN).is_file()
    before = files.open_folder(out, recipe, run.seed, run.kind, run.resume) if goes_on else {}
    splits = files.read_splits(out / files.SPLITS, before.get("splits")) if "data" in before else None
    learns = recipe.pretrain.objective == "labels" and recipe.pretrain.data is None
    need_labels = run.kind != "pretrain" or learns
    prepared = prepare(recipe, data, run.seed, run.device, splits, need_labels, labelling(run.listener))
    # Before there is a folder: what cannot be pretrained raises here.
    pretraining = None if run.kind == "finetune" else data_to_pretrain(recipe, prepared, run.seed, run.device)
    weights = None if from_file is None else _weights_of(from_file, recipe)
    if "data" in before:
        _check_same(run, before, prepared.dataset, weights)
    else:
        before = files.open_folder(out, recipe, run.seed, run.kind, run.resume)
        known = {"data": facts(prepared.dataset), "weights": weights, "device": str(run.device)}
        known["splits"] = files.write_splits(out / files.SPLITS, prepared.splits)
        files.write_json(out / files.RUN, {**before, **known})
    _tell(run.listener, "data", prepared, time.perf_counter() - began)
    if pretraining is not None and recipe.pretrain.data is not None:
        _tell(run.listener, "data to pretrain on", pretraining, time.perf_counter() - began)
    return Material(prepared, pretraining)


def _weights_of(file: Path, recipe: Recipe) -> str:
    """The checksum of the file whose weights a run takes; what they learned must go with the baseline of the run."""
    model, asked = open_model(file), recipe.model.baseline
    learned = pretraining_of(file)
    if recipe.property is None and learned == "labels" and model.baseline != asked:
        raise MdpotError(
            f"{str(file)!r} was trained with model.baseline={model.baseline or 'none'}, and the recipe asks for "
            f"{asked or 'none'}. Both must be the same."
        )
    if asked is not None and learned == "forcefield":
        raise MdpotError(
            f"{str(file)!r} has learned a force field, and a network that corrects {asked} has to learn what is left. "
            "Begin from other weights, or set model.baseline=none."
        )
    return model.sha256


def facts(dataset: Dataset) -> dict[str, Any]:
    """What run.json holds of the data."""
    return {
        "name": dataset.name,
        "origin": dataset.origin,
        "labels": dataset.labels,
        "fingerprint": dataset.fingerprint,
        "n_frames": len(dataset),
    }


def _check_same(run: Run, before: dict[str, Any], dataset: Dataset, weights: str | None) -> None:
    """Refuses to go on with other data or other weights."""
    if before["data"]["fingerprint"] != dataset.fingerprint:
        raise MdpotError(
            f"the run in {str(run.out)!r} began with other data ({before['data'].get('origin')}); found now: "
            f"{dataset.origin}. Give the same data again by --data, or start a new run, also where they are the same: "
            "another version of mdpot may have read them otherwise."
        )
    if before.get("weights") != weights:
        raise MdpotError(
            f"the run in {str(run.out)!r} began from other pretrained weights. Give the same --from again, or start a "
            "new run."
        )


def _tell(listener: Listener, what: str, prepared: Prepared, seconds: float) -> None:
    dataset = prepared.dataset
    for note in filter(None, (dataset.notice, *dataset.notes, *prepared.notes)):
        listener.note(note)
    counts = ", ".join(f"{len(v)} {k}" for k, v in prepared.stores.items())
    listener.note(f"{what}: {len(dataset)} frames from {dataset.origin} ({counts}), {seconds:.1f} s")
    listener.note(f"labels: {dataset.labels}")
