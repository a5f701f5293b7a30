"""Whole runs: pretrain, finetune, test, and write down what came out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from mdpot.checkpoint import load_potential, read_metadata, save_potential
from mdpot.errors import MdpotError
from mdpot.models import Potential
from mdpot.training import folder as files
from mdpot.training.data.frames import Dataset
from mdpot.training.data.sources import SOURCES, load_dataset
from mdpot.training.data.store import Store
from mdpot.training.evaluate import Evaluation, evaluate
from mdpot.training.listener import Listener
from mdpot.training.objectives import Labels, MaskedAtoms
from mdpot.training.prepare import (
    Prepared,
    new_potential,
    prepare,
    sample_structures,
)
from mdpot.training.report import write_report
from mdpot.training.schema import Recipe
from mdpot.training.trainer import Progress, fit
from mdpot.training.transfer import load_pretrained, pretrained_hyperparameters, transfer_backbone

SILENT = Listener()


def run_train(
    recipe: Recipe,
    *,
    data: Path | None,
    out: Path,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Pretrains as the recipe says, finetunes, tests and reports.

    Args:
        recipe: the complete run.
        data: file or folder with the frames; None searches, see `load_dataset`.
        out: folder of the run; new, or that of the same run with `resume`.
        seed: of the split, the weights, the batches and the masks.
        device: torch device; None takes a GPU where there is one.
        resume: go on with the run in `out`.
        listener: hears of the progress.

    Returns:
        The content of metrics.json, see `mdpot.training.evaluate.METRICS`.

    Raises:
        MdpotError: bad input of any kind; nothing that was there is lost.
        Stopped: on Ctrl-C or SIGTERM; `resume` goes on.
    """
    where = pick_device(device)
    prepared = _open(recipe, data, out, seed, where, "train", resume, listener)
    network = new_potential(recipe.model, prepared, seed)
    if _pretrains(recipe, prepared, listener):
        pretrained = _pretrain(recipe, prepared, network.to(where), out, seed, listener)
        network = new_potential(recipe.model, prepared, seed)
        _transfer(pretrained, network, "the pretrained network", listener)
    return _finetune(recipe, prepared, network.to(where), out, seed, listener)


def run_pretrain(
    recipe: Recipe,
    *,
    data: Path | None,
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
    prepared = _open(recipe, data, out, seed, where, "pretrain", resume, listener, need_labels=False)
    if not _pretrains(recipe, prepared, listener):
        raise MdpotError("there is nothing to pretrain: no frame holds a molecule with the element to mask.")
    network = new_potential(recipe.model, prepared, seed)
    _pretrain(recipe, prepared, network.to(where), out, seed, listener)
    return out / files.PRETRAINED


def run_finetune(
    recipe: Recipe,
    *,
    from_file: Path,
    data: Path | None,
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
    prepared = _open(recipe, data, out, seed, where, "finetune", resume, listener)
    network = new_potential(recipe.model, prepared, seed)
    if "avg_neighbors" in network.hyperparameters and source.model == network.model:
        # A normalization measured on the pretraining data belongs to the weights.
        same = {**network.hyperparameters, "avg_neighbors": pretrained_hyperparameters(from_file)["avg_neighbors"]}
        network = new_potential(recipe.model, prepared, seed, same)
    _transfer(source, network, str(from_file), listener)
    return _finetune(recipe, prepared, network.to(where), out, seed, listener, str(from_file))


def run_evaluate(file: Path, data: Path | str, *, device: str | None = None) -> dict[str, Any]:
    """Compares a potential with labelled frames.

    Args:
        file: a potential file, the folder of a run, or a name of the zoo.
        data: a file with energies and forces, or the name of a data source.
        device: torch device; None takes a GPU where there is one.

    Returns:
        "file", "data", "labels", and for each set of frames a table, keys in `METRICS`.

    Raises:
        MdpotError: a file that cannot be used, or frames with elements the potential does not know.
    """
    potential, _ = load_potential(file, device=pick_device(device))
    named = str(data) in SOURCES and not Path(data).exists()
    dataset = load_dataset(str(data)) if named else load_dataset("custom", Path(data))
    sets = {dataset.name if named else Path(data).name: dataset, **dataset.tests}
    tables = {
        name: evaluate(potential, store_for(potential, part)).metrics() for name, part in sets.items()
    }
    return {"file": str(file), "data": dataset.origin, "labels": dataset.labels, **tables}


def store_for(potential: Potential, dataset: Dataset) -> Store:
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
    return Store(dataset.frames, potential.cutoff, shift).to(potential.shift.device)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; without a name a CUDA GPU where there is one, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _open(
    recipe: Recipe,
    data: Path | None,
    out: Path,
    seed: int,
    device: torch.device,
    kind: str,
    resume: bool,
    listener: Listener,
    need_labels: bool = True,
) -> Prepared:
    """The folder of the run and its data; a resumed run gets the same frames in the same splits or an error."""
    began = time.perf_counter()
    if not resume:
        files.check_new(out)
    run = files.open_folder(out, recipe, seed, kind, resume) if resume else {}
    splits = json.loads((out / files.SPLITS).read_text()) if (out / files.SPLITS).is_file() else None
    prepared = prepare(recipe, data, seed, device, splits, need_labels)
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
            f"the run in {str(out)!r} began with other data ({run['data']['origin']}); found now: {dataset.origin}. "
            "Give the same data again by --data, or start a new run."
        )
    if "data" not in run:
        run = run or files.open_folder(out, recipe, seed, kind, resume)
        files.write_json(out / files.SPLITS, {k: v.tolist() for k, v in prepared.splits.items()})
        files.write_json(out / files.RUN, {**run, "data": facts, "device": str(device)})
    if dataset.notice:
        listener.note(dataset.notice)
    counts = ", ".join(f"{len(v)} {k}" for k, v in prepared.stores.items())
    listener.note(f"data: {len(dataset)} frames from {dataset.origin} ({counts}), {time.perf_counter() - began:.1f} s")
    listener.note(f"labels: {dataset.labels}")
    return prepared


def _pretrains(recipe: Recipe, prepared: Prepared, listener: Listener) -> bool:
    """Whether there is a pretraining stage: "auto" decides by whether the frames hold molecules."""
    if recipe.pretrain.objective != "auto":
        return recipe.pretrain.objective != "none"
    found = int(prepared.train.n_molecules_per_frame.sum()) > 0
    if not found:
        listener.note("no pretraining: the frames hold no molecules to mask.")
    return found


def _pretrain(
    recipe: Recipe, prepared: Prepared, network: Potential, out: Path, seed: int, listener: Listener
) -> Potential:
    if int(prepared.train.n_molecules_per_frame.sum()) == 0:
        raise MdpotError(
            f"masking needs molecules{' ' + recipe.data.molecule if recipe.data.molecule else ''}, and the training "
            "frames hold none. Set pretrain.objective=none, or data.molecule=none."
        )
    stage = recipe.pretrain
    progress = fit(
        network,
        MaskedAtoms(stage),
        prepared.train,
        prepared.validation,
        stage,
        out / "pretrain",
        seed,
        lambda report: listener.progress("pretrain", report),
    )
    save_potential(out / files.PRETRAINED, network, _provenance(recipe, prepared, seed, "pretrain", progress))
    return network


def _transfer(source: Potential, target: Potential, name: str, listener: Listener) -> None:
    new = transfer_backbone(source, target, name)
    listener.note(f"transferred every weight of the backbone of {name}; new: {', '.join(new)}")


def _finetune(
    recipe: Recipe,
    prepared: Prepared,
    network: Potential,
    out: Path,
    seed: int,
    listener: Listener,
    from_file: str | None = None,
) -> dict[str, Any]:
    stage = recipe.finetune
    has_stress = not bool(torch.isnan(prepared.train.stress).all())
    progress = fit(
        network,
        Labels(stage, has_stress),
        prepared.train,
        prepared.validation,
        stage,
        out / "finetune",
        seed,
        lambda report: listener.progress("finetune", report),
    )
    results = {name: evaluate(network, store) for name, store in prepared.stores.items()}
    tables = {name: result.metrics() for name, result in results.items()}
    metadata = _provenance(recipe, prepared, seed, "finetune", progress)
    metadata["provenance"] |= {"metrics": tables, "pretrained_from": from_file}
    metadata["min_distances"] = {
        f"{chemical_symbols[a]}-{chemical_symbols[b]}": round(distance, 4)
        for (a, b), distance in prepared.smallest_distances.items()
    }
    held_out = prepared.splits["test"] if len(prepared.splits["test"]) else prepared.splits["validation"]
    metadata["structures"] = sample_structures([prepared.dataset.frames[i] for i in held_out])
    save_potential(out / files.POTENTIAL, network, metadata)
    metrics = _metrics(recipe, seed, prepared, tables, progress, out)
    files.write_json(out / files.METRICS, metrics)
    write_report(out, metrics, results)
    return metrics


def _provenance(
    recipe: Recipe, prepared: Prepared, seed: int, stage: str, progress: Progress
) -> dict[str, Any]:
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
    out: Path,
) -> dict[str, Any]:
    """The content of metrics.json: "errors" holds one table for each set of frames, keys in `METRICS`."""
    pretrained = out / files.PRETRAINED
    return {
        "recipe": recipe.name,
        "preset": recipe.preset,
        "model": recipe.model.name,
        "seed": seed,
        "data": prepared.dataset.origin,
        "labels": prepared.dataset.labels,
        "pretrained": pretrained.is_file()
        and read_metadata(pretrained)["provenance"]["recipe"]["pretrain"]["objective"],
        "finetune_steps": progress.step,
        "best_step": progress.best_step,
        "finetune_seconds": round(progress.seconds, 1),
        "errors": {name: dict(table) for name, table in tables.items()},
    }


__all__ = ["Evaluation", "run_evaluate", "run_finetune", "run_pretrain", "run_train"]
