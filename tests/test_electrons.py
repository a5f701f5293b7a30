"""Charge and spin of structures: where they are stated, and that an ion is not taken for a neutral molecule."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mdpot import MdpotError
from mdpot.electrons import Electrons, check_electrons, stated_electrons
from mdpot.forcefields import FORCE_FIELDS, Structure


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, None),
        ({"charge": -1}, Electrons(-1)),
        ({"total_charge": 1.0, "spin": 1}, Electrons(1, 1)),
        ({"charge": "one"}, None),
        ({"charge": 0.33}, None),
        ({"charge": np.int64(2)}, Electrons(2)),
        ({"charge": np.array([1])}, Electrons(1)),
        ({"charge": np.zeros(3)}, None),
        ({"charge": np.nan}, None),
        ({"charge": True}, None),
        # Water has ten electrons: one of the two readings fits.
        ({"multiplicity": 3}, Electrons(0, 2)),
        ({"spin": 0}, Electrons(0, 0)),
        ({"spin": 1}, Electrons(0, 0)),
        ({"spin": 2}, Electrons(0, 2)),
        ({"charge": 1, "spin": 1}, Electrons(1, 1)),
        ({"charge": 1, "spin_multiplicity": 2}, Electrons(1, 1)),
    ],
)
def test_stated_electrons(info, expected) -> None:
    water = molecule("H2O")
    water.info.update(info)
    assert stated_electrons(water) == expected


def test_charges_of_the_atoms_add_up_to_one_of_the_molecule() -> None:
    water = molecule("H2O")
    water.set_initial_charges([-0.2, 0.6, 0.6])
    assert stated_electrons(water) == Electrons(1)
    water.set_initial_charges([-2.23, 0.62, 0.65])  # as they are rounded
    assert stated_electrons(water) == Electrons(-1)
    water.set_initial_charges([-0.2, 0.3, 0.3])  # of some model
    assert stated_electrons(water) is None
    water.info["charge"] = 0
    assert stated_electrons(water) == Electrons(0)


def test_a_neutral_radical_has_to_be_stated() -> None:
    methyl = molecule("CH3").numbers
    with pytest.raises(MdpotError, match=r"CH3 has an odd number of electrons.*data\.charge"):
        check_electrons(None, methyl)
    for stated in (Electrons(0), Electrons(0, 1), Electrons(1)):
        assert check_electrons(stated, methyl) == stated
    with pytest.raises(MdpotError, match="CH3 with a charge of 1 has 8 electrons, of which 1 cannot be unpaired"):
        check_electrons(Electrons(1, 1), methyl)


def test_gfn2_xtb_of_an_ion() -> None:
    pytest.importorskip("tblite")
    label = FORCE_FIELDS["gfn2-xtb"].label
    ammonium = Atoms("NH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6], [0.6, -0.6, -0.6]])
    with pytest.raises(MdpotError, match="H4N has an odd number of electrons"):
        label(Structure.of(ammonium, None))
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
