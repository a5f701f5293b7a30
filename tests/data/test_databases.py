"""ASE's databases: labels in their pairs and data, units in their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.db
import numpy as np
import pytest
from ase.units import kcal, mol

from mdpot.errors import MdpotError
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file

from .metals import coppers
from .outputs import NEED, assert_right, bare


@pytest.mark.parametrize("name", ["rows.db", "rows.json"])
def test_labels_in_the_pairs_and_the_data_of_a_database(tmp_path: Path, name: str) -> None:
    frames = coppers()
    database = ase.db.connect(tmp_path / name)
    for n, atoms in enumerate(frames):
        data = {"dft_forces": atoms.get_forces()}
        pairs = {"dft_energy": atoms.get_potential_energy(), "trajectory": f"run{n}"}
        database.write(bare(atoms), data=data, **pairs)
    reading = read_file(tmp_path / name, need=NEED)
    assert_right(reading, frames)
    assert (reading.keys.energy, reading.keys.forces) == ("dft_energy", "dft_forces")
    assert reading.frames[2].group.startswith("run2")


@pytest.mark.parametrize("units", [None, "kcal/mol"])
def test_units_in_the_metadata_of_schnetpack(tmp_path: Path, units: str | None) -> None:
    """Energies are arrays of one number in `data`; the units of positions and labels are in the metadata."""
    path, frames, factor = tmp_path / "rows.db", coppers(), mol / kcal
    database: Any = ase.db.connect(path)
    if units is None:
        names = {
            "energy_U": "kcal/mol",
            "forces_U": "kcal/mol/Ang",
            "stress_U": "kcal/mol/Ang/Ang/Ang",
            "dipole": "Debye",
        }
        database.metadata = {"_distance_unit": "Ang", "_property_unit_dict": names, "atomrefs": {}}
    for atoms in frames:
        data = {
            "energy_U": np.array([atoms.get_potential_energy()]) * factor,
            "forces_U": atoms.get_forces() * factor,
            "stress_U": atoms.get_stress(voigt=False)[None] * factor,
            "dipole": np.zeros(3),
        }
        database.write(bare(atoms), data=data)
    reading = read_file(path, Asked(units=units), NEED)
    assert_right(reading, frames, stress=True)
    assert reading.units.source == ("given" if units else "stated in the file")


def test_an_unknown_unit_in_metadata_is_named(tmp_path: Path) -> None:
    database: Any = ase.db.connect(tmp_path / "rows.db")
    database.metadata = {"_distance_unit": "Ang", "_property_unit_dict": {"energy": "furlong"}}
    database.write(bare(coppers(1)[0]), data={"energy": np.array([1.0])})
    with pytest.raises(MdpotError, match=r"unit of energy \(energy in its metadata\) 'furlong'"):
        read_file(tmp_path / "rows.db")
