"""Nothing that stops the training loop changes what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.heads import Potential
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.config import FinetuneConfig
from mdpot.training.objectives import Labels
from mdpot.training.state import BEST, LAST, LOG, Progress, State
from mdpot.training.trainer import fit

from .conftest import STAGE, new_potential, read_log, run


def assert_same_run(
    folder: Path, potential: Potential, progress: Progress, other: Path, expected: Potential, goal: Progress
):
    """Bit for bit."""
    assert read_log(folder) == read_log(other)
    for (name, a), b in zip(potential.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for field in ("step", "epoch", "batch", "best_loss", "best_step", "stale", "finished"):
        assert getattr(progress, field) == getattr(goal, field), field
    last, goal_last = (torch.load(f / LAST, weights_only=True) for f in (folder, other))
    for part in ("potential", "average"):
        if last[part] is not None:
            assert all(torch.equal(last[part][key], goal_last[part][key]) for key in last[part])


def send(number: int, at: int):
    """Sends this process a signal while batch `at` is prepared."""

    def happens(n: int) -> None:
        if n == at:
            os.kill(os.getpid(), number)

    return happens


def test_the_seed_is_all_that_is_random(tmp_path: Path, frames, stores) -> None:
    first, goal, _ = run(tmp_path / "a", frames, stores)
    torch.manual_seed(123)
    torch.rand(7)
    again, progress, _ = run(tmp_path / "b", frames, stores)
    assert_same_run(tmp_path / "b", again, progress, tmp_path / "a", first, goal)
    run(tmp_path / "c", frames, stores, seed=1)
    assert read_log(tmp_path / "c") != read_log(tmp_path / "a")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, frames, stores):
    """Runs without a stop, by their settings."""
    done: dict[str, Any] = {}

    def get(**changes: Any):
        key = str(sorted(changes.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("uninterrupted")
            potential, progress, _ = run(folder, frames, stores, **changes)
            done[key] = folder, potential, progress
        return done[key]

    return get


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])
@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("stops", [[1], [4], [5, 2], [13], [7, 3, 1]], ids=str)
def test_a_stop_changes_nothing(tmp_path, frames, stores, uninterrupted, optimizer, ema, stops: list[int]) -> None:
    changes = {"optimizer": optimizer, "ema_decay": ema}
    goal = uninterrupted(**changes)
    for n in stops:  # in the nth batch of this start
        with pytest.raises(Stopped, match=r"stopped at step \d+ of 14"):
            run(tmp_path, frames, stores, send(signal.SIGTERM, at=n), **changes)
    potential, progress, _ = run(tmp_path, frames, stores, **changes)
    assert_same_run(tmp_path, potential, progress, *goal)


def test_ctrl_c_stops_as_well_and_twice_at_once(tmp_path: Path, frames, stores, uninterrupted) -> None:
    with pytest.raises(Stopped, match="stopped at step 6"):
        run(tmp_path, frames, stores, send(signal.SIGINT, at=6))
    with pytest.raises(KeyboardInterrupt) as error:
        run(tmp_path, frames, stores, lambda n: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert not isinstance(error.value, Stopped)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


def test_a_stop_in_the_last_step_is_heard(tmp_path: Path, frames, stores, uninterrupted) -> None:
    """What comes after this stage does not begin."""
    with pytest.raises(Stopped, match="stopped at step 14 of 14"):
        run(tmp_path, frames, stores, send(signal.SIGTERM, at=14))
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


def test_signals_work_in_other_threads_as_if_nothing_were(tmp_path: Path) -> None:
    import threading

    seen = []

    def work() -> None:
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_finished_run_stays_as_it_is(tmp_path: Path, frames, stores, uninterrupted) -> None:
    run(tmp_path, frames, stores)
    before = (tmp_path / LAST).read_bytes()
    potential, progress, objective = run(tmp_path, frames, stores)
    assert objective.n_prepared == 0
    assert (tmp_path / LAST).read_bytes() == before
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import importlib.util
spec = importlib.util.spec_from_file_location("helpers", Path(sys.argv[1]).with_name("conftest.py"))
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
from mdpot.training.state import State
frames, stores = torch.load(sys.argv[2], weights_only=False)

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

happens = None
if sys.argv[4] == "in a step":
    happens = lambda n: die() if n == 10 else None
elif sys.argv[4] == "before the state is saved":
    keep = State.save
    State.save = lambda state: die() if state.progress.step == 8 else keep(state)
else:
    write, states = Path.write_bytes, []
    def half(path, content):
        states.extend([path] if path.name.startswith(".last.") else [])
        write(path, content[:1000] if len(states) == 2 else content)
        if len(states) == 2:
            die()
    Path.write_bytes = half
helpers.run(Path(sys.argv[3]), frames, stores, happens, ema_decay=0.9)
"""


@pytest.mark.parametrize("when", ["in a step", "before the state is saved", "while the state is written"])
def test_kill_9_changes_nothing(tmp_path: Path, frames, stores, uninterrupted, when: str) -> None:
    torch.save((frames, stores), tmp_path / "data.pt")
    folder = tmp_path / "run"
    arguments = [__file__, str(tmp_path / "data.pt"), str(folder), when]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=120, cwd=Path.cwd()
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (folder / LAST).exists()
    potential, progress, objective = run(folder, frames, stores, ema_decay=0.9)
    assert objective.n_prepared == 14 - (8 if when == "in a step" else 4)
    assert_same_run(folder, potential, progress, *uninterrupted(ema_decay=0.9))


@pytest.mark.parametrize("broken", ["log", "save", "keep_best"])
def test_any_error_between_two_files_changes_nothing(
    tmp_path, frames, stores, uninterrupted, monkeypatch, broken
) -> None:
    original, calls = getattr(State, broken), []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(State, broken, fail)
        with pytest.raises(OSError, match="No space"):
            run(tmp_path, frames, stores)
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


@pytest.mark.parametrize("tail", ['{"step": 8, "ep', '{"step": 8, "epoch": 2}\n{"st', "\0\0\0", '{"no": 1}\n', "[1]\n"])
def test_a_log_that_was_cut_off(tmp_path: Path, frames, stores, uninterrupted, tail: str) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, frames, stores, send(signal.SIGTERM, at=6))
    with (tmp_path / LOG).open("a") as log:
        log.write(tail)
    potential, progress, _ = run(tmp_path, frames, stores)
    assert_same_run(tmp_path, potential, progress, *uninterrupted())


@pytest.mark.parametrize("name", [LAST, BEST])
@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_damaged_state_is_refused_in_one_line(tmp_path: Path, frames, stores, name: str, length: int) -> None:
    run(tmp_path, frames, stores)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:length] if length >= 0 else content[: len(content) + length])
    with pytest.raises(MdpotError, match=rf"{name}.*is damaged.*Remove") as error:
        run(tmp_path, frames, stores)
    assert "\n" not in str(error.value)


def test_a_state_of_another_network_is_refused(tmp_path: Path, frames, stores) -> None:
    run(tmp_path, frames, stores)
    stage = FinetuneConfig(**STAGE)  # type: ignore[arg-type]
    with pytest.raises(MdpotError, match=f"{LAST}.*of another network.*mark"):
        fit(new_potential(frames, width=16), Labels(stage), stores[0], stores[1], stage, tmp_path, 0)
