"""What the paper has for the cells of an experiment, and by how much a pretraining changed an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mdpot.training.reproduce.experiments import SCRATCH
from mdpot.training.reproduce.papers.derivative.published import COLUMNS, Column, find_error
from mdpot.training.reproduce.results import Estimate, Result, Value, baseline, paired

ERROR = "property_mae"


@dataclass(frozen=True)
class Row:
    """A way to train, on each property.

    Attributes:
        title: of the way.
        cells: by data set.
    """

    title: str
    cells: dict[str, Result]


def parts(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """The results of each network and variant of its finetuning, with a title."""
    keys = dict.fromkeys((r.cell.model, r.cell.variant) for r in results)
    return [
        (
            f"{model}, {variant.title}" if variant.title else model,
            [r for r in results if (r.cell.model, r.cell.variant) == (model, variant)],
        )
        for model, variant in keys
    ]


def rows(part: Sequence[Result]) -> list[Row]:
    """The ways to train of a part, in their order."""
    arms = dict.fromkeys(r.cell.arm for r in part)
    return [Row(arm.title, {r.cell.dataset: r for r in part if r.cell.arm == arm}) for arm in arms]


def columns(part: Sequence[Result]) -> dict[str, Column]:
    """The properties of a part, by data set; one that the paper lacks goes by its own name."""
    return {
        dataset: COLUMNS.get(dataset, Column(dataset, "", 3)) for dataset in dict.fromkeys(r.cell.dataset for r in part)
    }


def paper_error(result: Result) -> Value | None:
    """The paper's error of a cell, where it has one."""
    cell = result.cell
    pooling = cell.recipe.property.pooling if cell.recipe.property else "sum"
    return find_error(cell.dataset, cell.model, pooling, cell.arm.title.split(",")[0], cell.arm.length)


def paper_change(result: Result) -> float | None:
    """By which share a pretraining changed the paper's error; None where it lacks one of the two numbers."""
    cell, after = result.cell, paper_error(result)
    pooling = cell.recipe.property.pooling if cell.recipe.property else "sum"
    before = find_error(cell.dataset, cell.model, pooling, SCRATCH.title)
    return after.mean / before.mean - 1 if after and before else None


def change_of(results: Sequence[Result], result: Result) -> Estimate | None:
    """By which share of the mean from scratch a pretraining changed the error, paired by seed."""
    base = baseline(results, result)
    difference = None if base is None else paired(result, base, ERROR)
    before = None if base is None else base.mean(ERROR, seeds=result.values(ERROR))
    if difference is None or before is None:
        return None
    spread = None if difference.standard_error is None else difference.standard_error / before.mean
    return Estimate(difference.mean / before.mean, spread, difference.n)
