"""Trains variants of the default network equally long and draws their error against their cost. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

# What each changes in the recipe; the first is what the recipe has.
VARIANTS: dict[str, tuple[str, ...]] = {
    "small": ("size=small",),
    "no pair energy": ("size=small", "model.pair=false"),
    "order 1": ("size=small", "order=1"),
    "order 3": ("size=small", "order=3"),
    "1 layer": ("size=small", "layers=1"),
    "3 layers": ("size=small", "layers=3"),
    "16 channels": ("size=small", "channels=16"),
    "cutoff 3.5 Å": ("size=small", "model.cutoff=3.5"),
    "cutoff 5 Å": ("size=small", "model.cutoff=5.0"),
    "medium": ("size=medium",),
    "AdamW": ("size=small", "finetune.optimizer=adamw"),
}
EGNN = "EGNN"
RECIPES = ("water-rpbe", "rmd17-ethanol")
CUTOFF = 4.0
BATCH_ATOMS = 192
REPEATS = 21


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    for recipe in args.recipes:
        for name in (*VARIANTS, EGNN):
            if not args.tables_only:
                run(recipe, name, args)
    from variants_report import draw, to_markdown

    results = {r: {n: found for n in (*VARIANTS, EGNN) if (found := read(r, n, args))} for r in RECIPES}
    results = {recipe: found for recipe, found in results.items() if found}
    if not results:
        raise SystemExit(f"nothing is finished in {args.work}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(args.out.with_suffix(".png"), results)
    text = to_markdown(results, args.out.with_suffix(".png").name)
    args.out.write_text(text, encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--recipes", nargs="+", default=RECIPES, choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    add("--steps", type=int, default=600, help="optimizer steps of about 200 atoms")
    add("--tables-only", action="store_true", help="train nothing; write the page of what is finished")
    add("--work", type=Path, default=Path("runs/variants"), help="folder of the runs; finished ones are kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file and a picture go beside it")
    return parser.parse_args(arguments)


def folder_of(recipe: str, name: str, args: argparse.Namespace) -> Path:
    return args.work / f"{args.steps}steps" / recipe / name.replace(" ", "-")


def read(recipe: str, name: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """The result of a finished variant."""
    path = folder_of(recipe, name, args) / "variant.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run(recipe: str, name: str, args: argparse.Namespace) -> None:
    """Trains one variant from scratch on one thread and times it, unless that is done."""
    import torch

    from mdpot import load_potential
    from mdpot.training.config import load_recipe, recipe_to_dict
    from mdpot.training.data.catalog import SAMPLE
    from mdpot.training.reproduce.worker import commit
    from mdpot.training.run import run_train

    folder = folder_of(recipe, name, args)
    if (folder / "variant.json").is_file():
        return
    torch.set_num_threads(1)
    changes = [
        "pretrain.objective=none",
        f"model.cutoff={CUTOFF}",
        f"finetune.max_steps={args.steps}",
        f"finetune.eval_every={args.steps}",
        "finetune.batch_atoms=200",
        "finetune.lr=6e-3",
        "finetune.ema_decay=0.99",
        *(key if "." in key.split("=")[0] else f"model.hyperparameters.{key}" for key in VARIANTS.get(name, ())),
    ]
    if name == EGNN:
        changes += ["model.hyperparameters.width=64", "model.hyperparameters.layers=3", "finetune.lr=4e-3"]
    loaded = load_recipe(recipe, "quick", changes, "egnn" if name == EGNN else "tide")
    began = time.process_time()
    data = SAMPLE if recipe == "water-rpbe" else None
    metrics = run_train(loaded, data=data, out=folder / "run", device="cpu", resume=(folder / "run").exists())
    seconds = time.process_time() - began
    potential, _ = load_potential(folder / "run")
    result = {
        "errors": metrics["errors"]["test"],
        "labels": metrics["labels"],
        "steps": args.steps,
        "recipe": recipe_to_dict(loaded),
        "commit": commit(),
        "cpu_seconds": round(seconds, 1),
        "cpu_ms": cost(potential, recipe, data),
        "parameters": sum(p.numel() for p in potential.parameters()),
    }
    (folder / "variant.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    sys.stderr.write(f"{recipe}, {name}: force MAE {result['errors']['force_mae']:.1f}, {result['cpu_ms']:.1f} ms\n")


def cost(potential: Any, recipe: str, data: Path | None) -> float:
    """CPU milliseconds on one thread for energy and forces of about 192 atoms, neighbor lists ready: the median."""
    import numpy as np
    import torch

    from mdpot.training.data.sources import load_dataset
    from mdpot.training.data.store import Store

    frames = [f for f in load_dataset(recipe, data).frames if len(f) in (9, BATCH_ATOMS)]
    chosen = frames[: BATCH_ATOMS // len(frames[0])]
    graph = Store(chosen, potential.cutoff).batch(torch.arange(len(chosen))).graph
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        potential(*graph.inputs())
        taken.append(time.process_time() - began)
    return float(1e3 * np.median(taken[1:]))


if __name__ == "__main__":
    main()
