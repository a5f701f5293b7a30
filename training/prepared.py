"""What a run knows of its data, and the references that are fitted to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from mdpot.errors import name_elements
from mdpot.heads import Potential
from mdpot.models import MODELS
from mdpot.radial import pair_energy
from mdpot.training.contacts import Contact, Pair, closest_approach, shortest_contacts
from mdpot.training.data.cache import Arrays, cached
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.data.reference import fit_reference, label_scale, mean_offset, wild_frames
from mdpot.training.data.store import Store
from mdpot.training.evaluate import evaluate
from mdpot.training.pair import PairFit, evaluate_pair_energy, fit_pair_energy
from mdpot.training.schema import ModelConfig

MOST_NAMED = 8  # wild frames that a note names
SAME_ATOM = 1e-3  # eV
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
        self._set_shift()

    def refer_to(self, source: Potential, offset: float) -> bool:
        """Takes over the pair energy of a trained potential, and fits the reference energies to what all of it leaves
        of the training labels: a network that takes its readout as well begins where it ended.

        Pairs of elements that it has no energy for keep the one that was fitted to these frames; a potential without
        any pair energy leaves none. Energies of isolated atoms stay what they are only if its reference energies are
        these: else its network counts from elsewhere, for each element.

        Args:
            source: knows all elements; on the device of the stores.
            offset: that of the data it was trained on, see `Prepared.offset`.

        Returns:
            Whether energies of isolated atoms, if there are any, stay the reference energies.
        """
        if source.has_pair:
            rows = torch.tensor([source.elements.index(z) for z in self.elements])
            pair = source.pair.detach().cpu()[:, rows][:, :, rows].double().numpy()
            self.pair = np.where((pair != 0).any(0), pair, 0.0 if self.pair is None else self.pair)
        else:
            self.pair = None
        frames, isolated = self.frames("train"), self.dataset.isolated
        references = dict(zip(source.elements, source.shift.tolist(), strict=True))
        keeps = all(math.isclose(energy, references[z], abs_tol=SAME_ATOM) for z, energy in isolated.items())
        isolated = isolated if keeps else {}
        if self.means is not None:
            energies = evaluate(source, self.train).energy[1]
            left = [
                replace(frame, energy=None if frame.energy is None else frame.energy - energy)
                for frame, energy in zip(frames, energies.tolist(), strict=True)
            ]
            _, self.shift = fit_reference(left, self.elements, isolated)
            self.offset = offset + (mean_offset(left, self.elements, self.shift) if isolated else 0.0)
            self._set_shift()
        return keeps

    def _set_shift(self) -> None:
        for store in self.stores.values():
            store.set_shift(dict(zip(self.elements, self.shift.tolist(), strict=True)))

    def _fitted_pair(self, cutoff: float) -> PairFit:
        def fit() -> Arrays:
            return fit_pair_energy(self.train, self.elements, cutoff, self.closest).arrays

        return PairFit.from_arrays(cached("pair", [self.train.fingerprint(), cutoff, self.elements], CODE, fit))

    @property
    def strangers(self) -> str:
        """That no training frame holds some of the elements, as a sentence; empty where these hold all of them."""
        strange = sorted(set(self.elements) - set(self.train.numbers.unique().tolist()))
        if not strange:
            return ""
        return f"No training frame holds {name_elements(strange)}: what is predicted of structures that do is a guess."

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
    named = ", ".join(
        f"{frame.index} ({frame.file}{', ' * bool(frame.file)}{off:+.1f} eV/atom)" for frame, off in wild[:MOST_NAMED]
    )
    more = f" and {len(wild) - MOST_NAMED} more" if len(wild) > MOST_NAMED else ""
    return [
        f"wild energies in training frames {named}{more}: they hardly count in the reference energies; look at them"
    ]
