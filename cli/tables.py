"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mdpot.training.metrics import BASELINES, ERRORS, METRICS, Metric, baseline_of


def print_errors(tables: Mapping[str, Mapping[str, float]], forcefield: str | None = None) -> None:
    """Print a table of errors with one column for each set of frames, and below them those of predicting nothing.

    Args:
        tables: errors by name of the set.
        forcefield: that the potential corrects.
    """
    rows = _rows(tables, {key: METRICS[key] for key in ("n_frames", *ERRORS)})
    if baseline := _rows(tables, {of: ERRORS[key] for key, of in BASELINES.items()}):
        rows += [
            [f"{baseline_of(tables, forcefield)}:", *("" for _ in tables)],
            *([f"  {title}", *cells] for title, *cells in baseline),
        ]
    print_table(rows, list(tables))


def print_kinds(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the errors of each kind of frame, below what the rows are; these are of `error_rows`."""
    from mdpot.training.kinds import cells_of, title_of

    heading, *cells = cells_of(rows)
    print(f"{title_of(rows)}:")
    print_table(cells, heading[1:])


def _rows(tables: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Metric]) -> list[list[str]]:
    """A row for each of the metrics, by key, that a table has."""
    rows = []
    for key, metric in metrics.items():
        cells = [metric.text(table[key]) if key in table else "" for table in tables.values()]
        if any(cells):
            rows.append([metric.heading, *cells])
    return rows


def print_comparison(quantities: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `run_compare` found, with standard errors where there are several seeds.

    Args:
        quantities: by key, for each arm and their difference a mean and a standard error.
    """
    arms = list(next(iter(quantities.values())))
    rows = []
    for key, parts in quantities.items():
        values = [METRICS[key].text(parts[arm]["mean"], parts[arm]["standard_error"]) for arm in arms]
        rows.append([METRICS[key].heading, *values])
    print_table(rows, arms)


def print_table(rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> None:
    """Print rows of text, the first cell as their title.

    Args:
        rows: cells; as many as there are columns and one more, or two where there are no columns.
        columns: headings of the cells after the first, which are then numbers; none gives no heading.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=bool(columns))
    table.add_column("", no_wrap=True)
    for name in columns or [""]:
        table.add_column(name, justify="right" if columns else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)
