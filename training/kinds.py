"""Errors by kind of frame: what one row for all frames hides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from mdpot.training.data.frames import Frame, smallest_counts
from mdpot.training.evaluation import Evaluation
from mdpot.training.metrics import METRICS, Metric

COLUMNS = {
    "n_frames": METRICS["n_frames"],
    "n_trained": Metric("frames in training", "number of training frames of the kind", decimals=0),
    **{key: METRICS[key] for key in ("energy_mae", "force_mae", "force_rmse", "stress_mae")},
}
"""What tables show of a kind."""

MOST_ROWS = 10
#: A kind stands out by so many times the median error of all other frames,
FAR = 5.0
#: and if it has so many frames that this is no chance.
ENOUGH = 3
#: and if its error is no smaller than this, meV/atom and meV/Å: about how far DFT is converged.
LEAST = {"energy_mae": 1.0, "force_mae": 10.0}
#: Kinds that a sentence names.
NAMED = 3


def composition(frame: Frame) -> str:
    """The chemical formula; of a periodic frame the smallest, so that a cell and its supercells are of one kind."""
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    smallest = smallest_counts(counts, np.asarray(frame.pbc.any())).tolist()
    symbols = [chemical_symbols[z] for z in numbers]
    return Formula.from_dict(dict(zip(symbols, smallest, strict=True))).format("metal")


def _name(frame: Frame) -> str:
    return frame.kind or "unnamed"


WAYS = (_name, composition)
"""How the kind of a frame is told: by the name that its file gives it, or by what it is made of."""


def error_rows(
    results: Mapping[str, Evaluation],
    frames: Mapping[str, Sequence[Frame]],
    trained: Sequence[Frame] = (),
    most: int = MOST_ROWS,
) -> list[dict[str, Any]]:
    """The errors of each kind of frame, by the name that the file gives it, else by composition.

    Args:
        results: labels beside predictions for each set of frames.
        frames: these sets.
        trained: the training frames, where they are known.
        most: rows for a set; more kinds are one together, the last.

    Returns:
        For each set that has several kinds its rows, worst first: "frames", the name of the set, "kind", the errors,
        keys in `METRICS`, and "n_trained", how many training frames are of the kind.
    """
    counts = _counts(trained)
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        (way, members), whole = _shown(frames[name]), result.metrics()
        n_trained = dict(counts[way])
        tables = {kind: result.part(part).metrics() for kind, part in members.items()}
        kinds = sorted(tables, key=lambda kind: _excess(tables[kind], whole), reverse=True)
        if len(kinds) > most:
            rest = kinds[most - 1 :]
            kinds = [*kinds[: most - 1], together := f"{len(rest)} others together"]
            tables[together] = result.part(np.concatenate([members[kind] for kind in rest])).metrics()
            n_trained[together] = sum(n_trained.get(kind, 0) for kind in rest)
        known = {kind: {"n_trained": float(n_trained.get(kind, 0))} if trained else {} for kind in kinds}
        rows += [{"frames": name, "kind": kind, **tables[kind], **known[kind]} for kind in kinds]
    return rows


def about_outliers(
    results: Mapping[str, Evaluation], frames: Mapping[str, Sequence[Frame]], trained: Sequence[Frame] = ()
) -> list[str]:
    """The kinds whose errors are far above those of all other frames, a sentence for each set and label.

    Args:
        results: labels beside predictions for each set of frames; a kind is judged in the first that has enough of it.
        frames: these sets.
        trained: the training frames, where they are known.
    """
    counts = _counts(trained)
    judged: list[set[str]] = [set() for _ in WAYS]
    sentences = []
    for name, result in results.items():
        errors, ways = result.frame_errors(), [_members(frames[name], kind_of) for kind_of in WAYS]
        for key in LEAST:
            for members, known, before in zip(ways, counts, judged, strict=True):
                far, usual = _standing_out(errors, key, members)
                if new := [found for found in far if found.kind not in before]:
                    sentences.append(_sentence(name, key, new, usual, Counter() if frames[name] is trained else known))
                if far:
                    break  # compositions would tell the same as names
        for members, before in zip(ways, judged, strict=True):
            before |= {kind for kind, part in members.items() if len(part) >= ENOUGH}
    return sentences


def title_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """What `error_rows` are, in words."""
    sets = " and ".join(dict.fromkeys(row["frames"] for row in rows))
    return f"Errors in {sets} by kind of frame, worst first: by energy or force MAE, whichever is further above average"


def kinds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`error_rows` as a Markdown table."""
    heading, *cells = cells_of(rows)
    lines = [heading, ["---", *("---:" for _ in heading[1:])], *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cells_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """`error_rows` as text: the headings, then a row for each kind; the name of the set where there are several."""
    shown = [key for key in COLUMNS if any(key in row for row in rows)]
    several = len({row["frames"] for row in rows}) > 1
    return [
        ["", *(COLUMNS[key].heading for key in shown)],
        *(
            [
                f"{row['frames']}: " * several + row["kind"],
                *(COLUMNS[key].text(row[key]) if key in row else "" for key in shown),
            ]
            for row in rows
        ),
    ]


def _excess(table: Mapping[str, float], whole: Mapping[str, float]) -> float:
    """How many times the error of all frames a kind has."""
    return max((table[key] / whole[key] for key in LEAST if table.get(key)), default=0.0)


def _members(frames: Sequence[Frame], kind_of: Callable[[Frame], str]) -> dict[str, np.ndarray]:
    """The indices of the frames of each kind."""
    members = defaultdict(list)
    for n, frame in enumerate(frames):
        members[kind_of(frame)].append(n)
    return {kind: np.array(part) for kind, part in members.items()}


def _counts(frames: Sequence[Frame]) -> list[Counter[str]]:
    """How many frames there are of each kind, for each of `WAYS`."""
    return [Counter(map(kind_of, frames)) for kind_of in WAYS]


def _shown(frames: Sequence[Frame]) -> tuple[int, dict[str, np.ndarray]]:
    """The frames of each kind by name, else by composition, and which of `WAYS` that is; empty where there is one
    kind, or most have one frame."""
    for way, kind_of in enumerate(WAYS):
        members = _members(frames, kind_of)
        n_alone = sum(len(part) == 1 for part in members.values())
        if len(members) > 1 and n_alone <= len(frames) / 2:
            return way, members
    return 0, {}


@dataclass(frozen=True)
class _Far:
    """A kind that stands out: its name, its median error (meV/atom or meV/Å), and how many frames it has."""

    kind: str
    median: float
    n_frames: int


def _standing_out(
    errors: Mapping[str, np.ndarray], key: str, members: Mapping[str, np.ndarray]
) -> tuple[list[_Far], float]:
    """The kinds that are far off, worst first, and the median error of all other frames, at least half of all.

    Medians, so that no wild frame makes its kind wild, or hides another. Forces must also be off by a larger share of
    their size, for they are all larger in a liquid than in a crystal, and frames at rest do not count.

    Args:
        errors: of `Evaluation.frame_errors`.
        key: of the error.
        members: the frames of each kind.
    """
    values = errors[key]
    if key == "force_mae":
        values = np.where(errors["baseline_force_mae"] > LEAST[key], values, np.nan)
    there = np.isfinite(values)
    labeled = {kind: part[there[part]] for kind, part in members.items()}
    enough = [
        _Far(kind, float(np.median(values[part])), len(part)) for kind, part in labeled.items() if len(part) >= ENOUGH
    ]
    kinds = sorted(enough, key=lambda found: found.median, reverse=True)
    medians = np.array([found.median for found in kinds])
    place = np.full(len(values), len(kinds))  # in this order, of the kind of each frame
    for n, found in enumerate(kinds):
        place[labeled[found.kind]] = n
    # Beside how many kinds a frame is among the others, and beside how many of these its error is that much smaller.
    beside, below = place[there], np.searchsorted(-medians, -FAR * values[there])
    n_left, n_below = (_count_above(ends, len(kinds)) for ends in (beside, np.minimum(beside, below)))
    is_far = (n_left >= there.sum() / 2) & (n_below > n_left / 2) & (medians > LEAST[key])
    n_far = int(np.flatnonzero(is_far)[-1]) + 1 if is_far.any() else 0
    far, others = kinds[:n_far], there & (place >= n_far)
    if key == "force_mae" and far:
        share = values / errors["baseline_force_mae"]
        usual = np.median(share[others])
        far = [found for found in far if np.median(share[labeled[found.kind]]) > usual]
    return far, float(np.median(values[others])) if far else np.nan


def _count_above(values: np.ndarray, n: int) -> np.ndarray:
    """How many of some integers are above 0, 1, ..., n - 1."""
    return len(values) - np.cumsum(np.bincount(values, minlength=n))[:n]


def _sentence(name: str, key: str, far: Sequence[_Far], usual: float, counts: Counter[str]) -> str:
    """What stands out in a set of frames, and by how much.

    Args:
        name: of the set.
        key: of the error.
        far: the kinds that do.
        usual: the median error of all other frames.
        counts: of the kinds in the training frames; empty where that is not known or said already.
    """
    metric = METRICS[key]
    said = []
    for found in far[:NAMED]:
        count = f"{found.n_frames} frames" + (f", {counts[found.kind]} in training" if counts else "")
        said.append(f"{found.kind} (median {metric.text(found.median)} {metric.unit}; {count})")
    if len(far) > NAMED:
        said.append(f"{len(far) - NAMED} more")
    named = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return (
        f"{name}: the {metric.label} errors of {named} are far above those of all other frames "
        f"(median {metric.text(usual)} {metric.unit})."
    )
