"""Whether a kernel computes what torch does, on a structure of three atoms: asked once, when it is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mdpot.autograd import exact_gradients
from mdpot.evaluator import usual_outputs
from mdpot.heads import Potential
from mdpot.kernels.errors import NoKernel
from mdpot.kernels.kernel import Kernel
from mdpot.neighbors import neighbor_list

TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9}
"""Of the largest force and energy: a hundred times the rounding, a hundredth of what a wrong term would make."""


def self_test(kernel: Kernel, potential: Potential) -> None:
    """Compares energies, forces and stress of three atoms in a small periodic cell.

    Args:
        kernel: of this potential.
        potential: in evaluation mode.

    Raises:
        NoKernel: they differ.
    """
    numbers = np.resize(np.array(potential.elements), 3)
    reach = potential.cutoff / 4.0
    positions = reach * np.array([[0.1, 0.0, 0.2], [1.1, 0.1, 0.0], [0.3, 1.2, 0.5]])
    cell = reach * np.array([[2.6, 0.0, 0.0], [0.4, 2.8, 0.0], [0.1, 0.3, 2.7]])
    (i, j), shifts = neighbor_list(positions, cell, np.ones(3, bool), potential.cutoff)
    device = potential.lookup.device
    with torch.enable_grad(), exact_gradients():
        wanted = potential(
            torch.tensor(numbers, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(cell[None], device=device),
            torch.zeros(3, dtype=torch.int64, device=device),
            torch.tensor(np.stack([i, j]), device=device),
            torch.tensor(shifts, dtype=torch.float64, device=device),
            outputs=usual_outputs(True),
        )
    if not all(bool(torch.isfinite(value).all()) for value in wanted.values()):
        return  # weights that have diverged; there is nothing to compare
    found = kernel(numbers, positions, cell, (i, j, shifts), True)
    of_weights: Any = potential.readout[0].weight
    dtypes: list[torch.dtype] = [kernel.dtype, of_weights.dtype]
    dtype = max(dtypes, key=lambda t: TOLERANCE[t])
    shift = potential.shift.cpu().numpy()[potential.lookup.cpu().numpy()[numbers]]
    pairs = {
        "energies": (found.energies - shift, wanted["energies"].cpu().numpy() - shift),
        "forces": (found.forces, wanted["forces"].cpu().numpy()),
        "stress": (found.stress, wanted["stress"][0].cpu().numpy()),
    }
    for name, (ours, theirs) in pairs.items():
        largest = max(float(np.abs(theirs).max()), 1e-3 * potential.scale)
        # Not `> limit`: NaN must count as different.
        if not np.abs(ours - theirs).max() <= TOLERANCE[dtype] * largest:
            raise NoKernel(
                f"the kernels ({kernel.instructions}) differ from torch in the {name} of a test structure by "
                f"{np.abs(ours - theirs).max():.1e}, where the largest is {largest:.1e}."
            )
