"""Processes that do a part of the work of this one, and end when it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start_child(
    module: str, task: dict[str, Any], threads: int, out: int | IO[str], errors: int | None = None
) -> subprocess.Popen[str]:
    """Runs a module in a process of its own; Ctrl-C, which reaches this process alone, does not end it.

    Args:
        module: which calls `read_task` first.
        task: for it, JSON-like.
        threads: of its libraries.
        out, errors: where its standard output and errors go, as `subprocess.Popen` takes them.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=errors,
        text=True,
        start_new_session=True,
        env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(task) + "\n")
    child.stdin.flush()
    return child


def read_task(at_the_end: Callable[[], object]) -> dict[str, Any]:
    """The task of this process, the first line of its input.

    Args:
        at_the_end: called, in a thread, when the input closes, by the will of the process that started this one or by
            its death.
    """
    task = json.loads(sys.stdin.readline())

    def wait() -> None:
        sys.stdin.read()
        at_the_end()

    threading.Thread(target=wait, daemon=True).start()
    return task
