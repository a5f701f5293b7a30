"""Ctrl-C and SIGTERM as a request that long work answers when its state is safe."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Work ended early because it was asked to; its state is saved."""


class StopSignal:
    """Inside the block, the first SIGINT or SIGTERM sets `requested`; a second one stops at once.

    >>> with StopSignal() as stop:
    ...     while not stop.requested:
    ...         work()
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> StopSignal:
        # Python allows handlers in the main thread only; elsewhere a signal keeps its usual meaning.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
