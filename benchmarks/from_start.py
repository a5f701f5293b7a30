"""Finetunes a start of the zoo on few frames that it has not seen, beside trainings from scratch. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np

from mdpot.training.compare import standard_error
from mdpot.zoo import find_model


class Comparison(NamedTuple):
    """What is trained, and how.

    Attributes:
        start: a name of the zoo.
        knows: what it knows, in the title of the page.
        sets: by a name, a file below MDPOT_DATA, and what is in it.
        runs: of which set, and how many frames of its training split; None takes all.
    """

    start: str
    knows: str
    sets: dict[str, tuple[str, str]]
    runs: list[tuple[str, int | None]]


COMPARISONS = {
    "crystals": Comparison(
        start="crystals-pbe-small",
        knows="89 elements",
        sets={
            "HME21": ("crystals/alloys/HME21_test_small.extxyz.gz", "37 elements"),
            "MAD": ("crystals/mad_subset.extxyz.gz", "85 elements, molecules and surfaces among them"),
            "MoNbTaW": ("crystals/alloys/MoNbTaW_train.extxyz.gz", "four metals"),
            "mlearn": ("crystals/mlearn_train.extxyz.gz", "Li, Mo, Si, Ge"),
            "InP": ("crystals/alloys/InP_fitsnap.extxyz.gz", "strained, with defects"),
            "TiO2-water": ("own-data/TiO2_water_input.data", "slabs in vacuum"),
        },
        runs=[
            ("HME21", 50), ("HME21", None), ("MAD", None), ("MoNbTaW", 15), ("MoNbTaW", 100), ("mlearn", 50),
            ("InP", 15), ("InP", 50), ("TiO2-water", 50),
        ],
    ),
    "molecules": Comparison(
        start="molecules-xtb-small",
        knows="organic molecules",
        sets={
            "ethanol": ("rmd17/npz_data/rmd17_ethanol.npz", "PBE"),
            "malonaldehyde": ("rmd17/npz_data/rmd17_malonaldehyde.npz", "PBE"),
            "aspirin": ("rmd17/npz_data/rmd17_aspirin.npz", "PBE"),
            "azobenzene": ("rmd17/npz_data/rmd17_azobenzene.npz", "PBE"),
            "dipeptides": ("own-data/spice_dipep_val.xyz", "SPICE, 55 frames of many molecules"),
            "PF6": ("own-data/electrolyte_PF6_PBED3.xyz", "an anion, PBE-D3"),
            "water": ("water-blypd3/input.data.gz", "liquid and ice, BLYP-D3"),
        },
        runs=[
            ("ethanol", 20), ("ethanol", 100), ("ethanol", 950), ("malonaldehyde", 50), ("aspirin", 20),
            ("aspirin", 100), ("azobenzene", 50), ("dipeptides", None), ("PF6", 20), ("water", 30),
        ],
    ),
}  # fmt: skip
COMMANDS = {
    "scratch": ["train", "custom", "--preset", "quick"],
    "start": ["finetune", "custom", "--preset", "after"],
}
COLUMNS = {"force_mae": "force MAE (meV/Å)", "energy_mae": "energy MAE (meV/atom)", "stress_mae": "stress MAE (meV/Å³)"}


class Run(NamedTuple):
    data: str
    frames: int | None
    arm: str
    seed: int

    def folder(self, args: argparse.Namespace) -> Path:
        """That of another start has another name."""
        arm = f"{self.arm}-{start_name(args)}" if self.arm == "start" else self.arm
        return args.work / f"{self.data}-{self.frames or 'all'}-{arm}-seed{self.seed}"


def start_name(args: argparse.Namespace) -> str:
    """A name of the zoo, or that of a folder or a file."""
    path = Path(args.start)
    return path.parent.name if path.name == "potential.safetensors" else path.stem


def main() -> None:
    args = parse()
    comparison = COMPARISONS[args.comparison]
    args.start = args.start or comparison.start
    chosen = [(name, n) for name, n in comparison.runs if name in (args.sets or comparison.sets)]
    runs = [Run(name, n, arm, seed) for seed in range(args.seeds) for arm in COMMANDS for name, n in chosen]
    if not args.tables_only:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda run: train(args, comparison, run), runs))
    args.out = args.out or Path(f"docs/results/from-{args.comparison}.md")
    results = {run: read(run.folder(args)) for run in runs if (run.folder(args) / "metrics.json").exists()}
    args.out.write_text(to_markdown(results, args, comparison), encoding="utf-8")
    rows = [run._asdict() | found for run, found in results.items()]
    args.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("comparison", choices=COMPARISONS)
    add("--start", default=None, help="another start: a potential file or a name of the zoo")
    add("--sets", nargs="+", default=[], metavar="NAME", help="only these data")
    add("--seeds", type=int, default=2, help="each with a split of its own")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    add("--tables-only", action="store_true", help="train nothing; write the page of what is finished")
    add("--work", type=Path, default=Path("runs/from-start"), help="folder of the runs; what is finished is kept")
    add("--out", type=Path, default=None, help="the page, docs/results/from-COMPARISON.md; a JSON file goes beside it")
    return parser.parse_args()


def train(args: argparse.Namespace, comparison: Comparison, run: Run) -> None:
    """One training by mdpot's own command, unless it is finished."""
    out = run.folder(args)
    if (out / "metrics.json").exists():
        return
    file = Path(os.environ["MDPOT_DATA"]) / comparison.sets[run.data][0]
    command = [sys.executable, "-m", "mdpot", *COMMANDS[run.arm], "--data", file, "--seed", run.seed, "--out", out]
    command += ["--threads", 1, "--device", "cpu", "--resume"]
    command += ["--from", find_model(args.start)] if run.arm == "start" else []
    command += ["--set", f"data.max_train_frames={run.frames or 'none'}"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def read(folder: Path) -> dict[str, float]:
    """Test errors in meV, and seconds of training."""
    errors = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["errors"]
    logs = [path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*/metrics.jsonl")]
    found = {key: errors["test"][key] for key in COLUMNS if key in errors["test"]}
    seconds = sum(json.loads(lines[-1])["seconds"] for lines in logs)
    return found | {"trained": errors["train"]["n_frames"], "seconds": seconds}


def to_markdown(results: dict[Run, dict[str, float]], args: argparse.Namespace, comparison: Comparison) -> str:
    arms, start = list(COMMANDS), start_name(args)
    commands = [
        f"`mdpot {' '.join(COMMANDS[arm])}{f' --from {start}' if arm == 'start' else ''}` ({arm})" for arm in arms
    ]
    columns = {key: text for key, text in COLUMNS.items() if any(key in found for found in results.values())}
    titles = [f"{text}, {' | '.join(arms)} | {arms[-1]} / {arms[0]}" for text in columns.values()]
    lines = [
        f"# Few frames, from scratch and from a start that knows {comparison.knows}",
        "",
        wrapped(
            f"Test errors by {', '.join(commands)}. The start has seen none of these data. Means over seeds, "
            "each with its own split, and their standard errors; the ratios are of trainings with one split."
        ),
        "",
        f"| data | training frames | seeds | {' | '.join(titles)} |",
        "|---|---:|---:|" + "---:|" * ((len(arms) + 1) * len(columns)),
    ]
    for name, n in comparison.runs:
        seeds = [seed for seed in range(args.seeds) if all((name, n, arm, seed) in results for arm in arms)]
        by_arm = {arm: [results[Run(name, n, arm, seed)] for seed in seeds] for arm in arms}
        if not seeds:
            continue
        cells = [f"{name} ({comparison.sets[name][1]})", f"{by_arm[arms[-1]][0]['trained']:.0f}", str(len(seeds))]
        for key in columns:
            found = {arm: [errors[key] for errors in by_arm[arm] if key in errors] for arm in arms}
            ratios = [last / first for first, last in zip(found[arms[0]], found[arms[-1]], strict=True)]
            cells += [spread(found[arm]) for arm in arms] + [spread(ratios)]
        lines.append(f"| {' | '.join(cells)} |")
    seconds = {arm: [r["seconds"] for run, r in results.items() if run.arm == arm] for arm in arms}
    took = ", ".join(f"{statistics.median(times):.0f} s ({arm})" for arm, times in seconds.items() if times)
    lines += ["", wrapped(f"A training takes {took}, medians, one thread of a machine that others use.")]
    lines += ["", f"`python benchmarks/from_start.py {args.comparison}` writes this page."]
    return "\n".join(lines) + "\n"


def wrapped(text: str) -> str:
    return fill(text, 118, break_on_hyphens=False)


def spread(values: list[float]) -> str:
    """A mean, with its standard error if there are several; or nothing."""
    if not values:
        return ""
    error = standard_error(np.array(values))
    return f"{statistics.fmean(values):.3g}" + ("" if error is None else f" ± {error:.2g}")


if __name__ == "__main__":
    main()
