"""Finetunes crystals-pbe-small on few frames that it has not seen, beside trainings from scratch. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ase.io
import numpy as np

from mdpot.zoo import find_model

START = "crystals-pbe-small"
SETS = {
    "HME21": ("crystals/alloys/HME21_test_small.extxyz.gz", "37 elements"),
    "MAD": ("crystals/mad_subset.extxyz.gz", "85 elements, molecules and surfaces among them"),
    "MoNbTaW": ("crystals/alloys/MoNbTaW_train.extxyz.gz", "four metals"),
    "mlearn": ("crystals/mlearn_train.extxyz.gz", "Li, Mo, Si, Ge"),
    "InP": ("crystals/alloys/InP_fitsnap.extxyz.gz", "strained, with defects"),
    "TiO2-water": ("own-data/TiO2_water_input.data", "slabs in vacuum"),
}
"""Below MDPOT_DATA; and what they are."""
RUNS = [
    ("HME21", 50), ("HME21", None), ("MAD", None), ("MoNbTaW", 15), ("MoNbTaW", 100), ("mlearn", 50), ("InP", 15),
    ("InP", 50), ("TiO2-water", 50),
]  # fmt: skip
"""Which frames, and how many of the training split."""
ARMS = {"scratch": ["train", "custom", "--preset", "quick"], "start": ["finetune", "custom", "--preset", "after"]}
COLUMNS = {"force_mae": "force MAE (meV/Å)", "energy_mae": "energy MAE (meV/atom)", "stress_mae": "stress MAE (meV/Å³)"}

TAUGHT = ["mattersim/*.extxyz.gz", "alexandria_pressure_2000x7.extxyz.gz"]
"""What the start was trained on, below crystals/."""
LARGEST_FORCE = 25.0
"""eV/Å; frames with a larger one are left out."""


def main() -> None:
    args = parse()
    data = Path(os.environ["MDPOT_DATA"])
    if args.make:
        write_taught(data / "crystals", args.make)
        return
    runs = [(name, n, arm, seed) for seed in range(args.seeds) for arm in ARMS for name, n in RUNS]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: train(args, data, *run), runs))
    results = {run: read(folder(args.work, *run)) for run in runs}
    args.out.write_text(to_markdown(results, args), encoding="utf-8")
    rows = [dict(zip(("data", "frames", "arm", "seed"), run, strict=True)) | found for run, found in results.items()]
    args.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--make", type=Path, metavar="FILE", help="only write the frames that the start is trained on, as extended XYZ")
    add("--start", default=START, help="a potential file or a name of the zoo")
    add("--seeds", type=int, default=2, help="each with a split of its own")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    add("--work", type=Path, default=Path("runs/from-crystals"), help="folder of the runs; what is finished is kept")
    add("--out", type=Path, default=Path("from-crystals.md"), help="the page; a JSON file goes beside it")
    return parser.parse_args()


def write_taught(crystals: Path, file: Path) -> None:
    """The frames of `TAUGHT` in random order, without those of huge forces, each with the name of its file."""
    frames = []
    paths = [sorted(crystals.glob(pattern)) for pattern in TAUGHT]
    if not all(paths):
        raise SystemExit(f"{crystals} lacks {TAUGHT[paths.index([])]}")
    for path in (path for found in paths for path in found):
        for atoms in ase.io.read(path, ":"):
            if np.abs(atoms.get_forces()).max() < LARGEST_FORCE:
                atoms.info = {"source": path.name.split(".")[0]}
                frames.append(atoms)
    random.Random(0).shuffle(frames)
    ase.io.write(file, frames)


def folder(work: Path, name: str, n: int | None, arm: str, seed: int) -> Path:
    return work / f"{name}-{n or 'all'}-{arm}-seed{seed}"


def train(args: argparse.Namespace, data: Path, name: str, n: int | None, arm: str, seed: int) -> None:
    """One training by mdpot's own command, unless it is finished."""
    out = folder(args.work, name, n, arm, seed)
    if (out / "metrics.json").exists():
        return
    command = [sys.executable, "-m", "mdpot", *ARMS[arm], "--data", data / SETS[name][0], "--seed", seed, "--out", out]
    command += ["--threads", 1, "--device", "cpu", "--resume"]
    command += ["--from", find_model(args.start)] if arm == "start" else []
    command += ["--set", f"data.max_train_frames={n or 'none'}"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def read(run: Path) -> dict[str, float]:
    """Test errors in meV, and seconds of training."""
    errors = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["errors"]
    logs = [path.read_text(encoding="utf-8").splitlines() for path in run.glob("*/metrics.jsonl")]
    found = {key: errors["test"][key] for key in COLUMNS if key in errors["test"]}
    seconds = sum(json.loads(lines[-1])["seconds"] for lines in logs)
    return found | {"trained": errors["train"]["n_frames"], "seconds": seconds}


def to_markdown(results: dict[tuple[str, int | None, str, int], dict[str, float]], args: argparse.Namespace) -> str:
    lines = [
        "# Few frames, from scratch and from a start that knows 89 elements",
        "",
        "Test errors by `mdpot train custom --preset quick` and by `mdpot finetune custom --preset after --from",
        f"{START}`. The start has seen none of these data. Means over {args.seeds} seeds, each with its own split, and",
        "their standard errors; the ratios are of trainings with one split.",
        "",
        "| data | training frames | "
        + " | ".join(f"{text}, scratch | start | ratio" for text in COLUMNS.values())
        + " |",
        "|---|---:|" + "---:|" * (3 * len(COLUMNS)),
    ]
    for name, n in RUNS:
        by_arm = {arm: [results[name, n, arm, seed] for seed in range(args.seeds)] for arm in ARMS}
        cells = [f"{name} ({SETS[name][1]})", f"{by_arm['start'][0]['trained']:.0f}"]
        for key in COLUMNS:
            means = {arm: [found[key] for found in runs if key in found] for arm, runs in by_arm.items()}
            ratios = [start / scratch for scratch, start in zip(*(means[arm] for arm in ARMS), strict=True)]
            cells += [spread(means[arm]) for arm in ARMS] + [spread(ratios)]
        lines.append(f"| {' | '.join(cells)} |")
    seconds = {arm: statistics.median(r["seconds"] for run, r in results.items() if run[2] == arm) for arm in ARMS}
    lines += [
        "",
        f"A training takes {seconds['scratch']:.0f} s from scratch and {seconds['start']:.0f} s from the start",
        "(medians; one thread of a machine that others use).",
        "",
        "`python benchmarks/from_crystals.py` writes this page.",
    ]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """A mean with its standard error, or nothing."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{mean:.3g} ± {error:.2g}"


if __name__ == "__main__":
    main()
