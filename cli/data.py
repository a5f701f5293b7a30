"""`mdpot data`: which data there are, what a file holds, and fetching data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdpot.cli.options import PATH, data_option, json_option, label_options

if TYPE_CHECKING:
    from mdpot.training.data.labels import Asked


@click.group()
def data() -> None:
    """List data sources, inspect a file, and prepare sources."""


@data.command("list")
def list_command() -> None:
    """List the data sources, what each holds and where it was found."""
    from mdpot.training.data.sources import list_sources

    for row in list_sources():
        click.echo(str(row))


@data.command()
@click.argument("file", type=PATH)
@label_options
@json_option
def inspect(file: Path, as_json: bool, labels: Asked) -> None:
    """Say what is understood of a file with frames: keys, units, what looks wrong and what to do.

    FILE is a file, a folder of calculations, or pyg:CLASS:ARGUMENT, as `mdpot train custom --data` takes it. Nothing is
    trained; do this before an hour is spent on it.
    """
    from mdpot.training.data.inspection import inspect_file

    found = inspect_file(file, labels)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key, value in _inspection_rows(found):
        click.echo(f"{key + ':':13}{value}")
    for warning in found["warnings"]:
        click.echo(f"{'warning:':13}{warning}")


def _inspection_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Titles and values, for a person; what there is none of is left out."""
    yield from _structures(found)
    yield from _keys(found)
    yield from _sizes(found)
    if found["labeled"] and found["forces_key"] and set(found["periodic"]) == {"---"}:
        yield "presets", "molecules: delta corrects GFN2-xTB and runs with it, xtb learns it first and runs alone"


def _structures(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How many frames there are, and of what."""
    low, high = found["n_atoms"]
    if found["files"]:
        yield "files", found["files"]
    yield "frames", f"{found['frames']:,} of {low if low == high else f'{low} to {high}'} atoms"
    left = f", {found['unlabeled']:,} without labels" if found["unlabeled"] else ""
    stressed = f", {found['stressed']:,} with a stress" if found["stressed"] else ""
    yield "labeled", f"{found['labeled']:,}{left}{stressed}"
    yield "elements", " ".join(found["elements"])
    along = [f"{n:,} in no cell" if name == "---" else f"{n:,} along {name}" for name, n in found["periodic"].items()]
    yield "periodic", ", ".join(along)
    if found["vacuum"]:
        yield "vacuum", ", ".join(f"along {axis} in {n:,}" for axis, n in found["vacuum"].items())
    if found["charges"]:
        yield "charge", ", ".join(f"{charge} in {n:,}" for charge, n in found["charges"].items())


def _keys(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the labels are, and what else may be one; their units."""
    for kind in ("energy", "forces", "stress"):
        yield kind, found[f"{kind}_key"] or "none"
    for name, limits in found["properties"].items():
        yield "property", f"{name}, " + (f"{limits[0]:.4g} to {limits[1]:.4g}" if limits else "none")
    if found["numbers"]:
        ranges = [f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in found["numbers"].items()]
        yield "numbers", f"{', '.join(ranges)} (a property by data.property_key)"
    if found["other_keys"]:
        yield "also seen", ", ".join(found["other_keys"])
    units = found["units"]
    of_stress = f"stress {units['stress']} ({units['source']})"
    yield "units", f"{units['energy']}, {units['length']}, {units['force']}, {of_stress}"


def _sizes(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Ranges of the labels, and the shortest distances."""
    if found["isolated_atoms"]:
        yield "isolated", ", ".join(f"{symbol} {energy:.6g} eV" for symbol, energy in found["isolated_atoms"].items())
    for key, title, unit in (
        ("energy_per_atom", "energy/atom", "eV"),
        ("force", "max force", "eV/Å"),
        ("volume_per_atom", "volume/atom", "Å³"),
    ):
        if found[key]:
            yield title, f"{found[key][0]:.4g} to {found[key][1]:.4g} {unit}"
    first = found["first"]
    if first["energy"] is not None:
        forces = "" if first["forces_rms"] is None else f", RMS force {first['forces_rms']:.4g} eV/Å"
        yield "first frame", f"energy {first['energy']:.8g} eV{forces}"
    if closest := sorted(found["distances"].items(), key=lambda pair: pair[1])[:6]:
        yield "closest", ", ".join(f"{pair} {distance:.2f}" for pair, distance in closest) + " Å"


@data.command()
@click.argument("name")
@data_option("File or folder to take instead of searching.")
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
        "properties": ", ".join(found["properties"]),
        "RMS force": f"{found['rms_force']:.3f} eV/Å" if found["rms_force"] else "",
        "splits": ", ".join(f"{key} {count:,}" for key, count in found["splits"].items()),
        "test sets": ", ".join(f"{key} {count:,}" for key, count in found["tests"].items()),
        "files": " ".join(found["files"]),
        "fingerprint": found["fingerprint"],
    }
    for key, value in lines.items():
        if value:
            click.echo(f"{key + ':':13}{value}")
