"""Trains the default network on molecules of revised MD17 and draws its errors beside MACE's. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

# Test MAE of the forces, meV/Å, after 950 training frames: Batatia et al., MACE, NeurIPS 2022.
MACE = {
    "aspirin": 6.6, "azobenzene": 2.6, "benzene": 0.3, "ethanol": 2.1, "malonaldehyde": 5.0, "naphthalene": 1.3,
    "paracetamol": 4.1, "salicylic": 3.8, "toluene": 1.5, "uracil": 2.8,
}  # fmt: skip
ALL = 950


class Run(NamedTuple):
    """A training: its molecule, its training frames and its optimizer steps."""

    molecule: str
    frames: int
    steps: int


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    runs = plan(args)
    if not args.tables_only:
        train([run for run in runs if read(run, args) is None], args)
    results = [{**run._asdict(), **found} for run in runs if (found := read(run, args)) is not None]
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


def folder_of(run: Run, args: argparse.Namespace) -> Path:
    changed = "".join(f"-{key}" for key in args.set)
    return args.work / run.molecule / f"{run.frames}frames-{run.steps}steps{changed}"


def read(run: Run, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a finished run left."""
    folder = folder_of(run, args)
    if not (folder / "metrics.json").is_file():
        return None
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe = json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]
    errors = {name: metrics["errors"][name] for name in ("train", "test")}
    return {"seconds": metrics["finetune_seconds"], "recipe": recipe, "errors": errors}


def train(runs: list[Run], args: argparse.Namespace) -> None:
    """Does the runs, `args.jobs` at a time; one that was stopped goes on."""
    waiting, at_work = list(runs), {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < args.jobs:
                run = waiting.pop(0)
                at_work[run] = start(run, args)
            for run, process in list(at_work.items()):
                if process.poll() is not None:
                    del at_work[run]
                    found = read(run, args)
                    said = (
                        "failed, see its log" if found is None else f"{found['errors']['test']['force_mae']:.1f} meV/Å"
                    )
                    sys.stderr.write(f"{run.molecule}, {run.frames} frames, {run.steps} steps: {said}\n")
            time.sleep(0.5)
    finally:
        for process in at_work.values():
            process.terminate()


def start(run: Run, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    """`mdpot train` in a process of its own."""
    folder = folder_of(run, args)
    folder.parent.mkdir(parents=True, exist_ok=True)
    keys = [f"finetune.max_steps={run.steps}", f"finetune.eval_every={max(1, run.steps // 8)}", *args.set]
    if run.frames < ALL:
        keys.append(f"data.max_train_frames={run.frames}")
    command = [sys.executable, "-m", "mdpot", "train", f"rmd17-{run.molecule}", "--out", str(folder), "--threads", "1"]
    command += ["--device", args.device]
    command += [text for key in keys for text in ("--set", key)]
    command += ["--resume"] if (folder / "run.json").is_file() else []
    with folder.with_name(f"{folder.name}.log").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


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
        f"{device} for each. MACE's errors are those of its paper (Batatia et al., NeurIPS 2022). Forces in meV/Å, "
        "energies of a molecule in meV."
    )
    lines = ["# Revised MD17", "", fill(about, 118), "", f"![test errors over frames and steps]({picture})", ""]
    lines += [
        "| molecule | frames | steps | minutes | force MAE, train | force MAE, test | MACE | force RMSE, test | "
        "energy MAE, test |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in sorted(results, key=lambda r: (r["molecule"], r["frames"], r["steps"])):
        e, t = r["errors"]["test"], r["errors"]["train"]
        peer = f"{MACE[r['molecule']]:g}" if r["frames"] == ALL else ""
        lines.append(
            f"| {r['molecule']} | {r['frames']} | {r['steps']:,} | {r['seconds'] / 60:.0f} | {t['force_mae']:.1f} | "
            f"{e['force_mae']:.1f} | {peer} | {e['force_rmse']:.1f} | {e['energy_mae_structure']:.1f} |"
        )
    lines += ["", "## Where the curves point", ""]
    for molecule in dict.fromkeys(r["molecule"] for r in results):
        for key in ("frames", "steps"):
            x, y = curve(results, molecule, key)
            if len(x) > 1:
                a, b = power_law(x, y)
                needed = (MACE[molecule] / a) ** (1 / b) if b < 0 else float("inf")
                lines.append(
                    f"- {molecule}, over {key}: MAE ∝ {key}^{b:.2f} ({len(x)} points); MACE's {MACE[molecule]:g} meV/Å "
                    f"would come at {float(f'{needed:.1g}'):,.0f} {key}, if it went on like that."
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
