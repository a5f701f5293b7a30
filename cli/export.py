"""`mdpot export`."""

from __future__ import annotations

from pathlib import Path

import click

from mdpot.cli.options import PATH
from mdpot.errors import MdpotError


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--to", type=click.Choice(["torchscript", "aoti"]), default="torchscript", show_default=True, help="Format."
)
@click.option("-o", "--out", type=PATH, help="File to write.  [default: model.pt, or .pt2]")
@click.option(
    "--for",
    "units",
    type=click.Choice(["openmm", "ase"]),
    help="Units of a TorchScript file: nm and kJ/mol for openmm, Å and eV for ase.  [default: openmm]",
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
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="What an aoti file is compiled for.  [default: cpu]")
def export(
    file: Path, to: str, out: Path | None, units: str | None, dtype: str, skin: float, device: str | None
) -> None:
    """Write a potential as one self-contained file.

    FILE is a potential file, the folder of a run, or a name of the zoo. The TorchScript file needs torch alone:
    it holds its own neighbor list and its metadata. The aoti file is machine code (AOTInductor) for processors and a
    torch like those here; compiling it takes a C++ compiler and a minute or two. MaskedGNNCalculator and OpenMM take
    either. A file is compared with the potential before it gets its name.
    """
    if to == "aoti":
        if units is not None:
            raise MdpotError("--for is for torchscript; an aoti file serves ASE and OpenMM")
        from mdpot.export_aoti import export_aoti

        report = export_aoti(file, out or Path("model.pt2"), dtype=dtype, skin=skin, device=device or "cpu")
    else:
        if device is not None:
            raise MdpotError("--device is for aoti; a torchscript file runs on any")
        from mdpot.export import export_torchscript

        report = export_torchscript(file, out or Path("model.pt"), units=units or "openmm", dtype=dtype, skin=skin)
    click.echo(
        f"{report.path}: agrees with the potential on {report.n_frames} structures; largest relative differences: "
        f"energy {report.energy_error:.1e}, forces {report.force_error:.1e}"
        + ("" if report.stress_error is None else f", stress {report.stress_error:.1e}")
        + ("" if report.gradient_error is None else f", forces against finite differences {report.gradient_error:.1e}")
    )
