"""`mdpot export`."""

from __future__ import annotations

from pathlib import Path

import click

from mdpot.cli.options import PATH


@click.command()
@click.argument("file", type=PATH)
@click.option("--to", type=click.Choice(["torchscript"]), default="torchscript", show_default=True, help="Format.")
@click.option("-o", "--out", type=PATH, default=Path("model.pt"), show_default=True, help="File to write.")
@click.option(
    "--for",
    "units",
    type=click.Choice(["openmm", "ase"]),
    default="openmm",
    show_default=True,
    help="Units: nm and kJ/mol for openmm, Å and eV for ase.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of the network; neighbors and sums are float64 in any case.",
)
@click.option(
    "--skin", type=click.FloatRange(min=0), default=0.5, show_default=True, metavar="Å", help="Of the neighbor list."
)
def export(file: Path, to: str, out: Path, units: str, dtype: str, skin: float) -> None:
    """Write a potential as one self-contained file.

    FILE is a potential file, the folder of a run, or a name of the zoo. The TorchScript file needs torch alone:
    it holds its own neighbor list and its metadata. It is compared with the potential before it gets its name.
    """
    from mdpot.export import export_torchscript

    report = export_torchscript(file, out, units=units, dtype=dtype, skin=skin)
    click.echo(
        f"{report.path}: agrees with the potential on {report.n_frames} structures; largest relative differences: "
        f"energy {report.energy_error:.1e}, forces {report.force_error:.1e}"
        + ("" if report.gradient_error is None else f", forces against finite differences {report.gradient_error:.1e}")
    )
