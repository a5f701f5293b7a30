"""`mdpot bench`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from mdpot.cli.options import PATH, THREADS, json_option


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--structure",
    "structures",
    multiple=True,
    metavar="FILE",
    help="Structure to time, or water:N; may be given again. Default: 64 to 16,000 waters.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(["native", "torch"]),
    multiple=True,
    help="Fused kernels or torch; may be given again. Default: both.",
)
@click.option(
    "--threads",
    type=THREADS,
    multiple=True,
    metavar="N",
    help="CPU threads; may be given again. Default: one, and as many as torch takes.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of the network. Default: that of the file.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, metavar="S", help="For each line."
)
@json_option
def bench(
    file: Path,
    structures: tuple[str, ...],
    engines: tuple[str, ...],
    threads: tuple[int, ...],
    dtype: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Time molecular dynamics with a potential on this machine's CPU, and say where the time goes.

    FILE is a potential file, the folder of a run, or a name of the zoo. A step is one of 0.5 fs at constant energy,
    everything included. list: searching neighbors; filter: choosing those within the cutoff, which the kernels do by
    themselves; network: the potential; rest: calculator and integrator, and the force field that a potential corrects.
    Other programs that run meanwhile spoil it.
    """
    from mdpot.simulate.bench import DT, ENGINES, PARTS, machine
    from mdpot.simulate.bench import bench as run
    from mdpot.zoo import find_model

    timings = run(find_model(file), structures, engines or ENGINES, threads, seconds, dtype)
    if as_json:
        result = {"machine": machine(), "dt_fs": DT, "timings": [asdict(timing) for timing in timings]}
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in machine().items() if value))
    click.echo(
        f"{'atoms':>7} {'engine':<24} {'threads':>7} {'ms/step':>9} {'ns/day':>8}" + "".join(f"{p:>9}" for p in PARTS)
    )
    for t in timings:
        line = f"{t.n_atoms:>7} {t.engine:<24} {t.threads:>7} "
        if t.ms is None or t.ns_per_day is None or t.parts is None:
            click.echo(line + (t.note or ""))
        else:
            click.echo(line + f"{t.ms:>9.3g} {t.ns_per_day:>8.3g}" + "".join(f"{t.parts[p]:>9.3g}" for p in PARTS))
