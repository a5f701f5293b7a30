"""Times a training step by the fused kernels beside torch, part by part, in one run on one machine. See README.md."""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PARTS = ("batch", "forward", "loss", "gradients", "clip", "optimizer", "average")


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    os.environ["OMP_NUM_THREADS"] = str(max(args.threads))  # before torch is imported
    import torch

    rows: dict[tuple[str, int], dict[str, float]] = {}
    # The kernels are for a CPU, and stay there beside a GPU.
    places = {name: "cpu" if name == "kernels" else args.device for name in args.engines}
    trainers = {name: Trainer(args.recipe, args.preset, name, place) for name, place in places.items()}
    for threads in args.threads:
        torch.set_num_threads(threads)
        for _ in range(args.rounds):
            for trainer in trainers.values():
                trainer.block(threads, args.steps)
        for name, trainer in trainers.items():
            rows[name, threads] = trainer.medians(threads)
    description = next(iter(trainers.values())).description
    if args.device != "cpu":
        description += f"; torch on {torch.cuda.get_device_name()}, which each part waits for"
    sys.stdout.write(to_markdown(rows, description))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--recipe", default="water-rpbe")
    add("--preset", default="quick")
    add("--engines", nargs="+", default=["kernels", "torch"], choices=["kernels", "torch"])
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--device", default="cpu", choices=["cpu", "cuda"], help="of torch; the kernels stay on the CPU")
    add("--steps", type=int, default=40, help="of an engine, before the next one's turn")
    add("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


class Trainer:
    """A finetuning from random weights, on the frames inside the package, whose steps are timed."""

    def __init__(self, recipe: str, preset: str, engine: str, device: str = "cpu") -> None:
        import torch

        from mdpot.training.average import MovingAverage
        from mdpot.training.config import load_recipe
        from mdpot.training.data.catalog import SAMPLE
        from mdpot.training.engine import choose_engine
        from mdpot.training.networks import new_potential
        from mdpot.training.objectives import Labels
        from mdpot.training.prepare import prepare
        from mdpot.training.trainer import OPTIMIZERS, _plan_epoch

        read = load_recipe(recipe, preset)
        self.stage = read.finetune
        prepared = prepare(read, Path(SAMPLE), 0, torch.device(device))
        self.store, self.network = prepared.train, new_potential(read.model, prepared, 0).to(device).train()
        self.wait = torch.cuda.synchronize if device == "cuda" else None
        self.objective = Labels(self.stage, self.store.labels)
        self.engine = choose_engine(self.network, self.objective.outputs, engine)
        self.optimizer = OPTIMIZERS[self.stage.optimizer](self.network.parameters(), lr=1e-4)
        decay = self.stage.ema_decay
        self.average = None if decay is None else MovingAverage(self.network, decay)
        self.plan = _plan_epoch(self.store, self.stage, 0, 0)
        atoms = int(self.store.n_atoms_per_frame.sum()) / len(self.plan)
        self.weights = list(self.network.parameters())
        size = sum(weight.numel() for weight in self.weights)
        self.description = f"{read.model.name}, {size:,} weights, batches of {atoms:.0f} atoms, {self.stage.optimizer}"
        self.steps = 0
        self.times: dict[int, list[list[float]]] = {}

    def block(self, threads: int, steps: int) -> None:
        """Some steps, of which the first three are not timed."""
        from mdpot.training.engine import small_operations

        with small_operations(self.engine):
            self.times.setdefault(threads, []).extend([self.step() for _ in range(steps + 3)][3:])

    def step(self) -> list[float]:
        """The seconds of each of `PARTS`."""
        from mdpot.training.trainer import _clip

        clock = [time.perf_counter()]

        def timed(part: Callable[[], Any]) -> Any:
            found = part()
            if self.wait is not None:
                self.wait()
            clock.append(time.perf_counter())
            return found

        frames = self.plan[self.steps % len(self.plan)]
        self.steps += 1
        batch = timed(lambda: self.store.batch(frames))
        asked = {"marks": batch.marks, "outputs": self.objective.outputs}
        prediction = timed(lambda: self.engine(*batch.graph.inputs(), **asked))
        loss = timed(lambda: self.objective.score(prediction, batch).loss())
        self.optimizer.zero_grad()
        timed(loss.backward)
        timed(lambda: _clip(self.weights, 10.0))
        timed(self.optimizer.step)
        timed(lambda: self.average and self.average.update_parameters(self.network))
        return [after - before for before, after in itertools.pairwise(clock)]

    def medians(self, threads: int) -> dict[str, float]:
        """Milliseconds of each part, and of all."""
        columns = list(zip(*self.times[threads], strict=True))
        found = {part: 1e3 * statistics.median(times) for part, times in zip(PARTS, columns, strict=True)}
        return found | {"step": 1e3 * statistics.median(map(sum, self.times[threads]))}


def to_markdown(rows: dict[tuple[str, int], dict[str, float]], description: str) -> str:
    """A table of milliseconds, and how many times torch's time is that of the kernels."""
    names: Sequence[str] = [*PARTS, "step"]
    lines = [f"{description}; ms, medians", "", "| engine | threads | " + " | ".join(names) + " |"]
    lines.append("|" + "---|" * (len(names) + 2))
    for (engine, threads), row in rows.items():
        lines.append(f"| {engine} | {threads} | " + " | ".join(f"{row[name]:.2f}" for name in names) + " |")
    for threads in dict.fromkeys(threads for _, threads in rows):
        if {("kernels", threads), ("torch", threads)} <= rows.keys():
            ratio = rows["torch", threads]["step"] / rows["kernels", threads]["step"]
            lines += ["", f"With {threads} threads a step by the kernels takes 1/{ratio:.1f} of torch's time."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
