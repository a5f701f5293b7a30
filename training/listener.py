"""Who hears how a run goes: nobody by default, a terminal when the command line runs it."""

from __future__ import annotations

from mdpot.training.trainer import Report


class Listener:
    """Told of what happens in a run. This one is silent; the command line's prints."""

    def note(self, text: str) -> None:
        """One line worth knowing."""

    def progress(self, stage: str, report: Report) -> None:
        """Where a stage ("label", "pretrain", "finetune") stands: after validations and every few seconds between."""
