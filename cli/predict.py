"""`mdpot predict` and `mdpot ensemble`."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdpot.cli.options import PATH, check_device, device_option, threads_option

if TYPE_CHECKING:
    from ase import Atoms


@click.command()
@click.argument("file", type=PATH)
@click.argument("structures", type=PATH)
@click.option("-o", "--out", type=PATH, help="Table to write, CSV.  [default: print it]")
@click.option("--key", metavar="KEY", help="Key of the property in the structures.  [default: its name in FILE]")
@device_option
@threads_option
def predict(file: Path, structures: Path, out: Path | None, key: str | None, device: str | None) -> None:
    """Predict a property of structures.

    FILE is a model file with a property, an ensemble of such, or the folder of a run. STRUCTURES is a file or a folder
    as training takes them: in any format that ASE reads, json, or a CSV with a column of files' names. The table has a
    line for each structure: index, name (where the structures have any), formula, prediction, std (for an ensemble),
    and label where the structures have one; then the mean absolute error is printed too.
    """
    check_device(device)
    from mdpot.files import write_text
    from mdpot.predictor import PropertyPredictor

    with warnings.catch_warnings(record=True) as cautions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning)
        predictor = PropertyPredictor(file, device=device)
    for caution in cautions:
        click.echo(f"warning: {caution.message}", err=True)
    frames, names = _read(structures, key or predictor.name)
    found = predictor.evaluate(frames)
    labels = [_label(atoms, key or predictor.name) for atoms in frames]
    if key is not None and not any(label is not None for label in labels):
        from mdpot.errors import MdpotError

        raise MdpotError(f"--key {key!r}: no structure of {structures} has a number under it.")
    columns: dict[str, list[Any]] = {
        "index": list(range(len(frames))),
        **({"name": names} if any(names) else {}),
        "formula": [atoms.get_chemical_formula() for atoms in frames],
        "prediction": [f"{value:.8g}" for value in found.values],
    }
    if found.std is not None:
        columns["std"] = [f"{value:.8g}" for value in found.std]
    errors = [abs(v - label) for v, label in zip(found.values, labels, strict=True) if label is not None]
    if errors:
        columns["label"] = ["" if label is None else f"{label:.8g}" for label in labels]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    if out is None:
        click.echo(text.getvalue(), nl=False)
    else:
        write_text(out, text.getvalue())
        click.echo(f"{out}: {predictor.name} of {len(frames)} structures")
    if errors:
        mae = f"{sum(errors) / len(errors):.6g} {predictor.unit}".strip()
        click.echo(f"MAE: {mae}, on {len(errors)} structures with a label", err=out is None)


def _read(path: Path, name: str) -> tuple[list[Atoms], list[str]]:
    """The structures of a file or a folder, with their properties in `info`, of which the only one of a table without
    titles has the name asked for; and what the structures are called there."""
    from ase import Atoms

    from mdpot.training.data.labels import Asked
    from mdpot.training.data.readers import parse_file
    from mdpot.training.data.readers.tables import TARGET
    from mdpot.training.data.reading import convert

    raw = parse_file(path, Asked(property_key=name), False)
    if raw.files:
        click.echo(f"{path}: {raw.files}", err=True)
    for note in raw.keys.notes:
        click.echo(f"warning: {note}", err=True)
    frames = [convert(frame, raw.units) for frame in raw.frames]
    for frame in frames:
        if frame.properties.keys() == {TARGET}:
            frame.properties.setdefault(name, frame.properties[TARGET])
    structures = [Atoms(f.numbers, f.positions, cell=f.cell, pbc=f.pbc, info=f.properties) for f in frames]
    return structures, [frame.file or frame.group or frame.kind for frame in frames]


def _label(atoms: Atoms, key: str) -> float | None:
    """What a structure says of its own property, if that is a finite number."""
    import math

    value = atoms.info.get(key)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


@click.command()
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="File to write.")
def ensemble(files: tuple[Path, ...], out: Path) -> None:
    """Join several models into one file, an ensemble.

    FILES are two or more potentials for the same elements, or models of the same property: runs with other seeds, as a
    rule. An ensemble runs wherever one of them would and answers with the mean; how far its members are apart shows
    where they are not to be trusted.
    """
    from mdpot.modelfile import save_ensemble

    save_ensemble(out, files)
    click.echo(f"{out}: an ensemble of {len(files)}")
