"""Times steps of training by one process and by several that share each batch. See README.md."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

BLOCK = 40  # steps of a timed block; there is a validation, of one frame, at its end


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    import torch
    from speed_report import describe_machine

    from mdpot.training.config import load_recipe
    from mdpot.training.prepare import prepare
    from mdpot.training.together import SOLO, Team, together

    torch.set_num_threads(args.threads)
    machine = describe_machine(args.threads)
    sizes = (f"finetune.max_steps={BLOCK * (args.blocks + 1)}", f"finetune.eval_every={BLOCK}")
    recipe = load_recipe(args.recipe, "quick", [*sizes, f"finetune.batch_atoms={args.batch_atoms}"])
    prepared = prepare(recipe, None, 0, torch.device("cpu"))
    times: dict[str, list[float]] = {}
    with together(args.devices, "cpu") as team:
        one, all_threads = "1 process, 1 thread", f"1 process, {args.threads} threads"
        together_ = f"{args.devices} processes, {team.threads} thread(s) each"
        turns: dict[str, tuple[Team, int]] = {
            one: (SOLO, 1), all_threads: (SOLO, args.threads), together_: (team, args.threads),
        }  # fmt: skip
        for _ in range(args.rounds):
            for name, (trainers, threads) in turns.items():
                torch.set_num_threads(threads)
                times.setdefault(name, []).extend(time_steps(trainers, recipe, prepared))
    ms = {name: 1e3 * statistics.median(found) for name, found in times.items()}
    result = {
        "recipe": args.recipe, "batch_atoms": args.batch_atoms, "machine": machine, "ms_per_step": ms, "times_s": times,
        "speedup": min(ms[one], ms[all_threads]) / ms[together_],
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in ms.items():
        sys.stdout.write(f"{name:32} {value:7.1f} ms a step of {args.batch_atoms} atoms\n")
    sys.stdout.write(f"{args.devices} processes are {result['speedup']:.2f} times as fast as the faster single one\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--recipe", default="water-rpbe", help="its preset quick is trained")
    add("--devices", type=int, default=2, help="processes")
    add("--threads", type=int, default=2, help="of the machine; each process gets its share")
    add("--batch-atoms", type=int, default=400, help="atoms of a batch, of all processes together")
    add("--blocks", type=int, default=4, help=f"of {BLOCK} steps, timed in each turn")
    add("--rounds", type=int, default=4, help="turns of each contender")
    add("--out", type=Path, required=True, help="JSON file")
    return parser.parse_args(arguments)


def time_steps(team: Any, recipe: Any, prepared: Any) -> list[float]:
    """Seconds per step in each block of a short training of a fresh network; the first block warms up."""
    import torch

    from mdpot.training.data.store import Store
    from mdpot.training.networks import measured_hyperparameters, new_potential
    from mdpot.training.objectives import Labels

    validation = Store(prepared.frames("validation")[:1], recipe.model.cutoff, molecules=False)
    validation.set_shift(dict(zip(prepared.elements, prepared.shift.tolist(), strict=True)))
    network = new_potential(recipe.model, prepared, 0, measured_hyperparameters(recipe.model, prepared))
    ends: list[float] = []

    def listen(report: Any) -> None:
        if report.step % BLOCK == 0:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        team.fit(
            potential=network.to(torch.device("cpu")),
            objective=Labels(recipe.finetune, prepared.train.labels),
            train=prepared.train,
            validation=validation,
            stage=recipe.finetune,
            folder=Path(folder),
            seed=0,
            listen=listen,
        )
    return [(b - a) / BLOCK for a, b in pairwise(ends)]


if __name__ == "__main__":
    main()
