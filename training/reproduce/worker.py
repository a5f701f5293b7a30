"""One run in a process of its own, which saves its state and ends when its input closes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import mdpot
from mdpot.errors import MdpotError
from mdpot.stopping import Stopped
from mdpot.training import folder as files
from mdpot.training.child import read_task, start_child
from mdpot.training.config import Recipe, recipe_to_dict
from mdpot.training.listener import Listener
from mdpot.training.reproduce.grid import RESULTS, Run, Work, folder_of, log_of, outcome_of
from mdpot.training.trainer import Diverged, Report


class Worker:
    """A run in another process; see `mdpot.training.reproduce.grid.Job`."""

    def __init__(self, task: dict[str, Any], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as said:
            module, threads = "mdpot.training.reproduce.worker", task["threads"]
            self._process = start_child(module, task, threads, out=said, errors=subprocess.STDOUT)
        assert self._process.stdin is not None
        self._input = self._process.stdin

    def running(self) -> bool:
        if self._process.poll() is None:
            return True
        self._input.close()
        return False

    def stop(self) -> None:
        self._input.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()


def launch(run: Run, out: Path, work: Work) -> Worker:
    """Starts a run in a process of its own."""
    before = None
    if run.parent is not None:
        file = files.PRETRAINED if run.parent.kind == "pretrain" else files.POTENTIAL
        before = str((folder_of(run.parent, out) / file).resolve())
    task = {
        "kind": run.kind,
        "recipe": recipe_to_dict(run.recipe),
        "seed": run.seed,
        "data": None if work.data is None else str(work.data.resolve()),
        "out": str(folder_of(run, out).resolve()),
        "outcome": str(outcome_of(run, out).resolve()),
        "from_file": before,
        "device": work.device,
        "threads": work.threads,
    }
    return Worker(task, log_of(run, out))


class LogListener(Listener):
    """Writes what it hears to a file, a line for each validation."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def note(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()

    def progress(self, stage: str, report: Report) -> None:
        numbers = {k: v for k, v in report.numbers.items() if k.startswith("val/")}
        if numbers:
            self.note(
                f"{stage} {report.step}/{report.n_steps}, {report.seconds:.0f} s: "
                + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())
            )


def main() -> None:
    task = read_task(lambda: os.kill(os.getpid(), signal.SIGTERM))
    import torch

    torch.set_num_threads(task["threads"])
    do(task, LogListener(sys.stdout))


def do(task: dict[str, Any], listener: Listener) -> None:
    """Does a task, and writes beside its folder how it ended."""
    outcome = Path(task["outcome"])
    before = json.loads(outcome.read_text()).get("seconds", 0.0) if outcome.is_file() else 0.0
    began = time.perf_counter()
    status, message = "finished", ""
    try:
        _run(task, listener)
    except Stopped:
        status = "stopped"
    except Diverged as error:
        status, message = "diverged", str(error)
    except MdpotError as error:
        status, message = "failed", str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        status = "failed"
        listener.note(traceback.format_exc())
    if message:
        listener.note(message)
    outcome.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
        outcome,
        {
            "status": status,
            "message": without_folders(message),
            "seconds": round(before + time.perf_counter() - began, 1),
            "threads": task["threads"],
            "device": task["device"],
            "commit": commit(),
            "versions": files.versions(),
        },
    )


def commit() -> str:
    """The commit of the checkout this code is in, "+" where it was changed since; else the version."""
    root = Path(mdpot.__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return f"version {mdpot.__version__}"
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20
            ).stdout
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return f"version {mdpot.__version__}"
    return head.strip() + ("+" if changes.strip() else "")


def without_folders(text: str) -> str:
    """The text with the folders of its absolute paths left out: tables are made to be passed on."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\",;]+/)+", "", text)


def _run(task: dict[str, Any], listener: Listener) -> None:
    out, kind = Path(task["out"]), task["kind"]
    recipe = Recipe.model_validate(task["recipe"])
    if kind == "dynamics":
        from mdpot.training.reproduce.dynamics import time_dynamics

        out.mkdir(parents=True, exist_ok=True)
        files.write_json(out / RESULTS[kind], time_dynamics(Path(task["from_file"]), task["device"], task["threads"]))
        return
    from mdpot.training.run import run_finetune, run_pretrain, run_train

    common: dict[str, Any] = {
        "data": task["data"] and Path(task["data"]),
        "out": out,
        "seed": task["seed"],
        "device": task["device"],
        "resume": (out / files.RUN).is_file(),
        "listener": listener,
    }
    if kind == "pretrain":
        run_pretrain(recipe, **common)
    elif kind == "finetune":
        run_finetune(recipe, from_file=Path(task["from_file"]), **common)
    else:
        run_train(recipe, **common)


if __name__ == "__main__":
    main()
