"""How close atoms come: against ASE's distances; and rare pairs, which a wall must not keep apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import covalent_radii

from mdpot.training.contacts import (
    CONTACT,
    ENOUGH_GROUPS,
    WALL,
    Contact,
    closest_approach,
    shortest_contacts,
    wall_starts,
)
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store


def pair(a: int, b: int, distance: float, group: str) -> Frame:
    """Two atoms alone."""
    positions = np.array([[0.0, 0, 0], [distance, 0, 0]])
    return Frame(np.array([a, b]), positions, np.zeros((3, 3)), np.zeros(3, bool), 0.0, np.zeros((2, 3)), None, group)


def test_the_shortest_contact_of_each_pair_and_who_saw_it() -> None:
    near = [pair(1, 8, 0.95 + 0.001 * n, f"g{n}") for n in range(12)]
    far = [pair(8, 1, 3.0, f"g{n}") for n in range(12)]
    once = [pair(8, 8, 2.9, "g0"), pair(8, 8, 3.3, "g1")]
    found = shortest_contacts(Store(near + far + once, 4.0))
    assert found == {(1, 8): Contact(0.95, 12), (8, 8): Contact(2.9, 1)}


def test_enough_witnesses_are_believed_and_few_are_not() -> None:
    contacts = {(1, 8): Contact(0.9, 50), (8, 8): Contact(3.5, 1), (1, 1): Contact(1.5, ENOUGH_GROUPS)}
    closest = closest_approach([1, 8, 11], contacts)
    ratio = 0.9 / (covalent_radii[1] + covalent_radii[8])
    assert closest[1, 8] == pytest.approx(0.9)
    assert closest[1, 1] == pytest.approx(1.5)
    # Seen once, far apart: about as close as any pair of the set comes.
    assert ratio * 2 * covalent_radii[8] < closest[8, 8] < 0.5 * 3.5
    # Never seen.
    assert closest[8, 11] == pytest.approx(ratio * (covalent_radii[8] + covalent_radii[11]))


def test_the_wall_starts_inside_the_closest_approach_and_lets_atoms_touch() -> None:
    closest = closest_approach([1, 8], {(1, 8): Contact(0.9, 50), (8, 8): Contact(9.0, 50), (1, 1): Contact(1.5, 50)})
    starts = wall_starts([1, 8], closest)
    assert starts[0][1] == starts[1][0] == pytest.approx(WALL * 0.9)
    assert starts[0][0] == pytest.approx(WALL * 1.5)
    assert starts[1][1] == pytest.approx(CONTACT * 3.0)  # twice Alvarez's radius of oxygen


def test_atoms_that_never_meet_have_no_contact() -> None:
    assert shortest_contacts(Store([pair(18, 18, 5.0 + 0.1 * n, "") for n in range(12)], 4.0)) == {}
