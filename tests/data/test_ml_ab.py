"""VASP's ML_AB: units, signs, and what a damaged one says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

STARS, EQUALS, DASHES = "*" * 50, "=" * 50, "-" * 50
HEAD = f"""1.0 Version
{STARS}
The number of configurations
{DASHES}
2
{STARS}
Reference atomic energy (eV)
{DASHES}
5.8 38.2
"""
STRESS = f"""{EQUALS}
Stress (kbar)
{DASHES}
XX YY ZZ
{DASHES}
1.0 2.0 3.0
{DASHES}
XY YZ ZX
{DASHES}
4.0 5.0 6.0
"""
CONFIGURATION = f"""{STARS}
Configuration num. 1
{EQUALS}
System name
{DASHES}
rock salt
{EQUALS}
Atom types and atom numbers
{DASHES}
Na 1
Cl 1
{EQUALS}
CTIFOR
{DASHES}
0.002
{EQUALS}
Primitive lattice vectors (ang.)
{DASHES}
0.0 2.8 2.8
2.8 0.0 2.8
2.8 2.8 0.0
{EQUALS}
Atomic positions (ang.)
{DASHES}
0.0 0.0 0.0
2.8 0.1 0.0
{EQUALS}
Total energy (eV)
{DASHES}
-6.9
{EQUALS}
Forces (eV ang.^-1)
{DASHES}
0.1 0.2 0.3
-0.1 -0.2 -0.3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ML_AB"
    path.write_text(HEAD + CONFIGURATION + STRESS + CONFIGURATION + STRESS)
    return path


def test_labels_and_signs(file: Path) -> None:
    reading = read_file(file)
    assert reading.units.source == "of the format"
    assert reading.isolated == {}  # its reference energies are VASP's own zero, not atoms'
    frame, _ = reading.frames
    assert frame.numbers.tolist() == [11, 17]
    assert frame.energy == -6.9
    np.testing.assert_array_equal(frame.cell[0], [0, 2.8, 2.8])
    np.testing.assert_array_equal(frame.positions[1], [2.8, 0.1, 0])
    np.testing.assert_array_equal(np.array(frame.forces), [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    # As ASE reads an OUTCAR: the other sign, and 1 kbar = 0.1 GPa.
    kbar = -0.1 * units.GPa
    np.testing.assert_allclose(np.array(frame.stress), np.array([[1, 4, 6], [4, 2, 5], [6, 5, 3]]) * kbar, rtol=1e-7)


def test_a_blank_stress_is_none(file: Path) -> None:
    file.write_text(file.read_text().replace("1.0 2.0 3.0", "    ").replace("4.0 5.0 6.0", ""))
    reading = read_file(file)
    assert reading.keys.stress is None
    assert reading.frames[0].stress is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.rindex("-0.1 -0.2")], r"configuration 2 .*'forces' must be 6 numbers; got 3"),
        (lambda text: text[: text.rindex(STARS)], r"truncated: it says it holds 2 configurations, and 1 are there"),
        (lambda text: text.replace("Na 1", "Na 2"), r"add up to 3 atoms, but it has 2 positions.*would fit: Na 1\."),
        (lambda text: text.replace("-6.9", "low"), r"configuration 1 .*cannot be read"),
        (lambda text: text.replace("Na 1", "Xx 1"), r"configuration 1 .*cannot be read"),
        (lambda text: text.replace("Configuration", "Conf"), r"this one has none"),
    ],
)
def test_damaged(file: Path, change, message: str) -> None:
    file.write_text(change(file.read_text()))
    with pytest.raises(MdpotError, match=message) as caught:
        read_file(file)
    assert "\n" not in str(caught.value)


def test_a_head_that_does_not_say_how_many_there_are(file: Path) -> None:
    file.write_text(file.read_text().replace("\n2\n", "\n2x\n", 1))
    assert len(read_file(file).frames) == 2
