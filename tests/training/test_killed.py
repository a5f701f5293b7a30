"""A training that is killed at any time, and resumed until it is done, ends as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot.training.folder import LOCK

from .conftest import SMALL, assert_same_weights, without_clock

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
# Steps slow enough to be hit, states often enough to be hit while they are written.
KEYS = (
    "pretrain.objective=mask", "pretrain.max_steps=6", "pretrain.eval_every=2", "pretrain.batch_frames=4",
    "finetune.max_steps=8", "finetune.eval_every=2", "finetune.batch_frames=4", "finetune.ema_decay=0.9",
    "model.hyperparameters.width=8", "data.download=false", *(f"model.hyperparameters.{key}" for key in SMALL["tide"]),
)  # fmt: skip
# Imports once and then forks a run for each line of its input, so that kills cost no imports. SIGINT is taken whatever
# the test itself inherited: in the background of a shell it is ignored.
SERVER = """
import os, signal, sys, time, torch, torch._dynamo
import mdpot.training.run, mdpot.training.report, mdpot.cli.progress, mdpot.cli.train, mdpot.cli
torch.set_num_threads(1)
mdpot.training.report.new_figure(1)
for line in sys.stdin:
    wait, number, *words = line.split()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        mdpot.cli.main(sys.argv[2:] + words)
    end, ended, status = time.monotonic() + float(wait), 0, 0
    while not ended and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        os.kill(child, int(number))
        status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Runs:
    """Runs of one training, in processes that may be killed."""

    def __init__(self, data: Path, log: Path) -> None:
        keys = [word for key in KEYS for word in ("--set", key)]
        self.command = ["train", "water-rpbe", "--preset", "plain", "--data", str(data), "--device", "cpu", *keys]
        self.log = log
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER, str(log), *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, out: Path, wait: float = 600.0, number: int = signal.SIGKILL, resume: bool = True) -> int:
        """The exit code of a run that gets a signal after `wait` seconds, if it has not ended then."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{wait} {int(number)} --out {out}{' --resume' if resume else ''}\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()


@pytest.fixture(scope="module")
def runs(small_file: Path, tmp_path_factory: pytest.TempPathFactory):
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    made = Runs(small_file, tmp_path_factory.mktemp("log") / "log.txt")
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The run that nothing stopped, and how long it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    began = time.monotonic()
    assert runs.run(out) == 0, runs.log.read_text()
    return out, time.monotonic() - began


def facts(out: Path) -> dict[str, Any]:
    return without_clock(json.loads((out / "metrics.json").read_text()))


def log_of(out: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(out: Path, whole: Path) -> None:
    for name in ("pretrained.safetensors", "potential.safetensors"):
        assert_same_weights(out / name, whole / name)
    assert facts(out) == facts(whole)
    for stage in ("pretrain", "finetune"):
        assert log_of(out, stage) == log_of(whole, stage)
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert names == {str(path.relative_to(whole)) for path in whole.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_killed_at_any_time(runs: Runs, whole: tuple[Path, float], tmp_path: Path, number: signal.Signals) -> None:
    n = int(os.environ.get("MDPOT_KILLS", "3"))
    rng = np.random.default_rng(int(number))
    out, kills, codes = whole[0], 0, set()
    for k in range(n):
        run = tmp_path / f"run{k}"
        for attempt in range(60):
            # Often early, where a folder is made; later ones give the run time to get on.
            longest = whole[1] * min(1.0, (0.02, 0.2, 0.5, 1.0)[attempt % 4] * (1 + attempt / 8))
            # With --resume or, where nothing was saved yet, without.
            begun = any(run.rglob("last.pt"))
            code = runs.run(run, rng.uniform(0, longest), number, resume=begun or bool(rng.integers(2)))
            if code == 0:
                break
            kills += 1
            codes.add(code)
            said = runs.log.read_text()
            assert "Traceback" not in said, said
            assert code in (-number, 130), said
        assert runs.run(run) == 0, runs.log.read_text()
        assert_same_run(run, out)
    assert kills >= n
    print(f"{number.name}: {kills} kills of {n} runs, exit codes {sorted(codes)}")


def test_two_processes_do_not_share_a_folder(runs: Runs, whole: tuple[Path, float], tmp_path: Path) -> None:
    from mdpot.files import locked

    out = tmp_path / "run"
    with locked(out / LOCK, wait=False) as ours:
        assert ours
        assert runs.run(out, resume=False) == 2
        assert f"error: another process runs in {str(out)!r}" in runs.log.read_text()
        assert [path.name for path in out.iterdir()] == [LOCK]
    # A lock that a dead process left is none.
    assert runs.run(out) == 0, runs.log.read_text()
    assert_same_run(out, whole[0])
