"""`mdpot evaluate` and `mdpot info`: what a potential file is, and how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from mdpot.cli.options import PATH, check_device, device_option, json_option, threads_option


@click.command()
@click.argument("file", type=PATH)
@click.argument("data", type=PATH)
@device_option
@threads_option
@json_option
def evaluate(file: Path, data: Path, device: str | None, as_json: bool) -> None:
    """Compare a potential with labeled frames.

    FILE is a potential file, or the folder of a run. DATA is a file with energies and forces, in any format
    that `mdpot train --data` reads, or the name of a data source (`mdpot data list`).
    """
    check_device(device)
    from mdpot.training.run import run_evaluate

    result = run_evaluate(file, data, device=device)
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False, default=str))
        return
    for key, value in result.items():
        if not isinstance(value, Mapping) and value not in (None, ""):
            click.echo(f"{key}: {value}")
    _print_errors({name: value for name, value in result.items() if isinstance(value, Mapping)})


@click.command()
@click.argument("file", type=PATH)
@json_option
def info(file: Path, as_json: bool) -> None:
    """Say what a potential file holds: architecture, elements, units, and where it came from.

    FILE is a potential file, or the folder of a run.
    """
    from mdpot.checkpoint import read_metadata

    metadata = read_metadata(file / "potential.safetensors" if file.is_dir() else file)
    if as_json:
        click.echo(json.dumps(metadata, indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(file), box=box.SIMPLE, show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _flatten(metadata):
        table.add_row(key, value)
    Console().print(table, markup=False)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows: dotted name, text."""
    from ase.data import chemical_symbols

    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif key == "elements":
            yield f"{prefix}{key}", " ".join(chemical_symbols[z] for z in value)
        else:
            yield f"{prefix}{key}", f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_errors(tables: Mapping[str, Mapping[str, float]]) -> None:
    """A table with one row for each set of frames."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    columns = {
        "frames": ("n_frames", "{:.0f}"),
        "energy RMSE\nmeV/atom": ("energy_rmse", "{:.2f}"),
        "energy MAE\nmeV/atom": ("energy_mae", "{:.2f}"),
        "energy RMSE\nmeV/structure": ("energy_rmse_structure", "{:.1f}"),
        "energy MAE\nmeV/structure": ("energy_mae_structure", "{:.1f}"),
        "force RMSE\nmeV/Å": ("force_rmse", "{:.1f}"),
        "force MAE\nmeV/Å": ("force_mae", "{:.1f}"),
        "stress RMSE\nmeV/Å^3": ("stress_rmse", "{:.2f}"),
        "stress MAE\nmeV/Å^3": ("stress_mae", "{:.2f}"),
    }
    columns = {title: c for title, c in columns.items() if any(c[0] in values for values in tables.values())}
    table = Table(box=box.SIMPLE)
    table.add_column("")
    for title in columns:
        table.add_column(title, justify="right")
    for name, values in tables.items():
        cells = (style.format(values[key]) if key in values else "" for key, style in columns.values())
        table.add_row(name, *cells)
    Console().print(table)
