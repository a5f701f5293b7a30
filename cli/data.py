"""`mdpot data`: which data there are, and fetching them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mdpot.cli.options import PATH, json_option


@click.group()
def data() -> None:
    """List data sources and prepare them."""


@data.command("list")
def list_command() -> None:
    """List the data sources, what each holds and where it was found."""
    from mdpot.training.data.sources import list_sources

    for row in list_sources():
        click.echo(str(row))


@data.command()
@click.argument("name")
@click.option("--data", type=PATH, metavar="PATH", help="File or folder to take instead of searching.")
@click.option("--size", metavar="NAME", help="Of a source that is computed here: small or paper.  [default: small]")
@json_option
def prepare(name: str, data: Path | None, size: str | None, as_json: bool) -> None:
    """Bring a data source into the cache, downloading or computing it if need be, and check its frames.

    NAME is one of `mdpot data list`. The data are looked for at --data, in the folder MDPOT_DATA and in the
    cache before anything is downloaded or computed.
    """
    from mdpot.training.data.sources import prepare as prepare_source

    found = prepare_source(name, data, size)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    low, high = found["n_atoms"]
    lines = {
        "found": found["origin"],
        "frames": f"{found['n_frames']:,} of {low} to {high} atoms, in {found['n_groups']:,} groups",
        "elements": " ".join(found["elements"]),
        "labels": found["labels"],
        "with stress": f"{found['stress']:,}" if found["stress"] else "",
        "RMS force": f"{found['rms_force']:.3f} eV/Å",
        "splits": ", ".join(f"{key} {count:,}" for key, count in found["splits"].items()),
        "test sets": ", ".join(f"{key} {count:,}" for key, count in found["tests"].items()),
        "files": " ".join(found["files"]),
        "fingerprint": found["fingerprint"],
    }
    for key, value in lines.items():
        if value:
            click.echo(f"{key + ':':13}{value}")
