"""How many threads there are, also while torch itself takes a single one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_granted: list[int] = []


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
