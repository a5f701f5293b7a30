"""How many cores and threads there are, also while torch itself takes a single one; and how threads share what is not
for two."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_granted: list[int] = []


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """The number that was given to torch; `torch_in_one_thread` does not change it."""
    return _granted[0] if _granted else torch.get_num_threads()


@contextmanager
def torch_in_one_thread() -> Iterator[None]:
    """While the block runs torch computes in one thread: where the kernels do the work, what is left to torch are
    operations so small that waking another thread takes longer, on a busy machine many times."""
    _granted.append(available_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        threads = _granted.pop()
        if not _granted:
            torch.set_num_threads(threads)


class Turns:
    """A lock for what threads share. Copies and pickles have one of their own, and in a forked child it is free: the
    thread that held it is not there.

    >>> with turns:
    ...     compute()
    """

    def __init__(self) -> None:
        self._renew()
        _TURNS.add(self)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()


_TURNS: weakref.WeakSet[Turns] = weakref.WeakSet()


def _renew_all() -> None:
    for turns in _TURNS:
        turns._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
