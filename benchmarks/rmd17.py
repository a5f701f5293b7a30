"""Trains the default network on molecules of revised MD17 and draws its errors beside MACE's. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from mdpot.cli.progress import TerminalListener
from mdpot.errors import MdpotError
from mdpot.stopping import Stopped
from mdpot.training import folder as files
from mdpot.training.config import load_recipe, recipe_to_dict
from mdpot.training.reproduce import grid
from mdpot.training.reproduce.worker import launch

# Test MAE of the forces, meV/Å, after 950 training frames: MACE (Batatia et al., NeurIPS 2022, table 2).
MACE = {
    "aspirin": 6.6, "azobenzene": 3.0, "benzene": 0.3, "ethanol": 2.1, "malonaldehyde": 4.1, "naphthalene": 1.6,
    "paracetamol": 4.8, "salicylic": 3.1, "toluene": 1.5, "uracil": 2.1,
}  # fmt: skip
# The best published from random weights: of MACE, Allegro (Musaelian et al., Nat. Commun. 2023) and GotenNet (Aykent
# and Xia, ICLR 2025).
BEST = {
    "aspirin": 5.7, "azobenzene": 2.6, "benzene": 0.2, "ethanol": 2.1, "malonaldehyde": 3.6, "naphthalene": 0.9,
    "paracetamol": 4.8, "salicylic": 2.9, "toluene": 1.1, "uracil": 1.8,
}  # fmt: skip
ALL = 950
OUT_OF_REACH = 1e8


class Run(NamedTuple):
    """A training: its molecule, its training frames and its optimizer steps."""

    molecule: str
    frames: int
    steps: int


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    runs = [(run, grid_run(run, args)) for run in plan(args)]
    if not args.tables_only:
        work = grid.Work(args.jobs, threads=1, device=args.device)
        try:
            with TerminalListener() as listener:
                grid.run_grid([run for _, run in runs], args.work, work, listener, launch)
        except (MdpotError, Stopped) as error:
            raise SystemExit(str(error)) from None
    results = [{**run._asdict(), **found} for run, in_grid in runs if (found := read(in_grid, args)) is not None]
    if not results:
        raise SystemExit(f"nothing is finished in {args.work}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture = args.out.with_suffix(".png")
    draw(picture, results)
    args.out.write_text(to_markdown(results, args, picture.name), encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(args.out.read_text(encoding="utf-8"))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    some = ("aspirin", "ethanol", "malonaldehyde")
    add("--molecules", nargs="+", default=some, choices=tuple(MACE), metavar="NAME", help=", ".join(MACE))
    add("--steps", nargs="+", type=int, default=(2000, 8000), help=f"lengths of the trainings on {ALL} frames")
    add("--frames", nargs="*", type=int, default=(100, 300), help="fewer frames, each for the longest of --steps")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    add("--device", default="cpu", help="torch device")
    add("--tables-only", action="store_true", help="train nothing; write the page of what is finished")
    add("--work", type=Path, default=Path("runs/rmd17"), help="folder of the runs; what is there goes on or is kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file and a picture go beside it")
    return parser.parse_args(arguments)


def plan(args: argparse.Namespace) -> list[Run]:
    """The runs, the short ones first."""
    longest = max(args.steps)
    lengths = [Run(m, ALL, steps) for steps in sorted(args.steps) for m in args.molecules]
    return lengths + [Run(m, frames, longest) for frames in sorted(args.frames) for m in args.molecules]


def grid_run(run: Run, args: argparse.Namespace) -> grid.Run:
    """The training as a run in a folder."""
    keys = [f"finetune.max_steps={run.steps}", f"finetune.eval_every={max(1, run.steps // 8)}", *args.set]
    if run.frames < ALL:
        keys.append(f"data.max_train_frames={run.frames}")
    changed = "".join(f"-{key}" for key in args.set)
    folder = f"{run.molecule}/{run.frames}frames-{run.steps}steps{changed}"
    return grid.Run(folder, "train", load_recipe(f"rmd17-{run.molecule}", "full", keys), seed=0)


def read(run: grid.Run, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a finished run left."""
    folder = grid.folder_of(run, args.work)
    if not (folder / files.METRICS).is_file():
        return None
    metrics = json.loads((folder / files.METRICS).read_text(encoding="utf-8"))
    errors = {name: metrics["errors"][name] for name in ("train", "test")}
    return {"seconds": metrics["finetune_seconds"], "recipe": recipe_to_dict(run.recipe), "errors": errors}


def power_law(x: list[float], y: list[float]) -> tuple[float, float]:
    """a and b of y = a x^b, by least squares on the logarithms."""
    import numpy as np

    b, a = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(a)), float(b)


def curve(results: list[dict[str, Any]], molecule: str, key: str) -> tuple[list[float], list[float]]:
    """Test force MAE over "frames" at the longest training, or over "steps" at all frames."""
    mine = [r for r in results if r["molecule"] == molecule]
    longest = max(r["steps"] for r in mine)
    kept = [r for r in mine if (r["frames"] == ALL if key == "steps" else r["steps"] == longest)]
    kept.sort(key=lambda r: r[key])
    return [r[key] for r in kept], [r["errors"]["test"]["force_mae"] for r in kept]


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """Test error over training frames and over steps, with MACE's error as a dashed line."""
    from mdpot.training.report import new_figure, readable_log, save

    titles = {"frames": "training frames", "steps": f"steps, {ALL} frames"}
    keys = [key for key in titles if len({r[key] for r in results}) > 1] or ["steps"]
    figure, axes = new_figure(len(keys))
    for axis, key in zip(axes, keys, strict=True):
        for n, molecule in enumerate(dict.fromkeys(r["molecule"] for r in results)):
            x, y = curve(results, molecule, key)
            axis.plot(x, y, "o-", color=f"C{n}", label=molecule)
            axis.axhline(MACE[molecule], ls="--", lw=1, color=f"C{n}")
        axis.set_xscale("log")
        axis.set_yscale("log")
        readable_log(axis.yaxis)
        ticks = sorted({r[key] for r in results if key == "frames" or r["frames"] == ALL})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(titles[key])
        axis.set_ylabel("test force MAE (meV/Å)")
    axes[0].legend(fontsize=8, title="dashed: MACE, 950 frames", title_fontsize=7)
    save(figure, path)


def to_markdown(results: list[dict[str, Any]], args: argparse.Namespace, picture: str) -> str:
    """The page: all errors, and where the curves point."""
    recipe = results[0]["recipe"]
    model, objective = recipe["model"], recipe["pretrain"]["objective"]
    device = "a CPU" if args.device == "cpu" else args.device
    started = "from scratch" if objective == "none" else f"after pretraining by `{objective}`"
    size = ", ".join(f"{key} {value}" for key, value in model["hyperparameters"].items())
    about = (
        f"`mdpot train rmd17-MOLECULE`: `{model['name']}` ({size}, cutoff {model['cutoff']:g} Å), trained {started} "
        "on the official training split, tested on the official test split (1,000 frames). One seed; one thread and "
        f"{device} for each. MACE's errors are those of its paper (Batatia et al., NeurIPS 2022, table 2); the best "
        "published ones without pretraining are MACE's, Allegro's (Nat. Commun. 2023) or GotenNet's (ICLR 2025). "
        "Forces in meV/Å, energies of a molecule in meV."
    )
    lines = ["# Revised MD17", "", fill(about, 118), "", f"![test errors over frames and steps]({picture})", ""]
    lines += [
        "| molecule | frames | steps | minutes | force MAE, train | force MAE, test | MACE | best | "
        "force RMSE, test | energy MAE, test |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in sorted(results, key=lambda r: (r["molecule"], r["frames"], r["steps"])):
        e, t = r["errors"]["test"], r["errors"]["train"]
        peers = [f"{errors[r['molecule']]:.1f}" if r["frames"] == ALL else "" for errors in (MACE, BEST)]
        lines.append(
            f"| {r['molecule']} | {r['frames']} | {r['steps']:,} | {r['seconds'] / 60:.0f} | {t['force_mae']:.1f} | "
            f"{e['force_mae']:.1f} | {' | '.join(peers)} | {e['force_rmse']:.1f} | {e['energy_mae_structure']:.1f} |"
        )
    lines += ["", "## Where the curves point", ""]
    for molecule in dict.fromkeys(r["molecule"] for r in results):
        for key in ("frames", "steps"):
            x, y = curve(results, molecule, key)
            if len(x) > 1:
                a, b = power_law(x, y)
                needed = (MACE[molecule] / a) ** (1 / b) if b < 0 else float("inf")
                said = f"at {float(f'{needed:.1g}'):,.0f} {key}" if needed < OUT_OF_REACH else f"at no number of {key}"
                lines.append(
                    f"- {molecule}, over {key}: MAE ∝ {key}^{b:.2f} ({len(x)} points); MACE's {MACE[molecule]:.1f} "
                    f"meV/Å would come {said}, if it went on like that."
                )
    keys = "".join(f" --set {key}" for key in args.set)
    command = (
        f"python benchmarks/rmd17.py --molecules {' '.join(args.molecules)} --steps {' '.join(map(str, args.steps))}"
    )
    command += "" if args.device == "cpu" else f" --device {args.device}"
    command += f" {' '.join(['--frames', *map(str, args.frames)])}{keys} --out docs/results/rmd17.md"
    return "\n".join([*lines, "", "```bash", command, "```", ""])


if __name__ == "__main__":
    main()
