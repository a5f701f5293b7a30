"""Elements that are alike begin alike, so that what a network learns of one of them it half knows of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

#: What neighbors in the periodic table share of where they begin; the rest is their own.
SHARED = 0.9
#: Differences in the period, the group, and the covalent radius (Å) over which elements become strangers.
LENGTHS = (2.0, 3.0, 0.5)
#: Less than this is nothing in common: hydrogen and oxygen begin as they always did.
LEAST = 1e-4
NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86, 118)


@torch.no_grad()
def relate(embedding: Tensor, elements: Sequence[int]) -> None:
    """Correlates the rows of a random embedding, in place, as far as their elements are near in the periodic table.

    Each row stays as random as it was. The covariance of two is `SHARED` exp(-d² / 2), where d is their distance in
    units of `LENGTHS`. What that saves where elements are many and frames of each are few: docs/tide.md.

    Args:
        embedding: [n_elements, width], independent normal numbers of variance one.
        elements: their atomic numbers.
    """
    places = np.array([[*period_and_group(z), covalent_radii[z]] for z in elements]) / LENGTHS
    squared = np.square(places[:, None] - places).sum(-1)
    common = np.exp(-0.5 * squared)
    common[common < LEAST] = 0.0
    covariance = SHARED * common + (1.0 - SHARED) * np.eye(len(elements))
    factor = torch.from_numpy(np.linalg.cholesky(covariance)).to(embedding)
    embedding.copy_(factor @ embedding)


def period_and_group(number: int) -> tuple[int, float]:
    """The place of an element in the periodic table; lanthanides and actinides lie side by side in groups 3 to 4."""
    period = next(n for n, last in enumerate(NOBLE_GASES) if number <= last)
    length = NOBLE_GASES[period] - NOBLE_GASES[period - 1]
    place = number - NOBLE_GASES[period - 1]
    if place <= 2 and length > 2:
        return period, place
    if length == 32 and place <= 17:
        return period, 3 + (place - 3) / 15
    return period, 18 - (NOBLE_GASES[period] - number) if place > 1 else 1
