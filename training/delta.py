"""Δ-machine learning: what the labels of the data have beyond a force field's, and structures that it labels anew.

A network learns the difference of two methods from fewer frames than either of them (Ramakrishnan et al., J. Chem.
Theory Comput. 11, 2087, 2015). Added to the force field it gives labels at the level of the data for any number of
structures, and from these learns a network that needs no force field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mdpot.errors import MdpotError
from mdpot.heads import Potential
from mdpot.modelfile import save_potential
from mdpot.training import folder as files
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store
from mdpot.training.evaluate import evaluate
from mdpot.training.networks import measured_hyperparameters, new_potential
from mdpot.training.objectives import Labels
from mdpot.training.opening import Run
from mdpot.training.outcome import centered, provenance
from mdpot.training.prepared import Prepared
from mdpot.training.relabel import LEARNED, Parts, Tell, described, with_frames

CAUTION = (
    "this is a correction: its energies and forces mean something only when they are added to those of {forcefield}. "
    "In ASE: SumCalculator([{forcefield}'s calculator, this one])."
)


def with_delta(run: Run, labelled: Prepared, frames: Parts, tell: Tell) -> Parts:
    """Frames with the labels of a force field, corrected, and beside them those that the correction was learned from.

    The correction stays in the folder of the run, with its errors.

    Args:
        run: its recipe has the force field, and the steps.
        labelled: the data, whose training and validation frames are learned from, and whose test frames test.
        frames: that are corrected.
        tell: called with the number of frames that the force field has labelled, and of all.

    Raises:
        MdpotError: the force field describes none of the frames to learn from, or none to validate with.
        Stopped, Diverged: as `mdpot.training.trainer.fit`; what is done is kept.
    """
    splits = [split for split in (*LEARNED, "test") if len(labelled.splits.get(split, ()))]
    found = described(run.recipe, labelled, run.out / files.DELTA, tell, splits)
    pairs = {split: part for split, part in found.items() if part}
    if lacking := [split for split in LEARNED if split not in pairs]:
        raise MdpotError(
            f"the force field {run.recipe.pretrain.forcefield} describes none of the {lacking[0]} frames, so nothing "
            "can be learned of what it lacks. Give other frames, or set pretrain.delta_steps=none."
        )
    delta = _learn(run, labelled, {split: [_difference(*pair) for pair in part] for split, part in pairs.items()})
    return {split: [*_sum(part, delta), *(frame for frame, _ in pairs[split])] for split, part in frames.items()}


def _difference(frame: Frame, other: Frame) -> Frame:
    """A frame with its energy and forces less those that it has in another."""
    labels, less = frame.labels, other.labels
    energy, forces = (labels[name] - less[name] for name in ("energy", "forces"))
    return replace(frame, energy=float(energy), forces=forces, stress=None)


def _sum(frames: Sequence[Frame], delta: Potential) -> list[Frame]:
    """Frames with the energy and forces of a potential added to theirs."""
    store = Store(frames, delta.cutoff, molecules=False)
    energies = (store.counts(delta.elements) @ delta.shift.cpu().double()).numpy()
    found = evaluate(delta, store.to(delta.shift.device))
    forces = np.split(found.forces[1], np.cumsum(found.sizes)[:-1])
    return [
        replace(frame, energy=float(frame.labels["energy"] + energy), forces=frame.labels["forces"] + force)
        for frame, energy, force in zip(frames, energies + found.energy[1], forces, strict=True)
    ]


def _learn(run: Run, labelled: Prepared, differences: Parts) -> Potential:
    """A network of the differences, trained as the recipe's finetuning."""
    recipe, folder = run.recipe, run.out / files.DELTA
    data = with_frames(recipe, labelled, differences)
    # Beyond the data there is nothing to correct.
    model = recipe.model.model_copy(update={"repulsion": False})
    update = {"max_steps": recipe.pretrain.delta_steps, "epochs": None, "stress_weight": 0.0}
    stage = recipe.finetune.model_copy(update=update)
    network = new_potential(model, data, run.seed, measured_hyperparameters(model, labelled)).to(run.device)
    progress = run.team.fit(
        potential=network,
        objective=Labels(stage, data.train.labels),
        train=data.train,
        validation=data.validation,
        stage=stage,
        folder=folder,
        seed=run.seed,
        listen=lambda report: run.listener.progress(files.DELTA, report),
    )
    results = centered(network, {split: evaluate(network, store) for split, store in data.stores.items()})
    tables = {split: result.metrics() for split, result in results.items()}
    caution = {"caution": CAUTION.format(forcefield=recipe.pretrain.forcefield)}
    save_potential(folder / files.POTENTIAL, network, provenance(run, data, files.DELTA, progress) | caution)
    about = {"steps": progress.step, "seconds": round(progress.seconds, 1), "errors": tables}
    files.write_json(folder / files.METRICS, about)
    errors = ", ".join(f"{tables[split]['force_mae']:.3g} ({split})" for split in tables)
    run.listener.note(f"{recipe.pretrain.forcefield} and the correction, force MAE in meV/Å: {errors}")
    return network
