"""What a run shows while it works: a bar with rate and time left, a line for each validation; on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mdpot.training.listener import Listener
from mdpot.training.metrics import LOGGED, SHOWN
from mdpot.training.trainer import Report


class TerminalListener(Listener):
    """Prints what it hears. In a terminal a bar moves below the lines; elsewhere there are the lines alone.

    >>> with TerminalListener() as listener:
    ...     run_train(recipe, ..., listener=listener)
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TerminalListener:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """One line worth knowing."""
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, stage: str, report: Report) -> None:
        """Moves the bar; after a validation also prints its numbers as a line that stays."""
        pace, numbers = _pace(report), _numbers(report, "train")
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=report.n_steps, pace="", numbers="")
        for name, task in self._tasks.items():
            self._bar.update(task, visible=name == stage)
        task = self._tasks[stage]
        self._bar.update(task, completed=report.step, total=report.n_steps, pace=pace, numbers=numbers)
        if validated := _numbers(report, "val"):
            self.note(f"{stage:9}{report.step:>7,} of {report.n_steps:,}  {validated}  {pace}")


def _pace(report: Report) -> str:
    """Steps per second and the time left."""
    if report.step == 0 or report.seconds <= 0:
        return ""
    rate = report.step / report.seconds
    left = (report.n_steps - report.step) / rate
    return f"{rate:.3g} steps/s, {duration(left)} left" if left else f"{rate:.3g} steps/s"


def _numbers(report: Report, split: str) -> str:
    """The shown numbers of one split, joined; empty where the report has none."""
    found = ((LOGGED[key], report.numbers.get(f"{split}/{key}")) for key in SHOWN)
    return ", ".join(metric.sentence(value) for metric, value in found if value is not None)


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "12 s", "3:05 min", "2:10 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
