"""Outputs of ABINIT: cells in units of `acell`, relaxations, several datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

from .metals import alloys, coppers
from .outputs import assert_right

NEED = ("energy", "forces")


def variable(name: str, values: np.ndarray, unit: str = "") -> str:
    """As ABINIT writes it, three numbers a line."""
    lines = [" ".join(f"{x:17.10E}" for x in row) for row in np.asarray(values, float).reshape(-1, 3)]
    return f"{name:>17}     " + f"\n{22 * ' '}".join(lines) + f" {unit}\n"


def abinit(frames: list[Atoms], acell: float, species: list[int]) -> str:
    """An output of one dataset for each frame."""
    numbers = [str(n) if len(frames) > 1 else "" for n in range(1, len(frames) + 1)]
    atoms = frames[0]
    begins = "\n.Version 9.10.3 of ABINIT \n\n -outvars: echo values of preprocessed input variables --------\n"
    begins += variable("acell", np.full(3, acell), "Bohr") + variable("rprim", 9 * np.eye(3))
    text = " -outvars: echo values of variables after computation  --------\n" + variable(
        "acell", np.full(3, acell), "Bohr"
    )
    for number, frame in zip(numbers, frames, strict=True):
        text += f"           etotal{number}     {frame.get_potential_energy() / Hartree:.10E}\n"
        text += variable(f"fcart{number}", frame.get_forces() * Bohr / Hartree)
    text += "-          fftalg         112\n"
    text += f"           jdtset        {' '.join(numbers)}\n" * (len(frames) > 1)
    text += f"P           mkmem           1\n            natom           {len(atoms)}\n"
    for number, frame in zip(numbers, frames, strict=True):
        text += variable(f"rprim{number}", frame.cell.array / Bohr / acell)
        text += variable(f"strten{number}", frame.get_stress() * Bohr**3 / Hartree)
    text += f"           spgroup           1\n            typat      {' '.join(map(str, species))}\n"
    for number, frame in zip(numbers, frames, strict=True):
        text += variable(f"xred{number}", frame.get_scaled_positions(wrap=False))
    text += f"            znucl       {'  '.join(f'{z:.5f}' for z in dict.fromkeys(atoms.numbers.tolist()))}\n\n"
    return f"{begins}{text}\n{80 * '='}\n\n   - iterations: 12\n"


@pytest.mark.parametrize("acell", [1.0, 10.2, 1 / Bohr])
def test_the_cell_is_in_units_of_acell(tmp_path: Path, acell: float) -> None:
    frames = alloys(1)
    (tmp_path / "run.abo").write_text(abinit(frames, acell, [1, 2, 2, 1]))
    reading = read_file(tmp_path / "run.abo", need=NEED)
    assert_right(reading, frames, stress=True)
    assert reading.frames[0].numbers.tolist() == [29, 79, 79, 29]
    assert reading.frames[0].pbc.all()


def test_all_datasets_are_read(tmp_path: Path) -> None:
    frames = coppers(3)
    (tmp_path / "run.abo").write_text(abinit(frames, 5.0, [1, 1, 1, 1]))
    assert_right(read_file(tmp_path / "run.abo", need=NEED), frames, stress=True)
    assert_right(read_file(tmp_path, need=NEED), frames, stress=True)


def test_a_folder_with_an_output_of_another_name_and_its_log(tmp_path: Path) -> None:
    frames = coppers(2)
    (tmp_path / "run.out").write_text(abinit(frames, 5.0, [1, 1, 1, 1]))
    (tmp_path / "run.log").write_text(abinit(frames, 5.0, [1, 1, 1, 1]))
    assert_right(read_file(tmp_path, need=NEED), frames, stress=True)


def responding(frames: list[Atoms], drivers: list[int]) -> str:
    """Datasets of other drivers, whose energy is that of a response, and whose forces are zero."""
    for atoms, driver in zip(frames, drivers, strict=True):
        if driver and atoms.calc is not None:
            atoms.calc.results |= {"energy": 153.6, "forces": np.zeros((len(atoms), 3))}
    said = "".join(f"         optdriver{n}           {driver}\n" for n, driver in enumerate(drivers, 1))
    return abinit(frames, 5.0, [1, 1, 1, 1]).replace("P           mkmem", f"{said}P           mkmem")


def test_responses_are_left_out(tmp_path: Path) -> None:
    frames = coppers(4)
    (tmp_path / "run.abo").write_text(responding(frames, [0, 1, 0, 5]))
    reading = read_file(tmp_path / "run.abo", need=NEED)
    assert_right(reading, [frames[0], frames[2]], stress=True)
    assert "datasets that are no ground state (optdriver is not 0) are left out: 2 of 4." in reading.notes
    alone = abinit(coppers(1), 5.0, [1, 1, 1, 1]).replace("P           mkmem", "     optdriver   3\nP           mkmem")
    (tmp_path / "run.abo").write_text(alone)
    with pytest.raises(MdpotError, match="no dataset is a ground state"):
        read_file(tmp_path / "run.abo")


def test_what_is_not_complete_is_refused(tmp_path: Path) -> None:
    text = abinit(coppers(1), 5.0, [1, 1, 1, 1])
    for change, said in (
        (text.replace("after computation", "after"), "did not come to its end"),
        (text.replace("            natom", "            natim"), "are not complete"),
        (text.replace("            znucl       29", "            znucl       2.9.1"), "are not complete"),
        (text + " scprqt:  WARNING -\n  nstep=    20 was not enough SCF cycles to converge;\n", "did not converge"),
    ):
        (tmp_path / "run.abo").write_text(change)
        with pytest.raises(MdpotError, match=said):
            read_file(tmp_path / "run.abo")
