"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROWS = {
    "frames": ("n_frames", "{:,.0f}"),
    "energy RMSE (meV/atom)": ("energy_rmse", "{:.2f}"),
    "energy MAE (meV/atom)": ("energy_mae", "{:.2f}"),
    "energy RMSE (meV/structure)": ("energy_rmse_structure", "{:.1f}"),
    "energy MAE (meV/structure)": ("energy_mae_structure", "{:.1f}"),
    "force RMSE (meV/Å)": ("force_rmse", "{:.1f}"),
    "force MAE (meV/Å)": ("force_mae", "{:.1f}"),
    "stress RMSE (meV/Å³)": ("stress_rmse", "{:.2f}"),
    "stress MAE (meV/Å³)": ("stress_mae", "{:.2f}"),
}
"""Title to key and format; keys and units as in `mdpot.training.evaluate.METRICS`."""

BASELINE = "no force, mean energy:"


def print_errors(tables: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of errors with one column for each set of frames, and below them those of predicting nothing.

    Args:
        tables: errors by name of the set.
    """
    rows = _error_rows(tables, "")
    if baseline := _error_rows(tables, "baseline_"):
        rows += [[BASELINE, *("" for _ in tables)], *([f"  {title}", *cells] for title, *cells in baseline)]
    print_table(rows, list(tables))


def _error_rows(tables: Mapping[str, Mapping[str, float]], prefix: str) -> list[list[str]]:
    """A row for each kind of error that a table has, under its key with this prefix."""
    rows = []
    for title, (key, style) in ROWS.items():
        cells = [style.format(v[prefix + key]) if prefix + key in v else "" for v in tables.values()]
        if any(cells):
            rows.append([title, *cells])
    return rows


def print_comparison(quantities: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `run_compare` found, with standard errors where there are several seeds.

    Args:
        quantities: by key, for each arm and their difference a mean and a standard error.
    """
    arms = list(next(iter(quantities.values())))
    rows = []
    for title, (key, style) in ROWS.items():
        if key in quantities:
            cells = []
            for arm in arms:
                mean, error = quantities[key][arm]["mean"], quantities[key][arm]["standard_error"]
                cells.append(style.format(mean) + (f" ± {style.format(error)}" if error is not None else ""))
            rows.append([title, *cells])
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
