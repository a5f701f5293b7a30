"""What SIGINT and SIGTERM do to long work."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mdpot.stopping import StopSignal

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_the_first_is_a_request_and_the_second_stops(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@BOTH
def test_at_once(number: signal.Signals) -> None:
    stop = StopSignal(at_once=True)
    with pytest.raises(KeyboardInterrupt), stop:
        os.kill(os.getpid(), number)
    assert stop.requested


def test_in_the_background_only_sigterm_is_heard() -> None:
    """As under `nohup mdpot … &`, where the shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_signals_keep_their_meaning() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopSignal():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
