"""`mdpot data`: which data there are, and fetching them."""

from __future__ import annotations

from pathlib import Path

import click

from mdpot.cli.options import PATH


@click.group()
def data() -> None:
    """List data sources and prepare them."""


@data.command("list")
def list_command() -> None:
    """List the data sources, what each holds and where it was found."""
    from mdpot.training.data.sources import list_sources

    for line in list_sources():
        click.echo(str(line))


@data.command()
@click.argument("name")
@click.option("--data", type=PATH, metavar="PATH", help="File or folder to take instead of searching.")
def prepare(name: str, data: Path | None) -> None:
    """Find a data source, download it if need be, and check its frames.

    NAME is one of `mdpot data list`.
    """
    from mdpot.training.data.sources import load_dataset

    found = load_dataset(name, data, allow_download=True)
    click.echo(f"{found.name}: {len(found.frames)} frames, {found.labels}")
    click.echo(f"found in: {found.origin}")
    click.echo(f"fingerprint: {found.fingerprint}")
