"""Whole runs: pretrain, finetune, test, and write down what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mdpot.autograd import exact_gradients
from mdpot.device import check_device, pick_device
from mdpot.errors import MdpotError
from mdpot.heads import Potential, PropertyModel
from mdpot.modelfile import save_potential
from mdpot.training import folder as files
from mdpot.training.data.frames import Dataset
from mdpot.training.data.store import Store
from mdpot.training.device import choose_device
from mdpot.training.evaluate import run_evaluate
from mdpot.training.listener import SILENT, Listener, labelling
from mdpot.training.networks import measured_hyperparameters, new_potential, new_property, with_normalization_of
from mdpot.training.objectives import Labels, Objective, PropertyTarget, pretraining_objective
from mdpot.training.opening import Material, Run, open_run
from mdpot.training.outcome import conclude, provenance
from mdpot.training.prepare import without_labels
from mdpot.training.prepared import Prepared
from mdpot.training.relabel import with_forcefield_labels
from mdpot.training.schema import LabelStage, Recipe
from mdpot.training.starts import suggested_start
from mdpot.training.together import SOLO, Team
from mdpot.training.transfer import (
    is_finished,
    load_pretrained,
    pretraining_of,
    transfer_backbone,
    transferred_rates,
)

__all__ = ["run_evaluate", "run_finetune", "run_pretrain", "run_property", "run_train"]


@exact_gradients()
def run_train(
    recipe: Recipe,
    *,
    data: Path | str | Dataset | None,
    out: Path | str,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
    team: Team = SOLO,
) -> dict[str, Any]:
    """Pretrains as the recipe says, finetunes, tests and reports.

    Args:
        recipe: the complete run.
        data: file or folder with the frames, or the frames themselves; None searches, see `load_dataset`.
        out: folder of the run; new, or that of the same run with `resume`.
        seed: of the split, the weights, the batches and the masks.
        device: torch device; None takes the one on which the recipe trains fastest, see `choose_device`.
        resume: go on with the run in `out`.
        listener: hears of the progress.
        team: the processes that train, see `mdpot.training.together.together`.

    Returns:
        The content of metrics.json, see `mdpot.training.metrics.METRICS`.

    Raises:
        MdpotError: bad input of any kind; nothing that was there is lost.
        Stopped: on Ctrl-C or SIGTERM; `resume` goes on.
    """
    run = _begin("train", recipe, out, seed, device, resume, listener, team)
    with files.claimed(run.out, resume):
        material = open_run(run, data)
        if recipe.data.source == "custom" and recipe.property is None and not resume:
            _suggest_start(run, material.prepared)
        return _finetune(run, material.prepared, None if material.pretraining is None else _pretrain(run, material))


@exact_gradients()
def run_pretrain(
    recipe: Recipe,
    *,
    data: Path | str | Dataset | None,
    out: Path | str,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
    team: Team = SOLO,
) -> Path:
    """Pretrains only, without reading a label of the data to finetune on; arguments and errors as `run_train`.

    Returns:
        The file with the pretrained weights.
    """
    run = _begin("pretrain", recipe, out, seed, device, resume, listener, team)
    with files.claimed(run.out, resume):
        _pretrain(run, open_run(run, data))
    return run.out / files.PRETRAINED


@exact_gradients()
def run_finetune(
    recipe: Recipe,
    *,
    from_file: Path | str,
    data: Path | str | Dataset | None,
    out: Path | str,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
    team: Team = SOLO,
) -> dict[str, Any]:
    """Finetunes from the weights of a file, tests and reports; the rest as `run_train`.

    Args:
        from_file: a potential file; its network must be that of the recipe.
    """
    run = _begin("finetune", recipe, out, seed, device, resume, listener, team)
    return _finetune_from(run, data, from_file)


@exact_gradients()
def run_property(
    recipe: Recipe,
    *,
    from_file: Path | str | None,
    data: Path | str | Dataset | None,
    out: Path | str,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
    team: Team = SOLO,
) -> dict[str, Any]:
    """Finetunes a network on a property, one number a structure, tests and reports; the rest as `run_train`.

    Args:
        recipe: with a table [property].
        from_file: a potential file whose network is that of the recipe; None begins from random weights.
    """
    if recipe.property is None:
        raise MdpotError(
            f"recipe {recipe.name!r} learns no property: it has no table [property]. Take custom-property."
        )
    run = _begin("finetune", recipe, out, seed, device, resume, listener, team)
    return _finetune_from(run, data, from_file)


@dataclass(frozen=True)
class _Source:
    """Weights to begin from.

    Attributes:
        potential: with these weights, on the CPU or the device of the run.
        name: for messages.
        learned: what they learned: the name of an objective, "labels" of a finished potential.
        offset: eV per atom, where the energies of the pretraining began; see `Prepared.offset`.
        file: that they are from; None where they are of this run.
        finished: whether they are of a finished potential, and of no pretraining.
    """

    potential: Potential
    name: str
    learned: str
    offset: float = 0.0
    file: Path | None = None
    finished: bool = False


def _begin(
    kind: str,
    recipe: Recipe,
    out: Path | str,
    seed: int,
    device: str | None,
    resume: bool,
    listener: Listener,
    team: Team,
) -> Run:
    """A run, and where it trains: on resuming where it began, if that is here and nothing else is said."""
    if not isinstance(recipe, Recipe):
        raise MdpotError(f"recipe must be a Recipe, which mdpot.training.config.load_recipe reads; got {recipe!r}.")
    check_device(device)
    out = Path(out)
    known = files.read_run(out / files.RUN).get("device") if resume and (out / files.RUN).is_file() else None
    if known and known.startswith("cuda") and not torch.cuda.is_available():
        known = None
    asked = device or known
    chosen = choose_device(asked, recipe, alone=team is SOLO)
    if asked is None and chosen != pick_device(None):
        listener.note("training on the CPU, where the kernels are faster than a GPU for batches of this size")
    return Run(recipe, out, seed, chosen, listener, kind, resume, team)


def _finetune_from(run: Run, data: Path | str | Dataset | None, from_file: Path | str | None) -> dict[str, Any]:
    source = None
    file = None if from_file is None else Path(from_file)
    if file is not None:
        potential, learned = load_pretrained(file, torch.device("cpu")), pretraining_of(file)
        source = _Source(potential, str(file), learned, file=file, finished=is_finished(file))
    with files.claimed(run.out, run.resume):
        return _finetune(run, open_run(run, data, file).prepared, source)


def _pretrain(run: Run, material: Material) -> _Source:
    stage, model, folder, seed = run.recipe.pretrain, run.recipe.model, run.out / "pretrain", run.seed
    data = _pretraining_labels(run, material, folder)
    # The frames whose normalization the network takes: as a rule those of the finetuning, which takes it over.
    own = data if stage.data is not None else material.prepared
    if stage.objective == "denoise":
        # Noise brings atoms far closer than they are in any frame; the wall would drown what is to be predicted.
        model = model.model_copy(update={"repulsion": False})
    network = new_potential(model, data, seed, measured_hyperparameters(model, own)).to(run.device)
    progress = run.team.fit(
        potential=network,
        objective=pretraining_objective(
            stage, model.cutoff, data.train.labels, network.scale, _n_compositions(stage, data.train)
        ),
        train=data.train,
        validation=data.validation,
        stage=stage,
        folder=folder,
        seed=seed,
        listen=lambda report: run.listener.progress("pretrain", report),
    )
    save_potential(run.out / files.PRETRAINED, network, provenance(run, own, "pretrain", progress))
    return _Source(network, "the pretrained network", stage.objective, data.offset)


def _pretraining_labels(run: Run, material: Material, folder: Path) -> Prepared:
    """The frames of the pretraining with the labels that it learns: their own, those of a force field, or none."""
    structures, stage = material.pretraining, run.recipe.pretrain
    assert structures is not None
    data = structures if stage.objective == "labels" else without_labels(structures)
    if stage.objective == "forcefield":
        data = with_forcefield_labels(run.recipe, structures, folder, run.seed, labelling(run.listener))
        described, asked = (len(part.train) + len(part.validation) for part in (data, structures))
        if stage.dynamics is None:
            run.listener.note(f"labels of the force field {stage.forcefield}: for {described} of {asked} frames")
        else:
            run.listener.note(f"{described} structures of dynamics by the force field {stage.forcefield}")
    if len(data.train) != len(material.prepared.train):
        run.listener.note(
            f"pretraining on {len(data.train)} structures, finetuning on {len(material.prepared.train)} labelled frames"
        )
    return data


def _finetune(run: Run, prepared: Prepared, source: _Source | None) -> dict[str, Any]:
    stage = run.recipe.finetune
    if source is not None and source.learned == "labels" and _takes_readout(run, source):
        _take_references(source, run, prepared)
    network, objective = _new_head(run, prepared, source)
    rates: dict[str, float] = {}
    if source is not None:
        _transfer(source, network, run, prepared)
        rates = transferred_rates(stage.transferred_rate, _takes_readout(run, source))
    progress = run.team.fit(
        potential=network.to(run.device),
        objective=objective,
        train=prepared.train,
        validation=prepared.validation,
        stage=stage,
        folder=run.out / "finetune",
        seed=run.seed,
        listen=lambda report: run.listener.progress("finetune", report),
        rates=rates,
    )
    return conclude(run, prepared, network, progress, source and source.file)


def _suggest_start(run: Run, prepared: Prepared) -> None:
    if advice := suggested_start(run.recipe, prepared):
        run.listener.note(advice)


def _n_compositions(stage: LabelStage, train: Store) -> float:
    """Of the training frames, where the weight of their energies depends on it."""
    return train.n_compositions() if stage.energy_weight == "auto" else 1.0


def _new_head(run: Run, prepared: Prepared, source: _Source | None) -> tuple[Potential | PropertyModel, Objective]:
    """The network that the recipe finetunes, with fresh weights, and what it learns."""
    model, head = run.recipe.model, run.recipe.property
    measured = measured_hyperparameters(model, prepared)
    hyperparameters = with_normalization_of(source and source.potential, model, measured)
    if head is None:
        potential = new_potential(model, prepared, run.seed, hyperparameters)
        stage, train = run.recipe.finetune, prepared.train
        objective = Labels(stage, train.labels, n_compositions=_n_compositions(stage, train))
        if stage.energy_weight == "auto":
            run.listener.note(f"energy weight {objective.config.energy_weight:g}, by the compositions of the frames")
        return potential, objective
    network = new_property(model, head, prepared, run.seed, hyperparameters)
    return network, PropertyTarget(run.recipe.finetune, network)


def _transfer(source: _Source, network: Potential | PropertyModel, run: Run, prepared: Prepared) -> None:
    takes = _takes_readout(run, source)
    new = transfer_backbone(source.potential, network, source.name, takes, prepared.offset - source.offset)
    parts = "the backbone and the readout" if takes else "the backbone"
    run.listener.note(f"transferred every weight of {parts} of {source.name}; new: {', '.join(new) or 'nothing'}")


def _takes_readout(run: Run, source: _Source) -> bool:
    """Whether the finetuning, of a potential, begins with the readout of the pretraining."""
    asked = run.recipe.finetune.readout
    takes = (source.learned == "forcefield" or source.finished) if asked == "auto" else asked == "pretrained"
    return takes and run.recipe.property is None


def _take_references(source: _Source, run: Run, prepared: Prepared) -> None:
    """The pair energy comes along with the readout that was learned beside it, if the elements are known."""
    if set(prepared.elements) <= set(source.potential.elements):
        keeps = prepared.refer_to(source.potential.to(run.device), source.offset)
        what = "transferred the pair energy of" if prepared.pair is not None else "no pair energy, as in"
        run.listener.note(f"{what} {source.name}")
        if not keeps:
            run.listener.note(
                f"the energies of isolated atoms are not those that {source.name} counts from: the reference energies "
                "are fitted to the training frames"
            )
