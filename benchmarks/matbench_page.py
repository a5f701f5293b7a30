"""The page of `matbench_folds.py`: errors by fold, beside the best that others have published."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MEAN = "the mean of these"
UNITS = {"jdft2d": "meV/atom", "phonons": "1/cm"}
TITLES = {
    "trees": "extremely randomized trees on descriptors",
    "process": "Gaussian process on descriptors",
    "springs": "network of springs",
}
PUBLISHED = {
    "jdft2d": (("MODNet, the leaderboard's best", 33.2), ("elsewhere, not checked at its source", 28.9)),
    "phonons": (("MEGNet, the leaderboard's best", 28.8), ("JMP-L, elsewhere, not checked at its source", 20.6)),
}


def errors(prediction: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> list[float]:
    """The mean absolute error of each fold."""
    return [float(np.abs(prediction - targets)[folds == fold].mean()) for fold in range(5)]


def _rows(task: Any, heads: Mapping[str, Sequence[np.ndarray]]) -> list[dict[str, Any]]:
    """A row for the mean over the seeds of each head, and one for the mean of the heads."""
    rows, means = [], []
    for head, parts in heads.items():
        if parts:
            means.append(np.mean(parts, axis=0))
            single = [float(np.mean(errors(part, task.targets, task.folds))) for part in parts]
            folds = errors(means[-1], task.targets, task.folds)
            rows.append({"head": TITLES[head], "seeds": len(parts), "folds": folds, "each_seed": single})
    if len(means) > 1:
        folds = errors(np.mean(means, axis=0), task.targets, task.folds)
        rows.append({"head": MEAN, "seeds": None, "folds": folds, "each_seed": None})
    return rows


def write_page(path: Path, found: Mapping[str, tuple[Any, Mapping[str, Sequence[np.ndarray]]]], epochs: int) -> None:
    """Writes the page, and its numbers beside it as JSON."""
    content: dict[str, Any] = {}
    texts = []
    for name, (task, heads) in found.items():
        rows = _rows(task, heads)
        content[name] = {"unit": UNITS[name], "rows": rows, "published": dict(PUBLISHED[name])}
        texts.append(f"## {name}, {len(task.targets):,} crystals, MAE in {UNITS[name]}\n\n{_table(name, rows)}")
    path.write_text(TEXT.format(tables="\n\n".join(texts), epochs=epochs), encoding="utf-8")
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 3))
    path.with_suffix(".json").write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| | seeds | mean of the folds | one seed | fold 1 | 2 | 3 | 4 | 5 |", "|---|" + "---:|" * 8]
    for row in rows:
        single = "" if row["each_seed"] is None else f"{np.mean(row['each_seed']):.1f}"
        folds = " | ".join(f"{error:.1f}" for error in row["folds"])
        seeds = "" if row["seeds"] is None else row["seeds"]
        head = f"**{MEAN}**" if row["head"] == MEAN else row["head"]
        lines.append(f"| {head} | {seeds} | {np.mean(row['folds']):.1f} | {single} | {folds} |")
    lines += [f"| {title} | | {error} | | | | | | |" for title, error in PUBLISHED[name]]
    return "\n".join(lines)


TEXT = """# MatBench's own folds

How far do heads on descriptors, and a network of springs, get on the two smallest tasks of MatBench that have
structures?

- The five official folds: each is predicted by heads that saw the other four and nothing else. No training stops early.
- All heads learn the logarithm of the target, the network of springs the target itself too. Their mean has equal
  weights, which were not fitted.
- Descriptors, heads, and the network of springs were varied in several trials, and errors on these folds were seen
  between them. So the numbers may be better than on crystals that nobody has seen; where a lead is small, it may be
  no more than that.
- No pretraining is in these numbers.

{tables}

## How it was run

The network of springs is trained for {epochs} epochs for each fold, a minute or two on a core.

```bash
pip install scikit-learn
python benchmarks/matbench_folds.py
```
"""
