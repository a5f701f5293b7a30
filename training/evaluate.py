"""How far a potential, or a model of a property, is from its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdpot.autograd import exact_gradients
from mdpot.device import check_device, pick_device
from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError, name_elements
from mdpot.heads import AnyPotential, PropertyModel
from mdpot.modelfile import open_model
from mdpot.training.baseline import less_baseline
from mdpot.training.data.frames import Dataset, elements_of
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import NOTHING_ASKED
from mdpot.training.data.reference import fit_reference
from mdpot.training.data.sources import load_named
from mdpot.training.data.store import INTERACTION, Batch, Store, batches
from mdpot.training.engine import choose_engine, small_operations
from mdpot.training.evaluation import Evaluation, PropertyEvaluation
from mdpot.training.kinds import about_outliers, error_rows

BATCH_ATOMS = 1024


def evaluate(potential: AnyPotential, store: Store, means: Mapping[int, float] | None = None) -> Evaluation:
    """Predictions beside labels.

    Args:
        potential: in evaluation mode, on the device of the store.
        store: the frames.
        means: mean energy of each element, eV by atomic number, for the baseline.
    """
    sizes, energies, forces, stresses = [], [], [], []
    has_stress = potential.conservative and "stress" in store.labels
    wanted = ["interaction", "forces", "stress"] if has_stress else ["interaction", "forces"]
    engine = choose_engine(potential, wanted)
    with small_operations(engine):
        for indices in batches(store, n_atoms=BATCH_ATOMS):
            batch = store.batch(indices)
            out = engine(*batch.graph.inputs(), outputs=wanted)
            sizes.append(torch.bincount(batch.graph.system, minlength=batch.graph.n_systems))
            energies.append(_beside(batch, INTERACTION, out["interaction"]))
            forces.append(_beside(batch, "forces", out["forces"]))
            if has_stress:
                stresses.append(_beside(batch, "stress", out["stress"]))
    return Evaluation(
        sizes=torch.cat(sizes).cpu().numpy(),
        energy=torch.cat(energies, 1).cpu().numpy(),
        forces=torch.cat(forces, 1).cpu().numpy(),
        stress=torch.cat(stresses, 1).cpu().numpy() if stresses else np.zeros((2, 0, 3, 3)),
        beyond_mean=None if means is None or "energy" not in store.labels else store.without(means).cpu().numpy(),
    )


def evaluate_property(model: PropertyModel, store: Store) -> PropertyEvaluation:
    """Predictions beside the targets that are there.

    Args:
        model: in evaluation mode, on the device of the store.
        store: the frames; some of them have a target.
    """
    sizes, values = [], []
    with torch.no_grad():
        for indices in batches(store, n_atoms=BATCH_ATOMS):
            batch = store.batch(indices)
            there = batch.there(model.name)
            predicted = model(*batch.graph.inputs())["property"]
            sizes.append(torch.bincount(batch.graph.system, minlength=batch.graph.n_systems)[there])
            values.append(torch.stack([batch.labels[model.name], predicted])[:, there])
    return PropertyEvaluation(torch.cat(sizes).cpu().numpy(), torch.cat(values, 1).cpu().numpy(), model.mean)


@exact_gradients()
def run_evaluate(
    file: Path | str, data: Path | str | Dataset, *, device: str | None = None, labels: Asked = NOTHING_ASKED
) -> dict[str, Any]:
    """Compares a potential with labeled frames; what labels there are is scored.

    Args:
        file: a potential file, the folder of a run, or a name of the zoo.
        data: a file with energies or forces, the name of a data source, or the frames themselves.
        device: torch device; None takes a GPU where there is one.
        labels: what the user says of keys and units in the file.

    Returns:
        "file", "data", "labels", for each set of frames a table, keys in `METRICS`, "baseline", the force field that
        the potential corrects, if it does, "notes" on how the frames were read, where there are any, and a "note"
        where the potential was trained on a part of the frames. Where frames are of several kinds, "kinds" are
        `error_rows` and "outliers" those of `about_outliers`.

    Raises:
        MdpotError: a file that cannot be used, or frames with elements the potential does not know.
    """
    check_device(device)
    model = open_model(file)
    potential, metadata = model.potential(pick_device(device), correction=True), model.header
    name, dataset = load_named(data, labels)
    if model.baseline is not None:
        for part in (dataset, *dataset.tests.values()):
            _check_elements(potential, part)
        # Training takes frames that state nothing for neutral ones.
        as_trained = model.electrons if isinstance(model.electrons, Electrons) else NOTHING_SAID
        dataset = less_baseline(dataset, range(len(dataset)), model.baseline, otherwise=as_trained)
    sets = {name: dataset, **dataset.tests}
    results = {name: _evaluate_set(potential, metadata, part) for name, part in sets.items()}
    tables = {name: scored.metrics() for name, scored in results.items()}
    result: dict[str, Any] = {"file": str(file), "data": dataset.origin, "labels": dataset.labels, **tables}
    if model.baseline is not None:
        result["baseline"] = model.baseline
    if dataset.notes:
        result["notes"] = list(dataset.notes)
    if metadata.get("provenance", {}).get("data", {}).get("fingerprint") == dataset.fingerprint:
        result["note"] = (
            f"the potential was trained on a part of {dataset.name}; `mdpot info` has its errors on the test split"
        )
    frames = {name: part.frames for name, part in sets.items()}
    found = {"kinds": error_rows(results, frames), "outliers": about_outliers(results, frames)}
    result |= {key: value for key, value in found.items() if value}
    return result


def _evaluate_set(potential: AnyPotential, metadata: Mapping[str, Any], dataset: Dataset) -> Evaluation:
    """Labels beside predictions; the baseline is the mean energy of the training frames, in old files of the set."""
    known = metadata.get("mean_energies") or {}
    means = {int(z): float(energy) for z, energy in known.items()}
    if not means and any(frame.energy is not None for frame in dataset.frames):
        means = dict(zip(*fit_reference(dataset.frames), strict=True))
    return evaluate(potential, store_for(potential, dataset), means or None)


def store_for(potential: AnyPotential, dataset: Dataset) -> Store:
    """The frames of a data set laid out for a potential, on its device.

    Raises:
        MdpotError: an element that the potential does not know.
    """
    _check_elements(potential, dataset)
    shift = dict(zip(potential.elements, potential.shift.tolist(), strict=True))
    return Store(dataset.frames, potential.cutoff, shift, molecules=False).to(potential.shift.device)


def _check_elements(potential: AnyPotential, dataset: Dataset) -> None:
    if strange := sorted(set(elements_of(dataset.frames)) - set(potential.elements)):
        raise MdpotError(
            f"{dataset.origin} holds {name_elements(strange)}, but the potential knows only "
            f"{name_elements(potential.elements)}. Train one that knows both."
        )


def _beside(batch: Batch, name: str, prediction: torch.Tensor) -> torch.Tensor:
    """A label, NaN where it is absent, and the prediction of the same shape: [2, *shape] float64."""
    predicted = prediction.detach().double()
    label = torch.full_like(predicted, torch.nan)
    if name in batch.labels:
        there = batch.there(name)
        label[there] = batch.labels[name][there].double()
    return torch.stack([label, predicted])
