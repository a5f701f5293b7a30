"""What a run leaves in its folder: the weights with where they come from, the errors, and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from mdpot.heads import Potential, PropertyModel
from mdpot.modelfile import save_model
from mdpot.training import folder as files
from mdpot.training.baseline import electrons_of_all
from mdpot.training.data.frames import Frame
from mdpot.training.evaluate import evaluate, evaluate_property
from mdpot.training.evaluation import Evaluation
from mdpot.training.kinds import about_outliers, error_rows
from mdpot.training.metrics import about_offset, worse_than_nothing
from mdpot.training.opening import Run, facts
from mdpot.training.prepared import Prepared
from mdpot.training.report import write_report
from mdpot.training.schema import Recipe
from mdpot.training.state import Progress
from mdpot.training.transfer import pretraining_of
from mdpot.units import MEV


def conclude(
    run: Run, prepared: Prepared, network: Potential | PropertyModel, progress: Progress, from_file: Path | None
) -> dict[str, Any]:
    """Tests a finished network and writes all that is left of the run.

    Args:
        run: which.
        prepared: its data.
        network: with its best weights.
        progress: of the finetuning.
        from_file: the file whose weights it began from; None where these are of this run, or random.

    Returns:
        The content of metrics.json.
    """
    means = None if prepared.means is None else dict(zip(prepared.elements, prepared.means.tolist(), strict=True))
    about: dict[str, Any]
    if isinstance(network, PropertyModel):
        results = {name: evaluate_property(network, store) for name, store in prepared.stores.items()}
        about = {"property": {"name": network.name, "unit": network.unit, "pooling": network.pooling}}
    else:
        results = {name: evaluate(network, store, means) for name, store in prepared.stores.items()}
        offset = _center(network, results["train"])
        results = {name: result.less(offset) for name, result in results.items()}
        about = {"energy_offset": offset / MEV, **_by_kind(prepared, results)}
        if moved := about_offset(offset / MEV):
            run.listener.note(moved)
    tables = {name: result.metrics() for name, result in results.items()}
    metadata = provenance(run, prepared, "finetune", progress)
    metadata["provenance"] |= {"metrics": tables, "pretrained_from": from_file and str(from_file)}
    poor = worse_than_nothing(tables, run.recipe.model.baseline)
    if poor:
        run.listener.note(f"WARNING: {poor}")
    if caution := " ".join(filter(None, (prepared.dataset.caution, prepared.strangers, poor))):
        metadata["caution"] = caution
    if isinstance(network, Potential):
        metadata |= _for_a_potential(prepared, means)
        if run.recipe.model.baseline is not None:
            metadata["baseline"] = run.recipe.model.baseline
            metadata["electrons"] = electrons_of_all(prepared.frames("train"))
    save_model(run.out / files.POTENTIAL, network, metadata)
    pretrained = from_file or (run.out / files.PRETRAINED if (run.out / files.PRETRAINED).is_file() else None)
    metrics = _metrics(run, prepared, tables, progress, pretrained) | {"caution": poor, **about}
    files.write_json(run.out / files.METRICS, metrics)
    write_report(run.out, metrics, results)
    return metrics


def _center(network: Potential, trained: Evaluation) -> float:
    """Takes the median energy error per atom of the training frames off the network; returns it, eV.

    Training leaves a constant behind that no force feels: noise where the rate ends, all of it without energies in the
    loss.
    """
    offset = trained.energy_offset()
    with torch.no_grad():
        network.readout[-1].bias -= offset / network.scale  # type: ignore[operator]
    return offset


def _by_kind(prepared: Prepared, results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """What metrics.json holds of the errors by kind of frame: rows of `error_rows`, and what stands out."""
    tests = {name: extra.frames for name, extra in prepared.dataset.tests.items()}
    frames = tests | {name: prepared.frames(name) for name in results if name not in tests}
    order = sorted(results, key=lambda name: (name == "train", name == "validation"))
    shown = [name for name in order if name not in ("train", "validation")] or ["validation"]
    return {
        "kinds": error_rows({name: results[name] for name in shown}, frames, frames["train"]),
        "outliers": about_outliers({name: results[name] for name in order}, frames, frames["train"]),
    }


def provenance(run: Run, prepared: Prepared, stage: str, progress: Progress) -> dict[str, Any]:
    """Where the weights come from, for the header of their file."""
    known = facts(prepared.dataset)
    del known["n_frames"]
    return {
        "provenance": {
            "stage": stage,
            "recipe": files.recipe_to_dict(run.recipe),
            "seed": run.seed,
            "steps": progress.step,
            "best_step": progress.best_step,
            "data": known,
            "versions": files.versions(),
        }
    }


def _for_a_potential(prepared: Prepared, means: Mapping[int, float] | None) -> dict[str, Any]:
    """What the header of a potential also holds: mean energies, shortest contacts, and structures to check with."""
    held_out = prepared.splits["test"] if len(prepared.splits["test"]) else prepared.splits["validation"]
    return {
        "mean_energies": means and {str(z): energy for z, energy in means.items()},
        "min_distances": {
            f"{chemical_symbols[a]}-{chemical_symbols[b]}": round(contact.distance, 4)
            for (a, b), contact in prepared.contacts.items()
        },
        "structures": sample_structures([prepared.dataset.frames[i] for i in held_out]),
    }


def _metrics(
    run: Run,
    prepared: Prepared,
    tables: Mapping[str, Mapping[str, float]],
    progress: Progress,
    pretrained: Path | None,
) -> dict[str, Any]:
    """The content of metrics.json: "errors" holds one table for each set of frames, keys in `METRICS`."""
    return {
        "recipe": run.recipe.name,
        "preset": run.recipe.preset,
        "model": run.recipe.model.name,
        "baseline": run.recipe.model.baseline,
        "seed": run.seed,
        "data": prepared.dataset.origin,
        "labels": prepared.dataset.labels,
        "splits": _about_splits(run.recipe, prepared),
        "pretrained": False if pretrained is None else pretraining_of(pretrained),
        "finetune_steps": progress.step,
        "best_step": progress.best_step,
        "finetune_seconds": round(progress.seconds, 1),
        "notes": [*prepared.dataset.notes, *prepared.notes],
        "errors": {name: dict(table) for name, table in tables.items()},
    }


def _about_splits(recipe: Recipe, prepared: Prepared) -> str:
    """What the splits keep together, in a sentence."""
    if recipe.data.fold:
        return f"The test frames are official fold {recipe.data.fold} of {len(prepared.dataset.folds)}."
    if prepared.dataset.splits:
        return "Splits are the official ones of the data."
    if recipe.data.split_by == "group":
        return "Splits keep frames of one source trajectory together."
    return "Splits are by frame, at random, so frames of one trajectory are in several of them."


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
