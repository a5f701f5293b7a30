"""What a finished run comes to: averages, drift, radial distributions; from the files in its folder."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.files import atomic, write_text
from mdpot.simulate.log import read_log
from mdpot.simulate.rdf import Radial, radial_distributions
from mdpot.simulate.trajectory import read_trajectory

DISCARD = 0.2  # share of a run, from its start, that averages leave out
MAX_FRAMES = 1000  # that the radial distributions are averaged over
SUMMARY = "summary.json"
FIRST_SHELL = (1.5, 4.0)  # Å: where the first peak of O–O is looked for


@dataclass(frozen=True)
class Summary:
    """The outcome of a run. Averages leave out the first fifth of it.

    Attributes:
        engine: what moved the atoms.
        stopped: why it ended early, in one line; None if it went to its end.
        interrupted: it was the user who ended it.
        steps: done since the start.
        time_ps: ps.
        mean_temperature: K; None if the run ended before its first step.
        mean_density: g/cm³; None unless the structure is periodic in all directions.
        drift: meV/atom/ps, slope of a line through the total energy over the whole run; None but for NVE.
        fluctuation: meV/atom, scatter of the total energy around that line; None but for NVE.
        ns_per_day: speed.
        oo_peak: Å, first peak of the O–O radial distribution; None where there is none.
        notes: what a reader should know besides.
    """

    engine: str
    stopped: str | None
    steps: int
    time_ps: float
    mean_temperature: float | None
    mean_density: float | None
    drift: float | None
    fluctuation: float | None
    ns_per_day: float | None
    oo_peak: float | None
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


def is_summarized(folder: Path, steps: int) -> bool:
    """Whether the folder holds the summary of a run that went to its end after `steps`."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        return summary["steps"] == steps and summary["stopped"] is None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def energy_drift(time_ps: np.ndarray, total: np.ndarray, n_atoms: int) -> tuple[float, float]:
    """Slope of a straight line through the total energy, and the scatter around it.

    Args:
        time_ps: [n_rows], ps.
        total: [n_rows], eV.
        n_atoms: to divide by.

    Returns:
        meV/atom/ps and meV/atom (root mean square).
    """
    energy = 1000 * (total - total[0]) / n_atoms
    slope, offset = np.polyfit(time_ps - time_ps.mean(), energy, 1)
    residual = energy - slope * (time_ps - time_ps.mean()) - offset
    return float(slope), float(np.sqrt(np.mean(residual**2)))


def summarize(
    folder: Path,
    trajectory: Path,
    atoms: Atoms,
    ensemble: str,
    temperature: float,
    engine: str,
    stopped: str | None = None,
    interrupted: bool = False,
) -> Summary:
    """Analyzes the files of a run; writes `summary.json`, pictures and, for a periodic structure, `rdf.csv`.

    Args:
        folder: with log.csv.
        trajectory: its trajectory file.
        atoms: numbers and periodicity.
        ensemble: "nve", "nvt" or "npt".
        temperature: K, target.
        engine: what moved the atoms.
        stopped: why it ended early.
        interrupted: it was the user who ended it.

    Raises:
        MdpotError: a file is damaged.
    """
    columns = read_log(folder / "log.csv")
    n_rows = len(columns["step"])
    if n_rows == 0:
        return Summary(engine, stopped, 0, 0.0, None, None, None, None, None, None)
    late = columns["time_ps"] >= DISCARD * columns["time_ps"][-1]
    drift = fluctuation = None
    if ensemble == "nve" and n_rows >= 3:
        drift, fluctuation = energy_drift(columns["time_ps"], columns["total_eV"], len(atoms))
    radial = None
    if atoms.pbc.all() and n_rows > 1:
        radial = _radial(trajectory, atoms, int(np.argmax(late)), n_rows)
        _write_radial(folder / "rdf.csv", radial)
    speeds = columns["ns_per_day"][1:]
    density = columns["density_g_cm3"]
    summary = Summary(
        engine=engine,
        stopped=stopped,
        steps=int(columns["step"][-1]),
        time_ps=float(columns["time_ps"][-1]),
        mean_temperature=float(columns["temperature_K"][late].mean()),
        mean_density=None if np.isnan(density).any() else float(density[late].mean()),
        drift=drift,
        fluctuation=fluctuation,
        # From the mean time of a step, without the first interval, in which a model warms up.
        ns_per_day=float(1 / np.mean(1 / speeds[min(1, len(speeds) - 1) :])) if len(speeds) else None,
        oo_peak=radial.peak("O-O", *FIRST_SHELL) if radial else None,
        notes=_draw(folder, columns, len(atoms), ensemble, temperature, drift, radial),
        interrupted=interrupted,
    )
    write_text(folder / SUMMARY, json.dumps(asdict(summary), indent=2) + "\n")
    return summary


def _radial(trajectory: Path, atoms: Atoms, first: int, n_frames: int) -> Radial:
    stride = max(1, (n_frames - first) // MAX_FRAMES)
    try:
        return radial_distributions(islice(read_trajectory(trajectory, atoms, first), 0, None, stride))
    except (ValueError, KeyError, IndexError, OSError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise MdpotError(f"{str(trajectory)!r} is damaged ({why}).") from None


def _write_radial(path: Path, radial: Radial) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["r_A", *radial.g])
        for row in zip(radial.r, *radial.g.values(), strict=True):
            writer.writerow([f"{value:.5f}" for value in row])


def _draw(
    folder: Path,
    columns: dict[str, np.ndarray],
    n_atoms: int,
    ensemble: str,
    temperature: float,
    drift: float | None,
    radial: Radial | None,
) -> list[str]:
    try:
        from mdpot.simulate import plots
    except ImportError:
        return ["no pictures were drawn: matplotlib is not installed (pip install matplotlib)"]
    path = folder / "thermodynamics.png"
    plots.draw_thermodynamics(path, columns, n_atoms, ensemble, temperature, drift)
    if radial is not None:
        plots.draw_radial(folder / "rdf.png", radial)
    return []
