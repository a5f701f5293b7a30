"""Ctrl-C and SIGTERM: as a request that long work answers when its state is safe, or at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Work ended early because it was asked to; its state is saved."""


class StopSignal:
    """Inside the block, the first SIGINT or SIGTERM sets `requested`; a second one raises KeyboardInterrupt.

    A SIGINT that was ignored before stays so: a shell that starts work in the background (`nohup mdpot … &`) keeps
    the terminal's Ctrl-C from it. SIGTERM is always heard. What a block around this one was asked counts here too.

    >>> with StopSignal() as stop:
    ...     while not stop.requested:
    ...         work()

    Args:
        at_once: whether the first one raises KeyboardInterrupt already; `requested` then tells that it came, where the
            exception is lost, as on its way through C++.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.requested = False
        self._at_once = at_once
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._at_once:
            self.requested = True
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> StopSignal:
        # Python allows handlers in the main thread only; elsewhere a signal keeps its usual meaning.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                around = getattr(before, "__self__", None)
                self.requested |= isinstance(around, StopSignal) and around.requested
                if before is None or (number == signal.SIGINT and before == signal.SIG_IGN):
                    continue  # None: a handler that is not Python's, which could not be put back
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
