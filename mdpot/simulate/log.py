"""The log: one line of a CSV file for every interval."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.simulate.engine import State, density


@dataclass(frozen=True)
class Row:
    """One line of the log.

    Attributes:
        step: steps since the start.
        time_ps: ps since the start.
        temperature_K: K.
        potential_eV: eV.
        kinetic_eV: eV.
        total_eV: eV.
        density_g_cm3: g/cm³; None unless the structure is periodic in all directions.
        ns_per_day: speed since the line before; None in the first.
    """

    step: int
    time_ps: float
    temperature_K: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    density_g_cm3: float | None
    ns_per_day: float | None

    @staticmethod
    def of(state: State, atoms: Atoms, ns_per_day: float | None) -> Row:
        """The line of a state of the atoms, whose masses and periodicity are used."""
        return Row(
            step=state.step,
            time_ps=round(state.time / 1000, 9),
            temperature_K=state.temperature,
            potential_eV=state.potential,
            kinetic_eV=state.kinetic,
            total_eV=state.total,
            density_g_cm3=density(atoms.get_masses(), state.volume) if atoms.pbc.all() else None,
            ns_per_day=ns_per_day,
        )


COLUMNS = tuple(field.name for field in fields(Row))
DIGITS = {"temperature_K": 3, "density_g_cm3": 6, "ns_per_day": 4, "time_ps": 6}


class Log:
    """Appends rows to a CSV file, each flushed as it comes."""

    def __init__(self, path: Path) -> None:
        new = not path.is_file() or path.stat().st_size == 0
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        if new:
            self._writer.writerow(COLUMNS)
            self._file.flush()

    def write(self, row: Row) -> None:
        """Appends one line."""
        self._writer.writerow([_text(name, getattr(row, name)) for name in COLUMNS])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> dict[str, np.ndarray]:
    """The columns of a log file by name, each [n_rows] float64, NaN where a line is empty.

    Raises:
        MdpotError: it is not what a run writes.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its first line is {','.join(reader.fieldnames or ())[:60]!r}")
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in COLUMNS}
    except (ValueError, KeyError, csv.Error) as error:
        why = f"{type(error).__name__}: {error}"
        raise MdpotError(f"{str(path)!r} is damaged ({why}): a log has the columns {', '.join(COLUMNS)}.") from None


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.{DIGITS.get(name, 6)}f}"
