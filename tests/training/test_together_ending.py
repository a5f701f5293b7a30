"""Whole runs of several processes, and that whatever ends one of them ends them all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.stopping import Stopped
from mdpot.training.config import FinetuneConfig
from mdpot.training.objectives import Labels
from mdpot.training.process import ProcessLost
from mdpot.training.together import SOLO, together

from .conftest import SMALL, STAGE, read_log
from .teams import StopAt, assert_same, new_network, train

KEYS = (
    "pretrain.objective=none", "finetune.optimizer=adamw", "finetune.max_steps=8", "finetune.eval_every=4",
    "finetune.batch_frames=5", "model.hyperparameters.width=8", "data.download=false",
    *(f"model.hyperparameters.{key}" for key in SMALL["tide"]),
)  # fmt: skip


def command(data: Path, out: Path, *more: str) -> list[str]:
    keys = [word for key in KEYS for word in ("--set", key)]
    words = ["train", "water-rpbe", "--preset", "plain", "--data", str(data), "--device", "cpu", "--out", str(out)]
    return ["-m", "mdpot", *words, *keys, *more]


def test_the_command_and_torchrun_do_what_one_process_does(small_file: Path, tmp_path: Path) -> None:
    alone = CliRunner().invoke(main, command(small_file, tmp_path / "one")[2:])
    assert alone.exit_code == 0, alone.output
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for name, before, more in (("two", (), ("--devices", "2")), ("torchrun", torchrun, ())):
        words = command(small_file, tmp_path / name, *more)
        done = subprocess.run([sys.executable, "-W", "ignore", *before, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Gloo" not in done.stdout
        assert done.stdout.count("report: ") == 1, done.stdout
        assert "2 processes train together" in done.stderr
    goal = read_log(tmp_path / "one" / "finetune")
    for name in ("two", "torchrun"):
        for line, wanted in zip(read_log(tmp_path / name / "finetune"), goal, strict=True):
            assert line == pytest.approx(wanted, rel=1e-3)  # single precision
        assert {f.name for f in (tmp_path / name).iterdir()} == {f.name for f in (tmp_path / "one").iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_when_the_first_process_ends(small_file: Path, tmp_path: Path, number: int) -> None:
    """The others write to the same standard error: it ends when the last of them is gone."""
    words = command(small_file, tmp_path / "run", "--devices", "2", "--set", "finetune.max_steps=1000000")
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        said = ""
        while "finetune" not in said:  # it trains
            line = run.stderr.readline()
            assert line, said
            said += line
        run.send_signal(number)
        said += run.stderr.read()
    assert run.returncode == (130 if number == signal.SIGTERM else -number)
    assert "Traceback" not in said
    assert ("interrupted: stopped at step" in said) == (number == signal.SIGTERM)


def test_a_process_that_dies_ends_the_others(frames, stores, tmp_path: Path) -> None:
    stage = FinetuneConfig(**STAGE)
    goal, network = new_network(frames), new_network(frames)
    train(SOLO, goal, Labels(stage), stores, stage, tmp_path / "goal")
    with together(3, "cpu") as team:
        kill = StopAt(2, signal.SIGKILL, team.others[1].pid)
        with pytest.raises(ProcessLost, match=r"process 2 of the 3 .* was killed by SIGKILL.*--resume goes on"):
            train(team, network, Labels(stage), stores, stage, tmp_path / "run", kill)
    assert all(other.poll() is not None for other in team.others)
    network = new_network(frames)
    train(SOLO, network, Labels(stage), stores, stage, tmp_path / "run")
    assert_same(network, goal, tmp_path / "run", tmp_path / "goal")


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGKILL, ProcessLost), (signal.SIGTERM, Stopped)], ids=["killed", "stopped"]
)
def test_a_process_that_ends_before_it_trains(frames, stores, tmp_path: Path, number: int, kind: type) -> None:
    stage = FinetuneConfig(**STAGE)
    with together(2, "cpu") as team:
        team.others[0].send_signal(number)
        with pytest.raises(kind, match=r"process 1 of .*2 .*was (killed by SIGKILL|stopped)"):
            train(team, new_network(frames), Labels(stage), stores, stage, tmp_path)


HANGS = """
import sys, time
from mdpot.cli import main
from mdpot.cli.progress import TerminalListener
from mdpot.training import together

others, start = [], together._start
together.GRACE, together._start = 0.5, lambda *task: others.append(start(*task)) or others[-1]

def hang(listener, stage, report):
    others[0].kill()
    time.sleep(10_000)

TerminalListener.progress = hang
main(sys.argv[1:])
"""


def test_a_wait_without_end_is_ended(small_file: Path, tmp_path: Path) -> None:
    """The first process may wait, as GPUs do, for one that is gone, and never hear of it."""
    words = command(small_file, tmp_path / "run", "--devices", "2")[2:]
    done = subprocess.run([sys.executable, "-c", HANGS, *words], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "error: process 1 of the 2 that train together was killed by SIGKILL" in done.stderr
