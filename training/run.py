"""Whole runs: pretrain, finetune, test, and write down what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from mdpot.autograd import exact_gradients
from mdpot.errors import MdpotError
from mdpot.heads import AnyPotential, Potential
from mdpot.modelfile import open_model, save_potential
from mdpot.models.hyperparameters import MEASURED, complete
from mdpot.training import folder as files
from mdpot.training.data.frames import Dataset
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import NOTHING_ASKED
from mdpot.training.data.reference import fit_reference
from mdpot.training.data.sources import load_named
from mdpot.training.data.store import Store
from mdpot.training.evaluate import Evaluation, evaluate
from mdpot.training.listener import Listener
from mdpot.training.metrics import worse_than_nothing
from mdpot.training.objectives import Labels, pretraining_objective
from mdpot.training.prepare import (
    LABELS,
    Prepared,
    measured_hyperparameters,
    new_potential,
    prepare,
    sample_structures,
    structures_to_pretrain,
    with_forcefield_labels,
    without_labels,
)
from mdpot.training.report import write_report
from mdpot.training.schema import Recipe
from mdpot.training.trainer import Progress, Report, fit
from mdpot.training.transfer import load_pretrained, pretraining_of, transfer_backbone

SILENT = Listener()
MAX_SEED = 2**32 - 1
"""Times a million and some steps, a seed of a step must be one of torch's."""


@exact_gradients()
def run_train(
    recipe: Recipe,
    *,
    data: Path | Dataset | None,
    out: Path,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Pretrains as the recipe says, finetunes, tests and reports.

    Args:
        recipe: the complete run.
        data: file or folder with the frames, or the frames themselves; None searches, see `load_dataset`.
        out: folder of the run; new, or that of the same run with `resume`.
        seed: of the split, the weights, the batches and the masks.
        device: torch device; None takes a GPU where there is one.
        resume: go on with the run in `out`.
        listener: hears of the progress.

    Returns:
        The content of metrics.json, see `mdpot.training.metrics.METRICS`.

    Raises:
        MdpotError: bad input of any kind; nothing that was there is lost.
        Stopped: on Ctrl-C or SIGTERM; `resume` goes on.
    """
    where = pick_device(device)
    with files.claimed(out, resume):
        prepared = _open(recipe, data, out, seed, where, "train", resume, listener)
        network = new_potential(recipe.model, prepared, seed)
        if prepared.structures is not None:
            pretrained = _pretrain(recipe, prepared, where, out, seed, listener)
            with_readout = recipe.pretrain.objective == "forcefield"
            _transfer(pretrained, network, "the pretrained network", listener, with_readout, prepared.offset)
        return _finetune(recipe, prepared, network.to(where), out, seed, listener)


@exact_gradients()
def run_pretrain(
    recipe: Recipe,
    *,
    data: Path | Dataset | None,
    out: Path,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
) -> Path:
    """Pretrains only, without reading a label; arguments and errors as `run_train`.

    Returns:
        The file with the pretrained weights.
    """
    where = pick_device(device)
    with files.claimed(out, resume):
        prepared = _open(recipe, data, out, seed, where, "pretrain", resume, listener, need_labels=False)
        _pretrain(recipe, prepared, where, out, seed, listener)
    return out / files.PRETRAINED


@exact_gradients()
def run_finetune(
    recipe: Recipe,
    *,
    from_file: Path,
    data: Path | Dataset | None,
    out: Path,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Finetunes from the weights of a file, tests and reports; the rest as `run_train`.

    Args:
        from_file: a potential file; its network must be that of the recipe.
    """
    where = pick_device(device)
    source = load_pretrained(from_file, torch.device("cpu"))
    with files.claimed(out, resume):
        prepared = _open(recipe, data, out, seed, where, "finetune", resume, listener, from_file=from_file)
        network = new_potential(recipe.model, prepared, seed)
        if MEASURED in network.hyperparameters and source.model == network.model:
            # A normalization measured on the pretraining data belongs to the weights.
            made = complete(type(source.backbone), source.hyperparameters)
            same = {**network.hyperparameters, MEASURED: made[MEASURED]}
            network = new_potential(recipe.model, prepared, seed, same)
        with_readout = pretraining_of(from_file) == "forcefield"
        _transfer(source, network, str(from_file), listener, with_readout, prepared.offset)
        return _finetune(recipe, prepared, network.to(where), out, seed, listener, from_file)


@exact_gradients()
def run_evaluate(
    file: Path, data: Path | str | Dataset, *, device: str | None = None, labels: Asked = NOTHING_ASKED
) -> dict[str, Any]:
    """Compares a potential with labeled frames; what labels there are is scored.

    Args:
        file: a potential file, the folder of a run, or a name of the zoo.
        data: a file with energies or forces, the name of a data source, or the frames themselves.
        device: torch device; None takes a GPU where there is one.
        labels: what the user says of keys and units in the file.

    Returns:
        "file", "data", "labels", for each set of frames a table, keys in `METRICS`, "notes" on how the frames were
        read, where there are any, and a "note" where the potential was trained on a part of the frames.

    Raises:
        MdpotError: a file that cannot be used, or frames with elements the potential does not know.
    """
    model = open_model(file)
    potential, metadata = model.potential(pick_device(device)), model.header
    name, dataset = load_named(data, labels)
    sets = {name: dataset, **dataset.tests}
    tables = {name: _evaluate_set(potential, metadata, part) for name, part in sets.items()}
    result: dict[str, Any] = {"file": str(file), "data": dataset.origin, "labels": dataset.labels, **tables}
    if dataset.notes:
        result["notes"] = list(dataset.notes)
    if metadata.get("provenance", {}).get("data", {}).get("fingerprint") == dataset.fingerprint:
        result["note"] = (
            f"the potential was trained on a part of {dataset.name}; `mdpot info` has its errors on the test split"
        )
    return result


def _evaluate_set(potential: AnyPotential, metadata: Mapping[str, Any], dataset: Dataset) -> dict[str, float]:
    """The errors on a set; its baseline is the mean energy of the training frames, in old files of the set itself."""
    known = metadata.get("mean_energies") or {}
    means = {int(z): float(energy) for z, energy in known.items()}
    if not means and any(frame.energy is not None for frame in dataset.frames):
        means = dict(zip(*fit_reference(dataset.frames), strict=True))
    return evaluate(potential, store_for(potential, dataset), means or None).metrics()


def store_for(potential: AnyPotential, dataset: Dataset) -> Store:
    """The frames of a data set laid out for a potential, on its device.

    Raises:
        MdpotError: an element that the potential does not know.
    """
    held = {int(z) for frame in dataset.frames for z in frame.numbers}
    if strange := sorted(held - set(potential.elements)):
        raise MdpotError(
            f"{dataset.origin} holds elements Z = {strange} that the potential was not trained for; it knows "
            f"Z = {potential.elements}."
        )
    shift = dict(zip(potential.elements, potential.shift.tolist(), strict=True))
    return Store(dataset.frames, potential.cutoff, shift, molecules=False).to(potential.shift.device)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; without a name a CUDA GPU where there is one, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _open(
    recipe: Recipe,
    data: Path | Dataset | None,
    out: Path,
    seed: int,
    device: torch.device,
    kind: str,
    resume: bool,
    listener: Listener,
    need_labels: bool = True,
    from_file: Path | None = None,
) -> Prepared:
    """The folder of the run and its data; a resumed run gets the same frames in the same splits and starts from the
    same weights, or an error."""
    began = time.perf_counter()
    if not 0 <= seed <= MAX_SEED:
        raise MdpotError(f"seed must be from 0 to {MAX_SEED}; got {seed}.")
    run = files.open_folder(out, recipe, seed, kind, resume) if resume and (out / files.RUN).is_file() else {}
    splits = files.read_splits(out / files.SPLITS, run.get("splits")) if "data" in run else None
    prepared = prepare(recipe, data, seed, device, splits, need_labels)
    if kind != "finetune":
        # Before there is a folder: what cannot be pretrained raises here.
        prepared.structures = structures_to_pretrain(recipe, prepared)
    if kind == "pretrain" and prepared.structures is None:
        raise MdpotError('there is nothing to pretrain: pretrain.objective is "none".')
    dataset = prepared.dataset
    facts = {
        "name": dataset.name,
        "origin": dataset.origin,
        "labels": dataset.labels,
        "fingerprint": dataset.fingerprint,
        "n_frames": len(dataset),
    }
    if resume and "data" in run and run["data"]["fingerprint"] != dataset.fingerprint:
        raise MdpotError(
            f"the run in {str(out)!r} began with other data ({run['data'].get('origin')}); found now: "
            f"{dataset.origin}. Give the same data again by --data, or start a new run."
        )
    weights = None if from_file is None else open_model(from_file).sha256
    if "data" in run and run.get("weights") != weights:
        raise MdpotError(
            f"the run in {str(out)!r} began from other pretrained weights. Give the same --from again, or start a "
            "new run."
        )
    if "data" not in run:
        run = files.open_folder(out, recipe, seed, kind, resume)
        known = {"data": facts, "weights": weights, "device": str(device)}
        known["splits"] = files.write_splits(out / files.SPLITS, prepared.splits)
        files.write_json(out / files.RUN, {**run, **known})
    for note in filter(None, (dataset.notice, *dataset.notes, *prepared.notes)):
        listener.note(note)
    counts = ", ".join(f"{len(v)} {k}" for k, v in prepared.stores.items())
    listener.note(f"data: {len(dataset)} frames from {dataset.origin} ({counts}), {time.perf_counter() - began:.1f} s")
    listener.note(f"labels: {dataset.labels}")
    return prepared


def _pretrain(
    recipe: Recipe, prepared: Prepared, device: torch.device, out: Path, seed: int, listener: Listener
) -> Potential:
    stage, model, folder = recipe.pretrain, recipe.model, out / "pretrain"
    structures = prepared.structures
    assert structures is not None
    data = without_labels(structures)
    if stage.objective == "forcefield":
        data = with_forcefield_labels(recipe, structures, folder / LABELS, _labelling(listener))
        described, asked = (len(part.train) + len(part.validation) for part in (data, structures))
        listener.note(f"labels of the force field {stage.forcefield}: for {described} of {asked} frames")
    if stage.objective == "denoise":
        # Noise brings atoms far closer than they are in any frame; the wall would drown what is to be predicted.
        model = model.model_copy(update={"repulsion": False})
    if len(structures.train) != len(prepared.train):
        listener.note(
            f"pretraining on {len(data.train)} structures, finetuning on {len(prepared.train)} labelled frames"
        )
    # The normalization is that of the frames of finetuning, which takes the weights over.
    network = new_potential(model, data, seed, measured_hyperparameters(model, prepared)).to(device)
    progress = fit(
        network,
        pretraining_objective(stage, model.cutoff, data.train.labels),
        data.train,
        data.validation,
        stage,
        folder,
        seed,
        lambda report: listener.progress("pretrain", report),
    )
    save_potential(out / files.PRETRAINED, network, _provenance(recipe, prepared, seed, "pretrain", progress))
    return network


def _labelling(listener: Listener) -> Callable[[int, int], None]:
    """Tells the listener every two seconds how many frames a force field has labelled, and at the end."""
    began = heard = time.perf_counter()

    def tell(done: int, n: int) -> None:
        nonlocal heard
        if done == n or time.perf_counter() - heard > 2.0:
            heard = time.perf_counter()
            listener.progress("label", Report(done, n, heard - began, {}))

    return tell


def _transfer(
    source: Potential, target: Potential, name: str, listener: Listener, with_readout: bool, offset: float
) -> None:
    new = transfer_backbone(source, target, name, with_readout, offset)
    parts = "the backbone and the readout" if with_readout else "the backbone"
    listener.note(f"transferred every weight of {parts} of {name}; new: {', '.join(new) or 'nothing'}")


def _finetune(
    recipe: Recipe,
    prepared: Prepared,
    network: Potential,
    out: Path,
    seed: int,
    listener: Listener,
    from_file: Path | None = None,
) -> dict[str, Any]:
    stage = recipe.finetune
    progress = fit(
        network,
        Labels(stage, prepared.train.labels),
        prepared.train,
        prepared.validation,
        stage,
        out / "finetune",
        seed,
        lambda report: listener.progress("finetune", report),
    )
    means = None if prepared.means is None else dict(zip(prepared.elements, prepared.means.tolist(), strict=True))
    results = {name: evaluate(network, store, means) for name, store in prepared.stores.items()}
    tables = {name: result.metrics() for name, result in results.items()}
    metadata = _provenance(recipe, prepared, seed, "finetune", progress)
    metadata["provenance"] |= {"metrics": tables, "pretrained_from": from_file and str(from_file)}
    poor = worse_than_nothing(tables)
    if poor:
        listener.note(f"WARNING: {poor}")
    if caution := " ".join(filter(None, (prepared.dataset.caution, poor))):
        metadata["caution"] = caution
    metadata["mean_energies"] = means and {str(z): energy for z, energy in means.items()}
    metadata["min_distances"] = {
        f"{chemical_symbols[a]}-{chemical_symbols[b]}": round(contact.distance, 4)
        for (a, b), contact in prepared.contacts.items()
    }
    held_out = prepared.splits["test"] if len(prepared.splits["test"]) else prepared.splits["validation"]
    metadata["structures"] = sample_structures([prepared.dataset.frames[i] for i in held_out])
    save_potential(out / files.POTENTIAL, network, metadata)
    pretrained = from_file or (out / files.PRETRAINED if (out / files.PRETRAINED).is_file() else None)
    metrics = _metrics(recipe, seed, prepared, tables, progress, pretrained) | {"caution": poor}
    files.write_json(out / files.METRICS, metrics)
    write_report(out, metrics, results)
    return metrics


def _provenance(recipe: Recipe, prepared: Prepared, seed: int, stage: str, progress: Progress) -> dict[str, Any]:
    dataset = prepared.dataset
    return {
        "provenance": {
            "stage": stage,
            "recipe": files.recipe_to_dict(recipe),
            "seed": seed,
            "steps": progress.step,
            "best_step": progress.best_step,
            "data": {
                "name": dataset.name,
                "origin": dataset.origin,
                "labels": dataset.labels,
                "fingerprint": dataset.fingerprint,
            },
            "versions": files.versions(),
        }
    }


def _metrics(
    recipe: Recipe,
    seed: int,
    prepared: Prepared,
    tables: Mapping[str, Mapping[str, float]],
    progress: Progress,
    pretrained: Path | None,
) -> dict[str, Any]:
    """The content of metrics.json: "errors" holds one table for each set of frames, keys in `METRICS`."""
    return {
        "recipe": recipe.name,
        "preset": recipe.preset,
        "model": recipe.model.name,
        "seed": seed,
        "data": prepared.dataset.origin,
        "labels": prepared.dataset.labels,
        "splits": _about_splits(recipe, prepared),
        "pretrained": False if pretrained is None else pretraining_of(pretrained),
        "finetune_steps": progress.step,
        "best_step": progress.best_step,
        "finetune_seconds": round(progress.seconds, 1),
        "notes": [*prepared.dataset.notes, *prepared.notes],
        "errors": {name: dict(table) for name, table in tables.items()},
    }


def _about_splits(recipe: Recipe, prepared: Prepared) -> str:
    """What the splits keep together, in a sentence."""
    if prepared.dataset.splits:
        return "Splits are the official ones of the data."
    if recipe.data.split_by == "group":
        return "Splits keep frames of one source trajectory together."
    return "Splits are by frame, at random, so frames of one trajectory are in several of them."


__all__ = ["Evaluation", "run_evaluate", "run_finetune", "run_pretrain", "run_train"]
