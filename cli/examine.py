"""`mdpot evaluate` and `mdpot info`: how good a potential is, and what its file holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdpot.cli.options import PATH, check_device, device_option, json_option, label_options, threads_option
from mdpot.cli.tables import print_errors, print_kinds, print_table

if TYPE_CHECKING:
    from mdpot.training.data.labels import Asked


@click.command()
@click.argument("file", type=PATH)
@click.argument("data", type=PATH)
@device_option
@threads_option
@label_options
@json_option
def evaluate(file: Path, data: Path, device: str | None, as_json: bool, labels: Asked) -> None:
    """Compare a potential with labeled frames.

    FILE is a potential file, the folder of a run, or a name of the zoo. DATA is a file with energies, forces or
    both, in any format that `mdpot train --data` reads, the name of a data source (`mdpot data list`), or
    pyg:CLASS:ARGUMENT.
    """
    check_device(device)
    from mdpot.training.run import run_evaluate

    result = run_evaluate(file, data, device=device, labels=labels)
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    kinds, outliers = result.pop("kinds", []), result.pop("outliers", [])
    tables = {name: value for name, value in result.items() if isinstance(value, Mapping)}
    for note in result.pop("notes", ()):
        click.echo(f"note: {note}")
    for key, value in result.items():
        if key not in tables:
            click.echo(f"{key}: {value}")
    print_errors(tables, result.get("baseline"))
    if kinds:
        print_kinds(kinds)
    for sentence in outliers:
        click.echo(sentence)


@click.command()
@click.argument("file", type=PATH)
@json_option
def info(file: Path, as_json: bool) -> None:
    """Say what a model file holds: architecture, elements, units, errors, and where it came from.

    FILE is a file with a potential, a property or an ensemble, the folder of a run, or a name of the zoo. --json
    prints all there is, the whole recipe too.
    """
    from mdpot.kernels import engine_on_cpu
    from mdpot.modelfile import open_model

    model = open_model(file)
    metadata = model.header
    if model.predicts == "potential" and not model.exported:
        metadata = {**metadata, "cpu_engine": engine_on_cpu(model.potential("cpu", correction=True))}
    if as_json:
        click.echo(json.dumps(metadata, indent=2, ensure_ascii=False))
        return
    click.echo(f"file: {model.path}")
    print_table(_rows(metadata))
    if errors := metadata.get("provenance", {}).get("metrics"):
        print_errors(errors, metadata.get("baseline"))


def _rows(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person wants to know: the model first, then where it came from; no long lists."""
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in metadata["elements"]]
    members = metadata.get("members", [])
    first: dict[str, Any] = {"kind": metadata.get("kind", "potential")}
    if members:
        first["members"] = len(members)
        first |= {f"member {index}": _member(part) for index, part in enumerate(members)}
    else:
        first |= {"model": metadata["model"], "hyperparameters": metadata["hyperparameters"]}
    first |= {"cutoff (Å)": metadata["cutoff"], "elements": " ".join(symbols)}
    if export := metadata.get("export"):
        first |= _exported(export)
    if "property" in metadata:
        first |= {key: metadata.get(key) for key in ("property", "unit", "pooling")}
    if "reference_energies" in metadata:
        energies = metadata["reference_energies"].values()
        first["reference energies (eV)"] = dict(zip(symbols, energies, strict=True))
    provenance = dict(metadata.get("provenance", {}))
    recipe = provenance.pop("recipe", {})
    first["recipe"] = f"{recipe.get('name', '')} {recipe.get('preset', '')}".strip()
    hidden = {"cutoff", "provenance", "reference_energies", "structures", "members", "export"}
    hidden |= {"model", "hyperparameters"} if members else set()
    rest = {key: value for key, value in metadata.items() if key not in hidden | first.keys()}
    for part in (first, rest, {key: value for key, value in provenance.items() if key != "metrics"}):
        for key, value in part.items():
            if value not in (None, "", {}):
                yield key.replace("_", " "), _text(value)


def _exported(export: Mapping[str, Any]) -> dict[str, str]:
    """What an exported file is, and for whom."""
    from mdpot.exported import TITLES, TORCHSCRIPT

    title = TITLES[export.get("format", TORCHSCRIPT)]
    found = {"exported to": f"{title}, {export['dtype']}, by torch {export['torch']}"}
    if "machine" in export:
        found["compiled for"] = f"{export['device']} on {export['system']} {export['machine']}"
    if export["for"] != "any":
        found["called by"] = export["for"]
    return {**found, "called in": _text(export["units"]), "skin (Å)": _text(export["skin"])}


def _member(header: Mapping[str, Any]) -> str:
    """One member of an ensemble in a few words."""
    provenance = header.get("provenance", {})
    seed = f", seed {provenance['seed']}" if "seed" in provenance else ""
    return f"{header['model']}, {_text(header['hyperparameters'])}{seed}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return f"{value:.8g}" if isinstance(value, float) else str(value)
