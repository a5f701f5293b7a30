"""Several processes that train one network: how they begin, what they get to do, and how they end.

The first process does all of a run, as if it were alone. The others wait until it trains, get the network and the data
from it, and train along. They are started here, or by torchrun, on one machine or several.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[reportPrivateImportUsage]

from mdpot.device import pick_device
from mdpot.errors import MdpotError
from mdpot.stopping import Stopped, StopSignal
from mdpot.training.child import read_task, start_child
from mdpot.training.process import ALONE, Process, ProcessLost
from mdpot.training.state import Progress
from mdpot.training.trainer import Diverged, Report, fit

HERE = "127.0.0.1"
FOREVER = timedelta(days=30)  # a process that is stopped, or prepares data, is waited for; one that is gone is noticed
GRACE = 30.0  # seconds after which a process that is gone ends the first one, if that still waits for it
LOST, INTERRUPTED = 3, 130  # exit codes of a process that lost another one, and that was told twice to stop


@dataclass(frozen=True, eq=False)
class Team:
    """Who trains, as the first of the processes sees it; by default it is alone.

    Attributes:
        process: the first one.
        threads: of each process while they train; None leaves it as it is.
        others: those that were started here.
        join: called before they train.
    """

    process: Process = ALONE
    threads: int | None = None
    others: Sequence[subprocess.Popen[str]] = ()
    join: Callable[[], None] = field(default=lambda: None)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.process.size

    def fit(self, *, listen: Callable[[Report], None] = lambda report: None, **arguments: Any) -> Progress:
        """`mdpot.training.trainer.fit` in all processes; arguments, by name, and errors as there.

        Raises:
            ProcessLost: one of the processes is gone.
            Stopped: also where one of them was asked to stop before it could tell the others.
        """
        if self.size == 1:
            return fit(**arguments, listen=listen)
        with self._at_work():
            self.join()
            self.process.from_first(lambda: arguments)
            return fit(**arguments, listen=listen, process=self.process)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """While the block runs this process has its share of the threads, and the loss of another one ends it."""
        before, over = torch.get_num_threads(), threading.Event()
        torch.set_num_threads(self.threads or before)
        threading.Thread(target=self._watch, args=(over,), daemon=True).start()
        try:
            yield
        except ProcessLost as error:
            raise self._explained(error) from error
        finally:
            over.set()
            torch.set_num_threads(before)

    def _watch(self, over: threading.Event) -> None:
        """Ends this process where it waits, as on a GPU it may, for one that is gone."""
        while not over.wait(1.0):
            if any(other.poll() is not None for other in self.others) and not over.wait(GRACE):
                os.write(2, f"error: {self._explained(ProcessLost('another process ended.'))}\n".encode())
                os._exit(1)

    def _explained(self, error: ProcessLost) -> ProcessLost | Stopped:
        """What became of the processes that were started here; the error itself where they are well."""
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            for rank, other in enumerate(self.others, 1):
                code = other.poll()
                if code in (None, LOST):
                    continue
                if code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
                    return Stopped(f"process {rank} of {self.size} was stopped; the last validation's state is kept.")
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return ProcessLost(
                    f"process {rank} of the {self.size} that train together {how}. The last validation's state is "
                    "kept; --resume goes on, with any number of processes."
                )
            time.sleep(0.05)
        return error


SOLO = Team()


@contextmanager
def together(devices: int | None = None, device: str | None = None) -> Iterator[Team]:
    """The processes that train together while the block runs.

    Where torchrun started this process, they are its processes: in the first the block runs, the others serve it and
    exit.

    Args:
        devices: how many; None is one, or what torchrun says.
        device: "cpu": all share the cores; "cuda": each has a GPU; "cuda:0": all share this one; None takes GPUs where
            there are any.

    Raises:
        MdpotError: more processes than GPUs, or a number of them where torchrun gave one already.
    """
    started = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if started and int(os.environ["WORLD_SIZE"]) > 1:
        if devices is not None:
            raise MdpotError("--devices is for processes that mdpot starts; torchrun has its own --nproc-per-node.")
        with _by_torchrun(device) as team:
            yield team
    elif devices is None or devices == 1:
        yield SOLO
    else:
        with _started(devices, device) as team:
            yield team


@contextmanager
def _by_torchrun(device: str | None) -> Iterator[Team]:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = max(1, torch.get_num_threads() // here)
    process = Process(rank, size, str(_device_of(place, here, device)))
    with _group(process, _backend(device)):
        if rank > 0:
            torch.set_num_threads(threads)
            sys.exit(_follow(process))
        yield Team(process, threads)
        _dismiss(process)


@contextmanager
def _started(devices: int, device: str | None) -> Iterator[Team]:
    """Processes of this one; they join when they are needed, as importing torch takes seconds."""
    process = Process(0, devices, str(_device_of(0, devices, device)))
    threads = max(1, torch.get_num_threads() // devices)
    store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False)
    common = {"size": devices, "port": store.port, "backend": _backend(device)}
    others = [
        _start({**common, "rank": n, "device": str(_device_of(n, devices, device))}, threads) for n in range(1, devices)
    ]
    with ExitStack() as stack:
        stack.callback(_end, others)

        @cache
        def join() -> None:
            _await(store, others)
            stack.enter_context(_group(process, common["backend"], store))

        yield Team(process, threads, others, join)
        if join.cache_info().currsize:
            _dismiss(process)


def _await(store: Store, others: Sequence[subprocess.Popen[str]]) -> None:
    """Waits until the others are ready to train."""
    while not store.check([f"ready {rank}" for rank, _ in enumerate(others, 1)]):
        if any(other.poll() is not None for other in others):
            raise ProcessLost("another process ended before it trained.")
        time.sleep(0.02)


def _dismiss(process: Process) -> None:
    """Tells the others that there is nothing left to train."""
    with suppress(ProcessLost):  # all is done
        process.from_first(lambda: None)


def _start(task: dict[str, Any], threads: int) -> subprocess.Popen[str]:
    """One of the others: Ctrl-C reaches the first process alone, and that tells them."""
    return start_child("mdpot.training.together", task, threads, subprocess.DEVNULL)


def _end(others: Sequence[subprocess.Popen[str]]) -> None:
    """Closes the inputs of processes, at which they end if they have not yet."""
    for other in others:
        assert other.stdin is not None
        with suppress(OSError):
            other.stdin.close()
    for other in others:
        try:
            other.wait(timeout=10)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()


def _device_of(place: int, here: int, name: str | None) -> torch.device:
    """The device of one of the processes on a machine.

    Args:
        place: of the process, from 0.
        here: how many there are on the machine.
        name: as given by the user.
    """
    device = pick_device(name)
    if device.type not in ("cpu", "cuda"):
        raise MdpotError(f"several processes train on cpu or cuda; got --device {name}.")
    if device.type == "cpu" or device.index is not None:
        return device
    if here > torch.cuda.device_count():
        raise MdpotError(
            f"--devices must be at most the number of GPUs here, {torch.cuda.device_count()}; got {here}. "
            "Give --device cuda:0 to have all processes share one, or --device cpu."
        )
    return torch.device("cuda", place)


def _backend(device: str | None) -> str:
    """How the processes hear each other: over NCCL too where each has a GPU of its own."""
    asked = pick_device(device)
    return "cpu:gloo,cuda:nccl" if asked.type == "cuda" and asked.index is None else "gloo"


@contextmanager
def _group(process: Process, backend: str, store: Store | None = None) -> Iterator[None]:
    """While the block runs the processes hear each other."""
    if process.device.startswith("cuda"):
        torch.cuda.set_device(process.device)
    if store is not None:
        # Gloo would look up the name of the machine, which not every machine can.
        loops = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}
        if loops:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loops.pop())
    with _quiet():
        dist.init_process_group(backend, store=store, rank=process.rank, world_size=process.size, timeout=FOREVER)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Gloo says when it connects from the standard output, where the results of the command go."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _follow(process: Process) -> int:
    """Joins in whatever the first process trains until it has no more; returns the exit code."""
    try:
        with StopSignal():
            while (arguments := process.from_first(dict)) is not None:
                with suppress(Stopped, Diverged):  # the first process says so
                    fit(**arguments, process=process)
    except ProcessLost:
        return LOST
    except KeyboardInterrupt:  # asked twice
        return INTERRUPTED
    return 0


def _main() -> None:
    """One of the processes that `_started` starts."""
    task = read_task(lambda: os._exit(LOST))
    process = Process(task["rank"], task["size"], task["device"])
    store = TCPStore(HERE, task["port"], is_master=False)
    store.set(f"ready {process.rank}", "")
    with _group(process, task["backend"], store):
        code = _follow(process)
    sys.exit(code)


if __name__ == "__main__":
    _main()
