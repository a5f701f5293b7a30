"""Trains the same by the fused kernels and by torch, and draws both curves. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

ENGINES = {"kernels": ("fused kernels", "C0"), "torch": ("torch", "C1")}
SHOWN = ("force_rmse", "force_mae", "energy_mae")


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    import torch

    torch.set_num_threads(1)  # so that both do the same in the same order each time
    found = {f"{engine}, seed {seed}": train(engine, seed, args) for seed in range(args.seeds) for engine in ENGINES}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture = args.out.with_suffix(".png")
    draw(picture, found)
    args.out.write_text(to_markdown(found, picture.name, args), encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(args.out.read_text(encoding="utf-8"))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, default=2000, help="of the finetuning; the pretraining has a quarter")
    add("--seeds", type=int, default=2)
    add("--work", type=Path, default=Path("runs/engines"), help="folder of the runs; finished ones are kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file and a picture go beside it")
    return parser.parse_args(arguments)


def train(engine: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """A run of water-rpbe's preset quick on the frames inside the package, or what it left.

    Returns:
        "engine", "test" (errors), "seconds" of the finetuning and "curve": for each of `SHOWN` and "step" a list.
    """
    from mdpot.training import folder as files
    from mdpot.training.config import load_recipe
    from mdpot.training.data.catalog import SAMPLE
    from mdpot.training.run import run_train

    out = args.work / f"{engine}-{args.steps}steps-seed{seed}"
    keys = [f"{stage}.engine={engine}" for stage in ("pretrain", "finetune")]
    keys += [f"pretrain.max_steps={args.steps // 4}", f"pretrain.eval_every={args.steps // 8}"]
    keys += [f"finetune.max_steps={args.steps}", f"finetune.eval_every={max(1, args.steps // 20)}"]
    if not (out / files.METRICS).is_file():
        recipe = load_recipe("water-rpbe", "quick", keys)
        run_train(recipe, data=SAMPLE, out=out, seed=seed, device="cpu", resume=(out / files.RUN).is_file())
    result = json.loads((out / files.METRICS).read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (out / "finetune" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = {key: [line[f"val/{key}"] for line in log] for key in SHOWN}
    return {
        "engine": engine,
        "test": {key: result["errors"]["test"][key] for key in SHOWN},
        "seconds": result["finetune_seconds"],
        "curve": {"step": [line["step"] for line in log], **curve},
    }


def draw(path: Path, found: dict[str, dict[str, Any]]) -> None:
    """The validation errors over the steps, a panel for forces and one for energies."""
    from mdpot.training.report import label_validation, new_figure, save

    figure, axes = new_figure(2)
    for axis, key in zip(axes, ("force_rmse", "energy_mae"), strict=True):
        for result in found.values():
            title, color = ENGINES[result["engine"]]
            known = {line.get_label() for line in axis.lines}
            curve = result["curve"]
            axis.plot(curve["step"], curve[key], color=color, lw=1, label=f"_{title}" if title in known else title)
        label_validation(axis, key)
    save(figure, path)


def to_markdown(found: dict[str, dict[str, Any]], picture: str, args: argparse.Namespace) -> str:
    """The page."""
    from mdpot.training.metrics import METRICS

    about = (
        f"`mdpot train water-rpbe --preset quick` with {args.steps // 4:,} steps of pretraining and {args.steps:,} of "
        "finetuning, by either engine from the same seeds: the same first weights, batches, and noise, in one thread. "
        "Gradients agree to rounding, in single precision here; training makes small differences large, so the runs "
        "part, and what can be the same are the errors they end with, to about what seeds differ by."
    )
    lines = ["# Training by the kernels and by torch", "", fill(about, 118), "", f"![validation errors]({picture})", ""]
    lines += ["| run | " + " | ".join(f"test {METRICS[key].heading}" for key in SHOWN) + " |"]
    lines += ["|---|" + "---:|" * len(SHOWN)]
    for name, result in found.items():
        errors = " | ".join(f"{result['test'][key]:.3g}" for key in SHOWN)
        lines.append(f"| {name} | {errors} |")
    lines += ["", f"`python benchmarks/engines.py --steps {args.steps} --seeds {args.seeds}` writes this page."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
