"""From a recipe to what a run trains on: frames found, checked, split, referenced, and laid out as tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.training.baseline import less_baseline
from mdpot.training.data.frames import Dataset, Frame, elements_of, first_of_repeats
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.splits import limit_frames, split_by_group
from mdpot.training.data.store import Store
from mdpot.training.data.targets import PROPERTY, target
from mdpot.training.kept import Tell, tell_nobody
from mdpot.training.objectives.masking import count_maskable
from mdpot.training.prepared import Prepared
from mdpot.training.relabel import describes
from mdpot.training.schema import DataConfig, Recipe


def prepare(
    recipe: Recipe,
    data: Path | str | Dataset | None,
    seed: int,
    device: torch.device,
    splits: Mapping[str, Sequence[int]] | None = None,
    need_labels: bool = True,
    tell: Tell = tell_nobody,
) -> Prepared:
    """Finds, checks and splits the frames of a recipe and builds their neighbor lists.

    Args:
        recipe: which data, which split, which cutoff.
        data: file or folder given by the user, or the frames themselves.
        seed: of the split.
        device: where the tensors go.
        splits: those of an earlier start of the same run; made anew without it.
        need_labels: False for pretraining alone, which reads no labels of theirs.
        tell: called with the number of frames that a baseline has labelled, and of all.

    Raises:
        MdpotError: data that cannot be found, read or used.
    """
    need = _needed(recipe, data) if need_labels else set()
    dataset = _load(recipe.data, data, need)
    frames = dataset.frames
    if splits is not None and max((max(v, default=-1) for v in splits.values()), default=-1) >= len(frames):
        raise MdpotError(
            f"the run began with other data: its splits reach beyond the {len(frames)} frames of {dataset.origin}. "
            "Give the same data again by --data, or start a new run."
        )
    chosen = (
        split_frames(dataset, recipe.data, seed) if splits is None else {k: np.asarray(v) for k, v in splits.items()}
    )
    if recipe.model.baseline is not None and need_labels:
        learned = [n for split, part in chosen.items() if split != "pretrain" for n in part.tolist()]
        dataset = less_baseline(dataset, learned, recipe.model.baseline, tell)
    masked = recipe.pretrain.objective == "mask" and recipe.pretrain.data is None
    prepared = _lay_out(dataset, chosen, recipe.data, recipe.model.cutoff, masked)
    if need_labels and recipe.property is None:
        prepared.refer(recipe.model, prepared.frames("train"))
    return _to(prepared, device)


def data_to_pretrain(recipe: Recipe, prepared: Prepared, seed: int, device: torch.device) -> Prepared | None:
    """What pretraining sees: data of its own, where the recipe has them, or `structures_to_pretrain`.

    Args:
        recipe: of the run.
        prepared: the data of the finetuning; their elements belong to the pretrained network as well.
        seed: of the split.
        device: where the tensors go.

    Returns:
        None where there is no pretraining stage.

    Raises:
        MdpotError: data that cannot be found, read or used, or a recipe that does not fit them.
    """
    stage, config = recipe.pretrain, recipe.pretrain.data
    if config is None or stage.objective == "none":
        return structures_to_pretrain(recipe, prepared)
    learns = stage.objective == "labels"
    path = None if config.path is None else Path(config.path)
    try:
        dataset = _load(config, path, stage.needed_labels if learns else set())
    except MdpotError as error:
        raise MdpotError(
            f"{error} This is of the data to pretrain on: pretrain.data.path names another place, and --set "
            "pretrain.objective=none goes without."
        ) from None
    chosen = split_frames(dataset, config, seed)
    chosen = {name: chosen[name] for name in ("train", "validation")}
    own = _lay_out(dataset, chosen, config, recipe.model.cutoff, stage.objective == "mask", prepared.elements)
    _check_structures(recipe, own, config)
    if learns:
        own.refer(recipe.model, own.frames("train"))
    return _to(own, device)


def structures_to_pretrain(recipe: Recipe, prepared: Prepared) -> Prepared | None:
    """The data with every frame of the training split, those too that `data.max_train_frames` keeps from finetuning.

    Pretraining takes them all where it reads no labels of theirs.

    Returns:
        None where there is no pretraining stage.

    Raises:
        MdpotError: a recipe that masks, and no molecule to mask; or a force field that describes no frame.
    """
    stage = recipe.pretrain
    if stage.objective == "none":
        return None
    if "pretrain" in prepared.splits and stage.objective != "labels":
        store = Store(
            prepared.frames("pretrain"), recipe.model.cutoff, None, recipe.data.molecule, stage.objective == "mask"
        )
        prepared = replace(
            prepared,
            splits={**prepared.splits, "train": prepared.splits["pretrain"]},
            stores={**prepared.stores, "train": store.to(prepared.train.device)},
        )
    _check_structures(recipe, prepared, recipe.data)
    return prepared


def without_labels(prepared: Prepared) -> Prepared:
    """The data for an objective that needs no labels.

    None goes in, not even by the scale: pretraining alone and as a part of a training are the same.
    """
    return replace(prepared, shift=np.zeros_like(prepared.shift), scale=1.0, pair=None, offset=0.0)


def _check_structures(recipe: Recipe, prepared: Prepared, config: DataConfig) -> None:
    """Refuses an objective that finds nothing to do in the frames; errors as `structures_to_pretrain`."""
    stage = recipe.pretrain
    if stage.objective == "forcefield":
        for split in ("train", "validation"):
            if not describes(stage.forcefield, prepared.frames(split)):
                raise MdpotError(
                    f"the force field {stage.forcefield} describes none of the {split} frames of "
                    f"{prepared.dataset.origin}. Choose another by pretrain.forcefield, or set pretrain.objective=none."
                )
    elif stage.objective == "mask" and count_maskable(prepared.train, atomic_numbers[stage.element]) == 0:
        raise MdpotError(
            f"masking needs molecules{' ' + config.molecule if config.molecule else ''} with "
            f"{stage.element}, and the training frames hold none. Set pretrain.objective=none, or data.molecule=none."
        )


def _needed(recipe: Recipe, data: Path | str | Dataset | None) -> set[str]:
    """The labels that every frame of the finetuning must have."""
    if recipe.property is None:
        return recipe.finetune.needed_labels
    key = recipe.data.property_key
    if key is not None and target(key) not in (PROPERTY, target("energy")):
        raise MdpotError(
            f"data.property_key must be the key of a number; {key} are labels of another shape. Rename it."
        )
    if key is not None:
        return {key}
    if isinstance(data, Dataset):
        return {data.property}
    if recipe.data.source == "custom":
        raise MdpotError(
            "data.property_key must be the key of the property to learn, e.g. --set data.property_key=band_gap; got "
            "none. `mdpot data inspect` shows those that the data have."
        )
    return {"property"}  # that of the source


def _load(config: DataConfig, data: Path | str | Dataset | None, need: Collection[str]) -> Dataset:
    """The frames of a table of a recipe, with the labels that are needed, those too by which frames are chosen."""
    need = {*need, "forces"} if config.max_force is not None else need
    dataset = load_dataset(
        config.source, data, allow_download=config.download, need=need, size=config.size, labels=config.labels
    )
    if config.property_key in (None, dataset.property):
        return dataset
    return replace(dataset, property=config.property_key, unit="")


def _lay_out(
    dataset: Dataset,
    splits: dict[str, np.ndarray],
    config: DataConfig,
    cutoff: float,
    molecules: bool,
    elements: Collection[int] = (),
) -> Prepared:
    """The frames of each split, and of every further test set, as tensors on the CPU; nothing is fitted yet.

    Args:
        dataset: the frames.
        splits: frame indices by name.
        config: how molecules are told.
        cutoff: Å.
        molecules: whether they are looked for.
        elements: those that the network must know beside those of the frames.
    """
    frames = dataset.frames
    # Elements that only validation or test frames hold belong to the potential too; their reference is zero.
    known = sorted({*elements_of(frames), *elements})
    used = {name: indices for name, indices in splits.items() if len(indices) and name != "pretrain"}
    parts = {name: [frames[i] for i in indices] for name, indices in used.items()}
    parts |= {name: extra.frames for name, extra in dataset.tests.items()}
    stores = {
        name: Store(part, cutoff, None, config.molecule, molecules and name in ("train", "validation"))
        for name, part in parts.items()
    }
    prepared = Prepared(dataset, splits, stores, known, np.zeros(len(known)), 1.0)
    prepared.notes += filter(None, [prepared.strangers])
    return prepared


def _to(prepared: Prepared, device: torch.device) -> Prepared:
    for store in prepared.stores.values():
        store.to(device)
    return prepared


def split_frames(dataset: Dataset, config: DataConfig, seed: int) -> dict[str, np.ndarray]:
    """The official split where there is one, else one by groups or frames, in which repeats stay together; the training
    part cut to what is asked.

    Returns:
        Frame indices of train, validation and test, ascending; and of pretrain, all that could train, where train is
        cut.

    Raises:
        MdpotError: too few frames, or a fold that there is not.
    """
    first = first_of_repeats(dataset.frames)
    names = [dataset.frames[n].group if config.split_by == "group" else str(n) for n in first]
    splits = _fold(dataset, config, names, seed) if config.fold else dataset.splits
    splits = splits or split_by_group(names, config.fractions, seed)
    if config.max_frames is not None:
        drawn = limit_frames(np.arange(len(dataset)), names, config.max_frames, seed)
        splits = {name: indices[np.isin(indices, drawn)] for name, indices in splits.items()}
    if config.max_force is not None:
        calm = np.array([_largest_force(frame) <= config.max_force for frame in dataset.frames])
        splits = {name: indices[calm[indices]] for name, indices in splits.items()}
    for name in ("train", "validation"):
        if len(splits.get(name, ())) == 0:
            raise MdpotError(
                f"the {name} split of {dataset.origin} is empty: {len(dataset)} frames in {len(set(names))} groups are "
                "too few for data.fractions. Give more frames, or set data.split_by=frame."
            )
    few = limit_frames(splits["train"], names, config.max_train_frames, seed)
    every = {} if len(few) == len(splits["train"]) else {"pretrain": splits["train"]}
    return {**splits, "train": few, **every}


def _fold(dataset: Dataset, config: DataConfig, names: list[str], seed: int) -> dict[str, np.ndarray]:
    """An official fold to test on, the other frames divided as the fractions of training and validation are."""
    assert config.fold is not None
    if not dataset.folds:
        raise MdpotError(
            f"data.fold is for data with official folds, which {dataset.name} does not have; got {config.fold}."
        )
    if config.fold > len(dataset.folds):
        raise MdpotError(
            f"data.fold must be one of the {len(dataset.folds)} official folds of {dataset.name}; got {config.fold}."
        )
    test = dataset.folds[config.fold - 1]
    rest = np.setdiff1d(np.arange(len(dataset)), test)
    train, validation, _ = config.fractions
    shares = (train / (train + validation), validation / (train + validation), 0.0)
    parts = split_by_group([names[i] for i in rest.tolist()], shares, seed)
    return {"train": rest[parts["train"]], "validation": rest[parts["validation"]], "test": test}


def _largest_force(frame: Frame) -> float:
    """The largest force on an atom, eV/Å; infinite where forces are not known."""
    return np.inf if frame.forces is None else float(np.linalg.norm(frame.forces, axis=1).max(initial=0.0))
