"""The labels that a frame may carry, by name: what each is one of, its shape and its unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A kind of label.

    Attributes:
        per: whether a frame has one, or each of its atoms.
        shape: of one.
        unit: "" for a property, which is in the unit of its data.
    """

    per: Literal["frame", "atom"]
    shape: tuple[int, ...] = ()
    unit: str = ""

    def rows(self, n_atoms: int) -> int:
        """How many a frame of so many atoms has."""
        return n_atoms if self.per == "atom" else 1


TARGETS = {
    "energy": Target("frame", (), "eV"),
    "forces": Target("atom", (3,), "eV/Å"),
    "stress": Target("frame", (3, 3), "eV/Å^3"),
}
"""Energy and its derivatives: forces -dE/dx, and the stress dE/dε/V, positive under tension."""

PROPERTY = Target("frame")
"""Any other name is that of a property, a number of the whole structure."""


def target(name: str) -> Target:
    """What a label of this name is."""
    return TARGETS.get(name, PROPERTY)
