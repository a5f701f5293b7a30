"""One training loop for every objective: it reads top to bottom, and what it did survives whatever stops it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from mdpot.autograd import exact_gradients
from mdpot.errors import MdpotError
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.average import MovingAverage
from mdpot.training.data.store import Store, batches
from mdpot.training.engine import Engine, choose_engine, dtype_of, small_operations
from mdpot.training.metrics import LOGGED
from mdpot.training.objectives import Objective, Score
from mdpot.training.process import ALONE, Process
from mdpot.training.schema import Stage
from mdpot.training.soap import SOAP
from mdpot.training.state import BEST, Progress, State

EVALUATION_SEED = 12345
OPTIMIZERS = {"adamw": torch.optim.AdamW, "soap": SOAP}
TERM = "term of the loss: "


class Diverged(MdpotError):
    """A loss or a gradient that is not finite."""


@dataclass(frozen=True)
class Report:
    """What the loop tells a listener after each validation, and every few seconds in between.

    Attributes:
        step, n_steps: done, and in all.
        seconds: spent in this stage, earlier runs included.
        numbers: the newest training and validation means, keys as in metrics.jsonl; between validations, where several
            processes train, those of this process's share.
    """

    step: int
    n_steps: int
    seconds: float
    numbers: dict[str, float]


@exact_gradients()
def fit(
    potential: torch.nn.Module,
    objective: Objective,
    train: Store,
    validation: Store,
    stage: Stage,
    folder: Path,
    seed: int,
    listen: Callable[[Report], None] = lambda report: None,
    rates: Mapping[str, float] = MappingProxyType({}),
    process: Process = ALONE,
) -> Progress:
    """Trains `potential` in place and leaves in it the weights with the lowest validation loss.

    The state is saved at every validation; called again with the same arguments it continues from there, and ends
    with the same numbers as if it had not been stopped. Every step draws its randomness from (seed, step) alone.

    Where several processes train together, each calls this with the same arguments, and all end alike.

    Args:
        potential: to train, on its device.
        objective: what it learns.
        train: frames to learn from, on the same device.
        validation: frames that choose the best state.
        stage: length, batches, optimizer.
        folder: receives last.pt, best.pt and metrics.jsonl.
        seed: of batches and masks.
        listen: called with the progress.
        rates: learning rate of the parts of the network by their names, as a share of that of the others; 0 freezes.
        process: which of the processes that train together this is.

    Raises:
        Stopped: on SIGINT or SIGTERM, after the state was saved.
        Diverged: the loss is not a number, with what to change.
        MdpotError: a saved state that is damaged.
    """
    optimizer = OPTIMIZERS[stage.optimizer](_parameters(potential, rates), lr=stage.lr, weight_decay=stage.weight_decay)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]  # looked for once
    average = None if stage.ema_decay is None else MovingAverage(potential, stage.ema_decay)
    run = {"seed": seed, "frames": train.fingerprint(), **stage.model_dump(mode="json")}
    state = State(folder, potential, average, optimizer, run, process)
    progress = state.resume()
    generator = torch.Generator(device=next(potential.parameters()).device)
    engine = choose_engine(potential, objective.outputs, stage.engine)
    plan = _plan_epoch(train, stage, seed, progress.epoch)
    n_steps = stage.max_steps or stage.epochs * len(plan)  # type: ignore[operator]
    eval_every = stage.eval_every or len(plan)
    means = Means()
    began, heard = time.perf_counter() - progress.seconds, 0.0

    with StopSignal() as stop, small_operations(engine):
        potential.train()
        while progress.step < n_steps and not progress.finished:
            if progress.batch == len(plan):
                progress.epoch, progress.batch = progress.epoch + 1, 0
                plan = _plan_epoch(train, stage, seed, progress.epoch)
            lr = _set_rate(optimizer, learning_rate(progress.step, n_steps, stage))

            generator.manual_seed(process.seed(seed, progress.step))
            current = objective.at(progress.step / n_steps)
            score = _score_share(process, engine, current, train, plan[progress.batch], generator)
            for weight in weights:
                weight.grad = None
            score.loss(process.total(score.counts)).backward()
            process.sum_gradients(potential)
            if not math.isfinite(_clip(weights, stage.clip_norm or math.inf)):
                raise Diverged(_diverged("gradient", progress.step, lr, folder))
            optimizer.step()
            process.average_statistics(potential)
            if average is not None:
                average.update_parameters(potential)
            means.add(score)
            progress.step, progress.batch = progress.step + 1, progress.batch + 1
            progress.seconds = time.perf_counter() - began

            if progress.step % eval_every == 0 or progress.step == n_steps:
                values = validate(state.best, objective.at(1.0), validation, stage, process)
                if not math.isfinite(values.get("loss", 0.0)):
                    raise Diverged(_diverged("validation loss", progress.step, lr, folder))
                state.keep_best(values.get("loss"))
                progress.finished = progress.step == n_steps or progress.stale >= (stage.patience or math.inf)
                progress.seconds = time.perf_counter() - began
                line = _log_line(progress, len(plan), lr, means.take(process), values)
                state.log(line)
                state.save()
                listen(Report(progress.step, n_steps, progress.seconds, line))
            elif time.perf_counter() - heard > 2.0:
                heard = time.perf_counter()
                listen(Report(progress.step, n_steps, progress.seconds, _prefixed("train", means.peek())))
            if process.any(stop.requested):
                # Steps since the last validation are repeated on resuming, so that nothing depends on the stop.
                raise Stopped(f"stopped at step {progress.step} of {n_steps}; the last validation's state is kept.")

    state.take_best()
    potential.eval().requires_grad_(True)
    return progress


@exact_gradients()
def validate(
    potential: torch.nn.Module, objective: Objective, store: Store, stage: Stage, process: Process = ALONE
) -> dict[str, float]:
    """Means of the objective's numbers over a store, with masks that are the same in every call.

    The batches are divided among the processes; all get the same means.
    """
    training = potential.training
    potential.eval()
    generator = torch.Generator(device=next(potential.parameters()).device)
    means = Means()
    engine = choose_engine(potential, objective.outputs, stage.engine)
    numbered = list(enumerate(batches(store, stage.batch_atoms, stage.batch_frames), EVALUATION_SEED))
    with small_operations(engine):
        for seed, frames in numbered[process.rank :: process.size]:
            generator.manual_seed(seed)
            means.add(_score(engine, objective, store, frames, generator))
    potential.train(training)
    return means.take(process)


def learning_rate(step: int, n_steps: int, stage: Stage) -> float:
    """Linear warm-up, then half a cosine from lr to lr_min at the last step."""
    if step < stage.warmup_steps:
        return stage.lr * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(n_steps - stage.warmup_steps, 1)
    return stage.lr_min + 0.5 * (stage.lr - stage.lr_min) * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _clip(weights: Sequence[torch.Tensor], most: float) -> float:
    """Scales the gradient down to a norm of at most `most`, and returns its norm; torch's own multiplies it always."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not (size := float(norm)) <= most:
        torch.nn.utils.clip_grads_with_norm_(weights, most, norm)
    return size


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    """Gives each group of parameters its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)
    return lr


class Means:
    """Running means of numbers that come as (sum, count); what was never counted has none."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._new: dict[str, list[torch.Tensor]] = {}

    def add(self, score: Score) -> None:
        """Takes a score in; nothing is computed until somebody asks, as that would take a part of a step's time."""
        for name, (total, count) in score.terms.items():
            self._new.setdefault(f"{TERM}{name}", []).extend((score.weights.get(name, 1.0) * total.detach(), count))
        for name, (total, count) in score.numbers.items():
            self._new.setdefault(name, []).extend((total.detach(), count))

    def _add_up(self) -> None:
        for key, values in self._new.items():
            pairs = torch.stack([value.double() for value in values]).view(-1, 2)
            so_far = [self._sums[key].unsqueeze(0)] if key in self._sums else []
            # On a CPU one after the other, so that it does not matter when somebody asks.
            self._sums[key] = torch.cat([*so_far, pairs]).cumsum(0)[-1]
        self._new = {}

    def peek(self) -> dict[str, float]:
        """The means so far, of squares their roots; and the loss, the sum of the means of its terms."""
        self._add_up()
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()
        means = {key: total / count for key, (total, count) in zip(self._sums, sums, strict=True) if count > 0}
        terms = [mean for key, mean in means.items() if key.startswith(TERM)]
        loss = {"loss": math.fsum(terms)} if terms else {}
        return loss | {key: LOGGED[key].of_mean(mean) for key, mean in means.items() if not key.startswith(TERM)}

    def take(self, process: Process = ALONE) -> dict[str, float]:
        """The means so far, over all processes; then starts anew."""
        self._add_up()
        self._sums = process.sums(self._sums)
        out = self.peek()
        self._sums = {}
        return out


def _score(
    engine: Engine,
    objective: Objective,
    store: Store,
    frames: torch.Tensor,
    generator: torch.Generator,
) -> Score:
    """The objective's score on one batch of frames."""
    batch, target = objective.prepare(store.batch(frames, dtype_of(engine)), generator)
    asked = {"outputs": objective.outputs} if objective.outputs else {}  # some heads have one output
    prediction = engine(*batch.graph.inputs(), marks=batch.marks, **asked)
    return objective.score(prediction, target)


def _score_share(
    process: Process,
    engine: Engine,
    objective: Objective,
    store: Store,
    frames: torch.Tensor,
    generator: torch.Generator,
) -> Score:
    """The score on what a process takes of a batch; where nothing is left for it, a score that counts nothing."""
    share = process.share(frames, store.n_atoms_per_frame[frames] + store.n_edges_per_frame[frames])
    if len(share):
        return _score(engine, objective, store, share, generator)
    return _score(engine, objective, store, frames[:1], generator).nothing()


def _parameters(network: torch.nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """The parameters in groups of one rate each; those of a rate of zero are frozen."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rate = rates.get(name.split(".")[0], 1.0)
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault(rate, []).append(parameter)
    return [{"params": part} | ({} if rate == 1.0 else {"rate": rate}) for rate, part in groups.items()]


def _plan_epoch(store: Store, stage: Stage, seed: int, epoch: int) -> list[torch.Tensor]:
    """The batches of an epoch, as frame indices; the same for the same (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return batches(store, stage.batch_atoms, stage.batch_frames, generator)


def _log_line(
    progress: Progress, steps_per_epoch: int, lr: float, train: dict[str, float], validation: dict[str, float]
) -> dict[str, float]:
    return {
        "step": progress.step,
        "epoch": progress.epoch,
        "steps_per_epoch": steps_per_epoch,
        "seconds": round(progress.seconds, 2),
        "lr": lr,
        **_prefixed("train", train),
        **_prefixed("val", validation),
    }


def _prefixed(split: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{key}": value for key, value in numbers.items()}


def _diverged(what: str, step: int, lr: float, folder: Path) -> str:
    kept = f"; the best state so far is kept in {folder / BEST}" if (folder / BEST).exists() else ""
    return (
        f"training diverged at step {step}: the {what} is not finite (learning rate {lr:.2g}). "
        f"Lower lr or clip_norm{kept}."
    )
