"""Runs that a page of earlier tells of: finished, with their errors, though their folders may be gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdpot.errors import MdpotError
from mdpot.training.reproduce.experiments import Cell, Selection
from mdpot.training.reproduce.grid import Run, State
from mdpot.training.reproduce.numbers import settings_of
from mdpot.training.reproduce.results import Outcome


@dataclass(frozen=True)
class Recorded:
    """What earlier pages know of the runs of some cells.

    Attributes:
        outcomes: of finished runs, by folder.
        pages: of each page that gave some, their folders and the page's processes, see
            `mdpot.training.reproduce.numbers.processes`; these may be of more runs than were taken over.
    """

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    pages: Sequence[tuple[Set[str], Mapping[str, Any]]] = ()

    def processes_of(self, runs: Iterable[Run]) -> list[Mapping[str, Any]]:
        """The processes of the pages that gave one of some runs."""
        folders = {run.folder for run in runs}
        return [processes for given, processes in self.pages if given & folders]


def read_recorded(
    paths: Sequence[Path], cells: Iterable[Cell], selection: Selection, done: Set[str] = frozenset()
) -> Recorded:
    """The finished runs of pages of earlier that are runs of some cells too.

    A run is the same where its folder, the budget, what was changed by hand, and all settings that the page tells
    are the same. Where several pages have it, the first counts.

    Args:
        paths: the JSON files of the pages.
        cells: what is asked now.
        selection: of what they are a part.
        done: folders of runs that are finished here; pages are not asked for them.

    Raises:
        MdpotError: a file is not there, or is no page's JSON.
    """
    wanted = {run.folder: (run, settings_of(cell)) for cell in cells for run in cell.runs if run.folder not in done}
    found: dict[str, Outcome] = {}
    pages = []
    for path in paths:
        content = _page(path)
        asked = content["settings"]
        if asked["budget"] != selection.budget or list(asked["overrides"]) != list(selection.overrides):
            continue
        new = {
            kept["folder"]: _outcome(wanted[kept["folder"]][0], there, kept, content["data"].get(there["data"], {}))
            for there in content["cells"]
            for kept in there["runs"]
            if kept["status"] == "finished" and _same(wanted.get(kept["folder"]), there)
        }
        if given := new.keys() - found.keys():
            pages.append((given, content["processes"]))
        found = new | found
    return Recorded(found, pages)


def _page(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MdpotError(f"cannot read {str(path)!r}: {error.strerror}.") from None
    except ValueError as error:
        raise MdpotError(f"{str(path)!r} is no JSON: {error}.") from None
    if not isinstance(content, dict) or {"settings", "data", "processes", "cells"} - content.keys():
        raise MdpotError(f"{str(path)!r} is not the JSON of a page of `mdpot reproduce`.")
    return content


def _same(wanted: tuple[Run, dict[str, Any]] | None, there: Mapping[str, Any]) -> bool:
    """Whether a cell of a page was made with the settings that are asked; earlier pages may lack some."""
    return wanted is not None and all(there[key] == value for key, value in wanted[1].items() if key in there)


def _outcome(run: Run, there: Mapping[str, Any], kept: Mapping[str, Any], data: Mapping[str, Any]) -> Outcome:
    """A run as its page has it: with its errors and the lengths of its stages, without its curves."""
    errors = {"train": {"n_frames": there["frames_trained_on"]}, **kept["errors"]}
    seconds = {"pretrain": kept["pretrain_seconds"], "finetune": kept["finetune_seconds"]}
    logs = {stage: {} if spent is None else {"seconds": [spent]} for stage, spent in seconds.items()}
    metrics = {"errors": errors, **{key: kept[key] for key in ("finetune_seconds", "finetune_steps", "best_step")}}
    state = State("finished", "", {})
    return Outcome(run, state, None, metrics, logs["finetune"], logs["pretrain"], data)
