"""Trains mdpot and peers for the same time on the same frames, tests and times them, on one machine. See README.md."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_data import SEED, Frames
from accuracy_timing import crystal_start, say, time_steps, water_start
from accuracy_worker import ENVIRONMENT, RESULT
from trainers import OWN_TRAINERS, TRAINERS, Trainer

DEFAULT = ("mdpot", "mace", "tensornet", "painn")
OWN_DEFAULT = ("mdpot", "mace")
CLOCKS = {"wall": "seconds", "cpu": "cpu_seconds"}


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    # Before torch is imported, here and in the processes that train: other libraries read it when they load.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ.update(ENVIRONMENT)
    warnings.simplefilter("ignore")  # peers have much to say about torch
    plans = [Plan(args, *(Path(file) for file in text.split(","))) for text in args.data] or [Plan(args)]
    done = [train_all(plan) for plan in plans]
    compared = [compare(plan, *found) for plan, found in zip(plans, done, strict=True)]
    if args.data:
        import accuracy_own_report as report
    else:
        import accuracy_report as report
    from speed_report import describe_machine

    machine = describe_machine(args.threads)
    about = {"minutes": args.minutes, "clock": args.clock, "seed": SEED, "machine": machine}
    result = about | ({"data": compared} if args.data else compared[0])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report.draw(args.out.with_suffix(".png"), result)
    text = report.to_markdown(result, args.out.with_suffix(".png").name)
    args.out.write_text(text, encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n" + text)


def train_all(plan: Plan) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The results of the contenders by name, and why others have none."""
    trained, missing = {}, {}
    for name in plan.args.contenders:
        if plan.args.finished and not (plan.folder(name) / "final" / RESULT).is_file():
            continue
        try:
            trained[name] = train(name, plan)
        except subprocess.CalledProcessError as error:
            missing[name] = Path(error.output).read_text(encoding="utf-8").strip().split("\n")[-1][:200]
            say(f"{plan.title}, {name}: failed, see {error.output}: {missing[name]}")
    if not trained:
        raise SystemExit(f"{plan.title}: nothing was trained, so there is nothing to compare")
    return trained, missing


def compare(plan: Plan, trained: dict[str, dict[str, Any]], missing: dict[str, str]) -> dict[str, Any]:
    """What the result file holds of some frames: each contender with its errors and its time per step."""
    import torch

    torch.set_num_threads(plan.args.threads)
    folders = {name: plan.folder(name) / "final" for name in trained}
    if plan.data is None:
        start = water_start()
    else:
        first, frames = next(iter(trained)), Frames(plan.args.train_frames, plan.data, plan.more)
        start = crystal_start(frames, plan.trainers[first], folders[first])
    times = time_steps(plan.trainers, folders, start, plan.args.rounds)
    contenders = [{"name": n, "label": plan.trainers[n].label, **trained[n], **times[n]} for n in trained]
    named = {} if plan.data is None else {"name": plan.title, "more": plan.more and plan.more.name.split(".")[0]}
    return {**named, "contenders": contenders, "missing": missing}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=6.5, help="of training for each contender")
    add("--threads", type=int, default=2)
    add("--clock", choices=CLOCKS, default="wall", help="cpu: time at work, for machines that others use too")
    names = f"{', '.join(TRAINERS)}; with --data {', '.join(OWN_TRAINERS)}"
    add("--contenders", nargs="+", default=None, metavar="NAME", help=names)
    what = "frames of your own, with energies and forces, and maybe further ones for testing alone"
    add("--data", nargs="+", default=[], metavar="FILE[,FILE]", help=what)
    add("--train-frames", type=int, default=None, help="train on fewer frames, for a trial")
    add("--finished", action="store_true", help="train nothing: the page has those contenders that are finished")
    add("--rounds", type=int, default=7, help="in which steps are timed")
    add("--work", type=Path, default=Path("runs/accuracy"), help="folder of the runs; finished ones are kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file and a picture go beside it")
    args = parser.parse_args(arguments)
    known, default = (OWN_TRAINERS, OWN_DEFAULT) if args.data else (TRAINERS, DEFAULT)
    args.contenders = args.contenders or default
    if strange := [name for name in args.contenders if name not in known]:
        parser.error(f"--contenders must be of {', '.join(known)}; got {strange[0]!r}")
    return args


@dataclass(frozen=True)
class Plan:
    """What is trained on some frames.

    Attributes:
        args: of the command.
        data: the file with the frames; None takes the water.
        more: a file with further frames for testing; None where there is none.
    """

    args: argparse.Namespace
    data: Path | None = None
    more: Path | None = None

    @property
    def trainers(self) -> dict[str, Trainer]:
        return TRAINERS if self.data is None else OWN_TRAINERS

    @property
    def title(self) -> str:
        """The name of the file without its endings."""
        return "water" if self.data is None else self.data.name.split(".")[0]

    @property
    def digest(self) -> str:
        """Tells files of one name apart."""
        assert self.data is not None
        return hashlib.sha256(self.data.read_bytes()).hexdigest()[:8]

    def folder(self, name: str) -> Path:
        """The folder of a contender's runs; another budget has another."""
        args = self.args
        frames = "" if args.train_frames is None else f"-{args.train_frames}frames"
        clock = "" if args.clock == "wall" else f"-{args.clock}"
        work = args.work.resolve() if self.data is None else args.work.resolve() / f"{self.title}-{self.digest}"
        return work / f"{name}-{args.minutes:g}min{clock}-{args.threads}threads{frames}"


def train(name: str, plan: Plan) -> dict[str, Any]:
    """A pilot that tells how much fits into the time, then the training whose schedule ends with it.

    Raises:
        CalledProcessError: one of the two did not end well; its output is the log file.
    """
    trainer, clock = plan.trainers[name], CLOCKS[plan.args.clock]
    pilot = run(name, "pilot", trainer.pilot, plan)
    seconds = 60 * plan.args.minutes * (plan.args.threads if plan.args.clock == "cpu" else 1)
    length = max(1, round(trainer.pilot * seconds / pilot[clock]))
    say(f"{plan.title}, {name}: {trainer.pilot} {trainer.unit} took {pilot[clock]:.1f} s, so {length}")
    result = run(name, "final", length, plan)
    force = result["errors"]["force_rmse"]
    say(f"{plan.title}, {name}: {result[clock]:.0f} s, force RMSE {force:.1f} meV/Å ({plan.folder(name)})")
    return result


def run(name: str, stage: str, length: int, plan: Plan) -> dict[str, Any]:
    """One training in a process of its own, or what it left if it is done."""
    folder, args = plan.folder(name), plan.args
    out, log = folder / stage, folder / f"{stage}.log"
    if not (out / RESULT).is_file():
        shutil.rmtree(out, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        program = Path(__file__).with_name("accuracy_worker.py")
        command = [sys.executable, "-W", "ignore", str(program), name, "--length", str(length), "--out", str(out)]
        command += ["--threads", str(args.threads)] + (["--pilot"] if stage == "pilot" else [])
        command += [] if args.train_frames is None else ["--train-frames", str(args.train_frames)]
        command += [] if plan.data is None else ["--data", str(plan.data.resolve())]
        command += [] if plan.more is None else ["--more", str(plan.more.resolve())]
        with log.open("w") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, output=str(log))
    return json.loads((out / RESULT).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
