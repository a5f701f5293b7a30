"""The tables of the experiments, with the paper's numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from mdpot.training.reproduce.papers.derivative.comparisons import (
    ERROR,
    Row,
    change_of,
    columns,
    paper_change,
    paper_error,
    parts,
    rows,
)
from mdpot.training.reproduce.papers.derivative.published import Column
from mdpot.training.reproduce.results import Result
from mdpot.training.reproduce.tables import NOTHING, error, fewest_seeds, number, percent, table

NO_NETWORK = "the mean of the training targets"


def as_in_the_paper(results: Sequence[Result]) -> str:
    """For each network a table of errors and one of what pretraining changed: a row a way to train."""
    texts = []
    for title, part in parts(results):
        texts += [f"### {title}", "Mean absolute errors:", _errors(part)]
        texts += ["Change by the pretraining, paired by seed:", _changes(part)]
    return "\n\n".join(texts)


def _errors(part: Sequence[Result]) -> str:
    shown = columns(part)
    titles = [text for column in shown.values() for text in (column.heading, "paper")]
    lines = [_without_network(rows(part)[0], shown)]
    for row in rows(part):
        cells = [row.title]
        for dataset, column in shown.items():
            result = row.cells[dataset]
            cells += [error(result, ERROR, decimals=column.decimals), number(paper_error(result), column.decimals)]
        lines.append([*cells, fewest_seeds(list(row.cells.values()))])
    return table(["training", *titles, "seeds"], lines)


def _without_network(row: Row, shown: dict[str, Column]) -> list[str]:
    """What no network has."""
    found = [error(row.cells[dataset], f"baseline_{ERROR}", decimals=c.decimals) for dataset, c in shown.items()]
    return [NO_NETWORK, *(text for cell in found for text in (cell, "")), ""]


def _changes(part: Sequence[Result]) -> str:
    shown = columns(part)
    titles = [text for column in shown.values() for text in (column.title, "paper")]
    lines = []
    for row in rows(part):
        results = list(row.cells.values())
        if not results[0].cell.arm.pretrain:
            continue
        ours, theirs = [change_of(part, r) for r in results], [paper_change(r) for r in results]
        cells = [row.title]
        for mine, papers in zip(ours, theirs, strict=True):
            cells += [_percent(mine and mine.mean, mine and mine.standard_error), _percent(papers)]
        means = [_mean([found and found.mean for found in ours]), _mean(theirs)]
        lines.append([*cells, *map(_percent, means)])
    return table(["training", *titles, "mean", "paper"], lines)


def _percent(share: float | None, spread: float | None = None) -> str:
    """A relative change and its standard error, "-12.3 ± 2.0 %"."""
    if share is None:
        return NOTHING
    return percent(share) if spread is None else f"{100 * share:+.1f} ± {100 * spread:.1f} %"


def _mean(shares: Sequence[float | None]) -> float | None:
    """Their mean, where all are known."""
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if len(known) == len(shares) else None
