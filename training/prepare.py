"""From a recipe to what a run trains on: frames found, checked, split, referenced, and laid out as tensors."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.files import sealed, sealed_content, write_bytes
from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.models.hyperparameters import MEASURED, hyperparameters_of
from mdpot.radial import pair_energy
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.contacts import Contact, Pair, closest_approach, shortest_contacts, wall_starts
from mdpot.training.data.cache import Arrays, cached
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.data.reference import fit_reference, label_scale, mean_offset, wild_frames
from mdpot.training.data.sources import load_dataset
from mdpot.training.data.splits import limit_frames, split_by_group
from mdpot.training.data.store import Store
from mdpot.training.objectives.masking import count_maskable
from mdpot.training.pair import PairFit, evaluate_pair_energy, fit_pair_energy
from mdpot.training.schema import DataConfig, ModelConfig, Recipe

LABELS = "labels.npz"
SAVE_EVERY = 30.0  # seconds between two savings of the labels of a force field
MOST_NAMED = 8  # wild frames that a note names
CODE = (fit_pair_energy, closest_approach, fit_reference, pair_energy)  # what a fitted pair energy comes from


@dataclass
class Prepared:
    """All that a run needs to know of its data.

    Attributes:
        dataset: the frames and where they came from.
        splits: frame indices by name: train, validation, test; and pretrain, where `data.max_train_frames` takes frames
            from train: all of them.
        stores: the frames of each split as tensors, on the device, and of every further test set.
        elements: atomic numbers, ascending.
        shift: [n_elements], eV, reference energies from the training split.
        scale: eV, the typical force of the training split (eV/Å) times 1 Å; less the pair energy where there is one.
        pair: [n_terms, n_elements, n_elements], eV, of the pair energy fitted to the training split; None for none.
        offset: eV per atom, where the network's energy starts: what binds an atom on average, where the reference is
            the energy of isolated atoms; zero where it is fitted.
        means: [n_elements], eV, reference energies of the training split for a potential that knows nothing else.
        notes: what the user should know of them, a sentence each.
        structures: what pretraining sees, see `structures_to_pretrain`.
    """

    dataset: Dataset
    splits: dict[str, np.ndarray]
    stores: dict[str, Store]
    elements: list[int]
    shift: np.ndarray
    scale: float
    pair: np.ndarray | None = None
    offset: float = 0.0
    means: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    structures: Prepared | None = None

    def refer(self, model: ModelConfig, training: Sequence[Frame]) -> None:
        """Fits pair energy, reference energies and scale, in this order, to the labeled frames of the train store."""
        isolated = self.dataset.isolated
        if any(frame.energy is not None for frame in training):
            _, self.means = fit_reference(training, self.elements)
            self.notes += _about_wild_frames(training, self.elements, self.means)
        if model.pair and MODELS[model.name].conservative and any(frame.forces is not None for frame in training):
            fit = self._fitted_pair(model.cutoff)
            if fit.helps:
                self.pair = fit.coefficients
                energies, forces = evaluate_pair_energy(self.train, self.elements, self.pair, model.cutoff)
                training = _subtract(training, energies, forces)
            else:
                self.notes.append(
                    "no pair energy: fitted to a part of the training frames, it does not explain the others"
                )
        if self.means is not None:
            _, self.shift = fit_reference(training, self.elements, isolated)
            self.offset = mean_offset(training, self.elements, self.shift) if isolated else 0.0
        self.scale = label_scale(training, self.elements, self.shift)
        for store in self.stores.values():
            store.set_shift(dict(zip(self.elements, self.shift.tolist(), strict=True)))

    def _fitted_pair(self, cutoff: float) -> PairFit:
        def fit() -> Arrays:
            return fit_pair_energy(self.train, self.elements, cutoff, self.closest).arrays

        return PairFit.from_arrays(cached("pair", [self.train.fingerprint(), cutoff, self.elements], CODE, fit))

    @cached_property
    def contacts(self) -> dict[Pair, Contact]:
        """The shortest contact of each pair of elements in the training frames."""
        return shortest_contacts(self.train)

    @property
    def closest(self) -> dict[Pair, float]:
        """How close, Å, the atoms of each pair of elements are taken to come."""
        return closest_approach(self.elements, self.contacts)

    def frames(self, split: str) -> list[Frame]:
        """The frames of a split, in the order of its store."""
        return [self.dataset.frames[i] for i in self.splits[split]]

    @property
    def train(self) -> Store:
        return self.stores["train"]

    @property
    def validation(self) -> Store:
        return self.stores["validation"]


def prepare(
    recipe: Recipe,
    data: Path | Dataset | None,
    seed: int,
    device: torch.device,
    splits: Mapping[str, Sequence[int]] | None = None,
    need_labels: bool = True,
) -> Prepared:
    """Finds, checks and splits the frames of a recipe and builds their neighbor lists.

    Args:
        recipe: which data, which split, which cutoff.
        data: file or folder given by the user, or the frames themselves.
        seed: of the split.
        device: where the tensors go.
        splits: those of an earlier start of the same run; made anew without it.
        need_labels: False for pretraining alone, which reads no energies or forces.

    Raises:
        MdpotError: data that cannot be found, read or used.
    """
    config = recipe.data
    need = recipe.finetune.needed_labels if need_labels else ()
    dataset = load_dataset(
        config.source, data, allow_download=config.download, need=need, size=config.size, labels=config.labels
    )
    frames = dataset.frames
    if splits is not None and max((max(v, default=-1) for v in splits.values()), default=-1) >= len(frames):
        raise MdpotError(
            f"the run began with other data: its splits reach beyond the {len(frames)} frames of {dataset.origin}. "
            "Give the same data again by --data, or start a new run."
        )
    chosen = _split(dataset, config, seed) if splits is None else {k: np.asarray(v) for k, v in splits.items()}
    training = [frames[i] for i in chosen["train"]]
    # Elements that only validation or test frames hold belong to the potential too; their reference is zero.
    elements = sorted({int(z) for frame in frames for z in np.unique(frame.numbers)})
    used = {name: indices for name, indices in chosen.items() if len(indices) and name != "pretrain"}
    parts = {name: [frames[i] for i in indices] for name, indices in used.items()}
    parts |= {name: extra.frames for name, extra in dataset.tests.items()}
    masked = recipe.pretrain.objective == "mask"
    stores = {
        name: Store(part, recipe.model.cutoff, None, config.molecule, masked and name in ("train", "validation"))
        for name, part in parts.items()
    }
    prepared = Prepared(dataset, chosen, stores, elements, np.zeros(len(elements)), 1.0)
    if need_labels:
        prepared.refer(recipe.model, training)
    for store in stores.values():
        store.to(device)
    return prepared


def structures_to_pretrain(recipe: Recipe, prepared: Prepared) -> Prepared | None:
    """The data with every frame of the training split, those too that `data.max_train_frames` keeps from finetuning.

    Pretraining takes them all, for it reads no labels of theirs.

    Returns:
        None where there is no pretraining stage.

    Raises:
        MdpotError: a recipe that masks, and no molecule to mask; or a force field that describes no frame.
    """
    stage = recipe.pretrain
    if stage.objective == "none":
        return None
    if "pretrain" in prepared.splits:
        store = Store(
            prepared.frames("pretrain"), recipe.model.cutoff, None, recipe.data.molecule, stage.objective == "mask"
        )
        prepared = replace(
            prepared,
            splits={**prepared.splits, "train": prepared.splits["pretrain"]},
            stores={**prepared.stores, "train": store.to(prepared.train.device)},
        )
    if stage.objective == "forcefield":
        for split in ("train", "validation"):
            if not any(len(_relabel(frame, stage.forcefield)) for frame in prepared.frames(split)):
                raise MdpotError(
                    f"the force field {stage.forcefield} describes none of the {split} frames of "
                    f"{prepared.dataset.origin}. Choose another by pretrain.forcefield, or set pretrain.objective=none."
                )
    elif stage.objective == "mask" and count_maskable(prepared.train, atomic_numbers[stage.element]) == 0:
        raise MdpotError(
            f"masking needs molecules{' ' + recipe.data.molecule if recipe.data.molecule else ''} with "
            f"{stage.element}, and the training frames hold none. Set pretrain.objective=none, or data.molecule=none."
        )
    return prepared


def _forcefield_labels(
    frames: Sequence[Frame], forcefield: str, file: Path, tell: Callable[[int, int], None]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Energies, NaN where a frame is not described, and forces of each frame; see `with_forcefield_labels`."""
    energies, forces, done = np.full(len(frames), np.nan), [np.full((len(frame), 3), np.nan) for frame in frames], 0
    if file.is_file():
        energies, forces, done = _kept_labels(file, [len(frame) for frame in frames])
    saved = time.monotonic()
    with StopSignal() as stop:
        while done < len(frames) and not stop.requested:
            for labelled in _relabel(frames[done], forcefield):
                energies[done], forces[done] = labelled.energy, np.asarray(labelled.forces)
            done += 1
            tell(done, len(frames))
            if done == len(frames) or stop.requested or time.monotonic() - saved > SAVE_EVERY:
                buffer = io.BytesIO()
                np.savez(buffer, energies=energies, forces=np.concatenate(forces), done=done)
                write_bytes(file, sealed(buffer.getvalue()))
                saved = time.monotonic()
    if stop.requested:
        raise Stopped(f"stopped after {done} of {len(frames)} labels of the force field, which are kept.")
    return energies, forces


def _kept_labels(file: Path, sizes: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Energies, forces and the number of frames done, of a file that `_forcefield_labels` left.

    Raises:
        MdpotError: it was changed since, or is of other frames.
    """
    try:
        with np.load(io.BytesIO(sealed_content(file))) as kept:
            energies, forces, done = kept["energies"], kept["forces"], int(kept["done"])
        if energies.shape != (len(sizes),) or forces.shape != (sum(sizes), 3):
            raise ValueError("it is of other frames")
    except Exception as error:  # what numpy raises depends on what it meets
        reason = " ".join(str(error).split()).rstrip(".")
        raise MdpotError(f"{str(file)!r} is damaged: {reason}. Remove it to label the frames again.") from None
    return energies, np.split(forces, np.cumsum(sizes)[:-1]), done


def without_labels(prepared: Prepared) -> Prepared:
    """The data for an objective that needs no labels.

    None goes in, not even by the scale: pretraining alone and as a part of a training are the same.
    """
    return replace(prepared, shift=np.zeros_like(prepared.shift), scale=1.0, pair=None, offset=0.0)


def with_forcefield_labels(
    recipe: Recipe, prepared: Prepared, file: Path, tell: Callable[[int, int], None] = lambda done, n: None
) -> Prepared:
    """The training and validation frames that the force field of the recipe describes, with its labels.

    Pair energy, reference energies and scale are fitted to these labels as they are to those of the data.

    Args:
        recipe: the force field and the cutoff.
        prepared: the frames.
        file: keeps the labels, those that are there when it is stopped too, for a run that goes on.
        tell: called with the number of frames labelled, and of all.

    Raises:
        Stopped: on SIGINT or SIGTERM; the labels so far are kept.
    """
    frames = prepared.frames("train") + prepared.frames("validation")
    energies, forces = _forcefield_labels(frames, recipe.pretrain.forcefield, file, tell)
    parts: dict[str, list[Frame]] = {"train": [], "validation": []}
    for n, (frame, energy, force) in enumerate(zip(frames, energies, forces, strict=True)):
        if np.isfinite(energy):
            split = "train" if n < len(prepared.splits["train"]) else "validation"
            parts[split].append(replace(frame, energy=float(energy), forces=force, stress=None))
    stores = {split: Store(part, recipe.model.cutoff, molecules=False) for split, part in parts.items()}
    # The isolated atoms of the data have energies of another method.
    dataset = replace(prepared.dataset, isolated={})
    labelled = replace(prepared, dataset=dataset, stores=stores, pair=None, means=None, offset=0.0, notes=[])
    labelled.refer(recipe.model, parts["train"])
    for store in stores.values():
        store.to(prepared.train.device)
    return labelled


def _relabel(frame: Frame, name: str) -> list[Frame]:
    """The frame with the labels of a force field, in a list; an empty one where it cannot be described."""
    from mdpot.training.data.forcefields import relabel

    return relabel([frame], name)


def new_potential(
    model: ModelConfig, prepared: Prepared, seed: int, hyperparameters: Mapping[str, Any] | None = None
) -> Potential:
    """A potential with fresh weights, the same for the same seed, for prepared data.

    Where the architecture normalizes by the average number of neighbors and the recipe leaves it open, it is
    measured on the training split.

    Args:
        model: the recipe's table.
        prepared: data.
        seed: of the weights.
        hyperparameters: all of them, to rebuild a given network; those of the recipe without it.
    """
    if hyperparameters is None:
        hyperparameters = measured_hyperparameters(model, prepared)
    torch.manual_seed(seed)
    wall = wall_starts(prepared.elements, prepared.closest) if model.repulsion else None
    pair = None if prepared.pair is None else prepared.pair.tolist()
    potential = build_potential(
        model.name, hyperparameters, prepared.elements, prepared.shift.tolist(), prepared.scale, wall, pair
    )
    # The energies of isolated atoms stay what they are; that atoms bind is where the network starts from.
    with torch.no_grad():
        potential.readout[-1].bias += prepared.offset / prepared.scale  # type: ignore[union-attr]
    return potential


def measured_hyperparameters(model: ModelConfig, prepared: Prepared) -> dict[str, Any]:
    """The cutoff and hyperparameters of the recipe, with the average number of neighbors where it is left open."""
    hyperparameters = model.arguments
    takes = hyperparameters_of(MODELS[model.name])
    if MEASURED in takes and MEASURED not in hyperparameters:
        hyperparameters[MEASURED] = average_neighbors(prepared.train)
    return hyperparameters


def _subtract(frames: Sequence[Frame], energies: np.ndarray, forces: np.ndarray) -> list[Frame]:
    """The labelled frames less energies [n_frames] and forces [n_atoms, 3]."""
    parts = np.split(forces, np.cumsum([len(frame) for frame in frames])[:-1])
    return [
        replace(
            frame,
            energy=None if frame.energy is None else frame.energy - energy,
            forces=None if frame.forces is None else frame.forces - part,
        )
        for frame, energy, part in zip(frames, energies, parts, strict=True)
    ]


def _about_wild_frames(frames: Sequence[Frame], elements: Sequence[int], means: np.ndarray) -> list[str]:
    """A sentence that names the frames whose energies fit to nothing else."""
    wild = wild_frames(frames, elements, means)
    if not wild:
        return []
    named = ", ".join(f"{frame.index} ({off:+.1f} eV/atom)" for frame, off in wild[:MOST_NAMED])
    more = f" and {len(wild) - MOST_NAMED} more" if len(wild) > MOST_NAMED else ""
    return [
        f"wild energies in training frames {named}{more}: they hardly count in the reference energies; look at them"
    ]


def average_neighbors(store: Store) -> float:
    """Mean number of neighbors per atom inside the cutoff."""
    return round(float(store.n_edges_per_frame.sum() / store.n_atoms_per_frame.sum()), 2)


def sample_structures(frames: Sequence[Frame], n_structures: int = 3, n_atoms: int = 200) -> list[dict[str, Any]]:
    """A few structures, small ones first, as plain lists: kept in the potential file to check exports with."""
    small = sorted((f for f in frames if len(f) <= n_atoms), key=len)
    step = max(len(small) // n_structures, 1)
    return [
        {
            "numbers": frame.numbers.tolist(),
            "positions": frame.positions.round(6).tolist(),
            "cell": frame.cell.tolist(),
            "pbc": frame.pbc.tolist(),
        }
        for frame in small[::step][:n_structures]
    ]


def _split(dataset: Dataset, config: DataConfig, seed: int) -> dict[str, np.ndarray]:
    """The official split where there is one, else one by groups or frames; the training part cut to what is asked."""
    names = [frame.group if config.split_by == "group" else str(n) for n, frame in enumerate(dataset.frames)]
    splits = dataset.splits or split_by_group(names, config.fractions, seed)
    for name in ("train", "validation"):
        if len(splits.get(name, ())) == 0:
            raise MdpotError(
                f"the {name} split of {dataset.origin} is empty: {len(dataset)} frames in {len(set(names))} groups are "
                "too few for data.fractions. Give more frames, or set data.split_by=frame."
            )
    few = limit_frames(splits["train"], names, config.max_train_frames, seed)
    every = {} if len(few) == len(splits["train"]) else {"pretrain": splits["train"]}
    return {**splits, "train": few, **every}
