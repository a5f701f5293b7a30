"""Who hears how a run goes: nobody by default, a terminal when the command line runs it."""

from __future__ import annotations

import time

from mdpot.training.kept import Tell
from mdpot.training.trainer import Report


class Listener:
    """Told of what happens in a run. This one is silent; the command line's prints."""

    def note(self, text: str) -> None:
        """One line worth knowing."""

    def progress(self, stage: str, report: Report) -> None:
        """Where a stage ("label", "pretrain", "finetune") stands: after validations and every few seconds between."""


SILENT = Listener()


def labelling(listener: Listener) -> Tell:
    """Tells the listener every two seconds how many frames a force field has labelled, and at the end."""
    began = heard = time.perf_counter()

    def tell(done: int, n: int) -> None:
        nonlocal heard
        if done == n or time.perf_counter() - heard > 2.0:
            heard = time.perf_counter()
            listener.progress("label", Report(done, n, heard - began, {}))

    return tell
