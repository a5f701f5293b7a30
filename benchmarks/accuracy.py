"""Trains mdpot and peers for the same time on the same frames, tests and times them, on one machine. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from accuracy_data import SEED
from accuracy_worker import ENVIRONMENT, RESULT
from trainers import TRAINERS, Trainer

DEFAULT = ("mdpot", "mace", "tensornet", "painn")
N_WATERS = 64
ROUNDS = 7
BLOCK = 0.4  # seconds that one contender runs in a round, at least one call


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    # Before torch is imported, here and in the processes that train: other libraries read it when they load.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ.update(ENVIRONMENT)
    warnings.simplefilter("ignore")  # peers have much to say about torch
    trained, missing = {}, {}
    for name in args.contenders:
        try:
            trained[name] = train(name, args)
        except subprocess.CalledProcessError as error:
            missing[name] = Path(error.output).read_text(encoding="utf-8").strip().split("\n")[-1][:200]
            say(f"{name}: failed, see {error.output}: {missing[name]}")
    if not trained:
        raise SystemExit("nothing was trained, so there is nothing to compare")
    from accuracy_report import draw, to_markdown
    from speed_report import describe_machine

    times = time_steps({name: folder_of(name, args) / "final" for name in trained}, args)
    machine = describe_machine(args.threads)
    contenders = [{"name": name, "label": TRAINERS[name].label, **trained[name], **times[name]} for name in trained]
    result = {"minutes": args.minutes, "seed": SEED, "machine": machine, "contenders": contenders, "missing": missing}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(args.out.with_suffix(".png"), result)
    text = to_markdown(result, args.out.with_suffix(".png").name)
    args.out.write_text(text, encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n" + text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=6.5, help="of training for each contender")
    add("--threads", type=int, default=2)
    names = list(TRAINERS)
    add("--contenders", nargs="+", default=DEFAULT, choices=names, metavar="NAME", help=", ".join(names))
    add("--train-frames", type=int, default=None, help="train on fewer frames, for a trial")
    add("--work", type=Path, default=Path("runs/accuracy"), help="folder of the runs; finished ones are kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file and a picture go beside it")
    return parser.parse_args(arguments)


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """The folder of a contender's runs; another budget has another."""
    frames = "" if args.train_frames is None else f"-{args.train_frames}frames"
    return args.work.resolve() / f"{name}-{args.minutes:g}min-{args.threads}threads{frames}"


def train(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A pilot that tells how much fits into the time, then the training whose schedule ends with it.

    Raises:
        CalledProcessError: one of the two did not end well; its output is the log file.
    """
    trainer, folder = TRAINERS[name], folder_of(name, args)
    pilot = run(name, "pilot", trainer.pilot, args)
    length = max(1, round(trainer.pilot * 60 * args.minutes / pilot["seconds"]))
    say(f"{name}: {trainer.pilot} {trainer.unit} took {pilot['seconds']:.1f} s, so {length}")
    result = run(name, "final", length, args)
    force = result["errors"]["force_rmse"]
    say(f"{name}: {result['seconds']:.0f} s, force RMSE {force:.1f} meV/Å ({folder})")
    return result


def run(name: str, stage: str, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """One training in a process of its own, or what it left if it is done."""
    folder = folder_of(name, args)
    out, log = folder / stage, folder / f"{stage}.log"
    if not (out / RESULT).is_file():
        shutil.rmtree(out, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        program = Path(__file__).with_name("accuracy_worker.py")
        command = [sys.executable, "-W", "ignore", str(program), name, "--length", str(length), "--out", str(out)]
        command += ["--threads", str(args.threads)] + (["--pilot"] if stage == "pilot" else [])
        command += [] if args.train_frames is None else ["--train-frames", str(args.train_frames)]
        with log.open("w") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, output=str(log))
    return json.loads((out / RESULT).read_text(encoding="utf-8"))


def time_steps(folders: dict[str, Path], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Milliseconds per energy and forces of 64 waters, at new positions in every call, as `speed.py` takes them.

    All take turns in an order drawn anew in each round. Neighbor lists are included.

    Returns:
        For each: "n_atoms", "ms" of each round, "median_ms", "quartiles_ms".
    """
    import numpy as np
    import torch
    from contenders import Contender, through_calculator
    from speed import warm_up
    from start import make_start

    from mdpot.zoo import ZOO, find_model

    torch.set_num_threads(args.threads)
    start = make_start(find_model(next(iter(ZOO))), N_WATERS, SEED)
    runs, calls = {}, {}
    for name, folder in folders.items():
        trainer: Trainer = TRAINERS[name]
        runs[name] = through_calculator(trainer.calculator(folder, trainer.settings, True), start)
        each = warm_up(Contender(name, trainer.label, "peer", runs[name], None, 0.0))
        calls[name] = max(1, round(BLOCK / each))
        say(f"{name}: {1e3 * each:.0f} ms for {3 * N_WATERS} atoms")
    ms: dict[str, list[float]] = {name: [] for name in runs}
    rng = np.random.default_rng(SEED)
    for _ in range(ROUNDS):
        for name in rng.permutation(list(runs)):
            begin = time.perf_counter()
            runs[name](calls[name])
            ms[name].append(1e3 * (time.perf_counter() - begin) / calls[name])
    middle = {name: np.percentile(taken, [25, 50, 75]).tolist() for name, taken in ms.items()}
    return {
        name: {"n_atoms": 3 * N_WATERS, "ms": ms[name], "median_ms": median, "quartiles_ms": [low, high]}
        for name, (low, median, high) in middle.items()
    }


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
