"""The pictures of a run. Importing this module needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mdpot.files import atomic
from mdpot.simulate.rdf import Radial

BLUE, ORANGE, GREEN, GRAY = "#1f5a99", "#d2691e", "#2a7f4f", "#777777"


def draw_thermodynamics(
    path: Path,
    columns: dict[str, np.ndarray],
    n_atoms: int,
    ensemble: str,
    temperature: float,
    drift: float | None = None,
) -> None:
    """Temperature and energies per atom over time; for NVE also the total energy alone, for NPT the density.

    Args:
        path: PNG to write.
        columns: of the log, see `read_log`.
        n_atoms: to divide energies by.
        ensemble: "nve", "nvt" or "npt".
        temperature: K, target.
        drift: meV/atom/ps, of the total energy.
    """
    time = columns["time_ps"]
    rows = 2 if ensemble == "nvt" else 3
    figure = Figure(figsize=(7, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True)
    axes[0].plot(time, columns["temperature_K"], color=BLUE, lw=0.9)
    label = "start" if ensemble == "nve" else "target"
    axes[0].axhline(temperature, color=GRAY, lw=1, ls="--", label=f"{label}, {temperature:g} K")
    axes[0].set_ylabel("temperature (K)")
    axes[0].legend(frameon=False, loc="best")
    energies = {
        name: 1000 * (columns[f"{name}_eV"] - columns[f"{name}_eV"][0]) / n_atoms for name in ("potential", "total")
    }
    for (name, energy), color in zip(energies.items(), (BLUE, ORANGE), strict=True):
        axes[1].plot(time, energy, color=color, lw=0.9, label=name)
    axes[1].set_ylabel("energy − start\n(meV/atom)")
    axes[1].legend(frameon=False, loc="best")
    if ensemble == "nve":
        axes[2].plot(time, energies["total"], color=ORANGE, lw=0.9)
        if drift is not None:
            line = drift * (time - time.mean()) + energies["total"].mean()
            axes[2].plot(time, line, color=GRAY, lw=1, ls="--", label=f"{drift:+.3g} meV/atom/ps")
            axes[2].legend(frameon=False, loc="best")
        axes[2].set_ylabel("total energy − start\n(meV/atom)")
    if ensemble == "npt":
        axes[2].plot(time, columns["density_g_cm3"], color=GREEN, lw=0.9)
        axes[2].set_ylabel("density (g/cm³)")
    axes[-1].set_xlabel("time (ps)")
    _save(figure, axes, path)


def draw_radial(path: Path, radial: Radial) -> None:
    """The radial distribution functions, one panel for each pair of elements.

    The height of a panel leaves out the peaks of bonds, which are many times higher than those of the liquid.

    Args:
        path: PNG to write.
        radial: what to draw.
    """
    pairs = list(radial.g)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        g = radial.g[pair]
        axis.plot(radial.r, g, color=BLUE, lw=1.2)
        axis.axhline(1.0, color=GRAY, lw=0.8, ls="--")
        beyond = g[radial.r > 1.7]
        top = 1.15 * max(2.0, beyond.max(initial=0.0)) if len(beyond) else None
        axis.set_ylim(0, top)
        axis.set_xlim(0, radial.r[-1])
        axis.set_title(pair.replace("-", "–"), fontsize=10)
        axis.set_xlabel("r (Å)")
    for axis in axes[len(pairs) :]:
        axis.set_axis_off()
    axes[0].set_ylabel("g(r)")
    _save(figure, axes[: len(pairs)], path)


def _save(figure: Figure, axes: np.ndarray | list[Axes], path: Path) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
