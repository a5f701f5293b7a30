"""Charge and spin of structures: where they are stated, and that an ion is not taken for a neutral molecule."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mdpot import MdpotError
from mdpot.electrons import NOTHING_SAID, Electrons, of_multiplicity, stated_electrons
from mdpot.forcefields import FORCE_FIELDS, Structure


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, (0, None)),
        ({"charge": -2}, (-2, None)),
        ({"Charge": -2}, (-2, None)),
        ({"total_charge": 1.0, "spin": 1}, (1, 1)),
        ({"total_charge": -2.00000001}, (-2, None)),
        ({"charge": "2"}, (2, None)),
        ({"charge": np.int64(2)}, (2, None)),
        ({"charge": np.array([1])}, (1, None)),
        ({"charge": np.zeros(3)}, (0, None)),  # of the atoms
        ({"charge": np.nan}, (0, None)),
        # Water has ten electrons: one of the two readings fits.
        ({"multiplicity": 3}, (0, 2)),
        ({"spin": 0}, (0, 0)),
        ({"spin": 1}, (0, 0)),
        ({"spin": 2}, (0, 2)),
        ({"charge": 1, "spin": 1}, (1, 1)),
        ({"charge": 1, "spin_multiplicity": 2}, (1, 1)),
    ],
)
def test_stated_electrons(info, expected) -> None:
    water = molecule("H2O")
    water.info.update(info)
    stated = stated_electrons(water)
    assert stated.settled(water.numbers) == expected
    water.info = dict(stated.info)
    assert stated_electrons(water) == stated


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": "1+"}, r"charge=1\+ is no whole number of electrons"),
        ({"charge": 0.33}, r"charge=0\.33 is no whole number"),
        ({"multiplicity": 2}, "H2O with a charge of 0 has 10 electrons, of which 1 cannot be unpaired"),
        ({"multiplicity": 13}, "of which 12 cannot be unpaired"),
        ({"charge": 11}, "has -1 electrons"),
        ({"multiplicity": 0}, "of which -1 cannot be unpaired"),
    ],
)
def test_what_is_impossible_is_refused(info, message: str) -> None:
    water = molecule("H2O")
    water.info.update(info)
    stated = stated_electrons(water)  # a network does not mind
    with pytest.raises(MdpotError, match=message):
        stated.settled(water.numbers)
    water.info = dict(stated.info)
    assert stated_electrons(water) == stated


def test_charges_of_the_atoms_add_up_to_one_of_the_molecule() -> None:
    water = molecule("H2O")
    water.set_initial_charges([-0.2, 0.6, 0.6])
    assert stated_electrons(water).charge == 1
    water.set_initial_charges([-2.23, 0.62, 0.65])  # as they are rounded
    assert stated_electrons(water).charge == -1
    for charges in ([-0.2, 0.3, 0.3], [0, 0, 0]):  # of some model, and ASE's default
        water.set_initial_charges(charges)
        assert stated_electrons(water) == NOTHING_SAID
    water.info["charge"] = 0
    assert stated_electrons(water).charge == 0


def test_what_is_said_in_two_places_is_put_together() -> None:
    assert Electrons(None, 2).or_else(Electrons(-2, 0)) == Electrons(-2, 2)
    assert Electrons(-1).or_else(Electrons(1, 1)) == Electrons(-1, 1)
    assert Electrons(spin=1).or_else(Electrons(-1, 2)) == Electrons(-1, None, 1)
    assert of_multiplicity(None, 3).or_else(NOTHING_SAID) == Electrons(None, 2)
    # Hexafluorophosphate: 69 electrons without its charge, which is said elsewhere.
    numbers = np.array([15, *[9] * 6])
    assert Electrons(spin=1).or_else(of_multiplicity(-1, None)).settled(numbers) == (-1, 0)


def test_a_neutral_radical_has_to_be_stated() -> None:
    methyl = molecule("CH3").numbers
    with pytest.raises(MdpotError, match=r"CH3 has an odd number of electrons.*--charge 1"):
        NOTHING_SAID.settled(methyl)
    assert Electrons(0).settled(methyl) == (0, None)
    assert Electrons(None, 1).settled(methyl) == (0, 1)
    assert Electrons(1).settled(methyl) == (1, None)
    with pytest.raises(MdpotError, match="CH3 with a charge of 1 has 8 electrons, of which 1 cannot be unpaired"):
        Electrons(1, 1).settled(methyl)


def test_gfn2_xtb_of_an_ion() -> None:
    pytest.importorskip("tblite")
    label = FORCE_FIELDS["gfn2-xtb"].label
    ammonium = Atoms("NH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]])
    with pytest.raises(MdpotError, match="H4N has an odd number of electrons"):
        label(Structure.of(ammonium))
    cation, radical = (label(Structure.of(ammonium, e)) for e in (Electrons(1), Electrons(0, 1)))
    assert cation is not None
    assert radical is not None
    # Ammonium is bound tightly: the electron that it lacks would sit in an antibonding orbital.
    assert 3 < cation[0] - radical[0] < 9
    assert np.abs(cation[1] - radical[1]).max() > 0.1

    oxygen = Atoms("O2", [[0, 0, 0], [0, 0, 1.21]])
    singlet, triplet = (label(Structure.of(oxygen, Electrons(0, n))) for n in (0, 2))
    assert singlet is not None
    assert triplet is not None
    assert triplet[0] != singlet[0]
