"""Who computes a potential on a CPU: the fused kernels where they can, else torch; and the kernels with their list."""

from __future__ import annotations

import logging

import numpy as np

from mdpot.heads import Potential, PotentialEnsemble
from mdpot.kernels import library
from mdpot.kernels.errors import NoKernel
from mdpot.kernels.kernel import Kernel, Result
from mdpot.kernels.selftest import self_test
from mdpot.models import Tide
from mdpot.neighbors import VerletList

logger = logging.getLogger("mdpot.kernels")
_told: set[str] = set()


class Native:
    """A potential in fused kernels, with its neighbor list.

    The list keeps pairs out to the cutoff and the skin; the kernels choose among them at every call.

    Args:
        kernel: of the potential.
        skin: Å, of the neighbor list.
    """

    def __init__(self, kernel: Kernel, skin: float) -> None:
        self.kernel = kernel
        self.neighbors = VerletList(kernel.cutoff, skin)

    def __call__(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, stress: bool = False
    ) -> Result:
        """Energies, forces and, where asked, the stress.

        Args:
            numbers: [n_atoms] atomic numbers.
            positions: [n_atoms, 3] float64, Å, wrapped or not.
            cell: [3, 3] float64, Å, rows are lattice vectors.
            pbc: [3] bool, periodic directions.
            stress: whether it is wanted.

        Raises:
            MdpotError: as `Kernel` and `neighbor_list`.
        """
        return self.kernel(numbers, positions, cell, self.neighbors.candidates(numbers, positions, cell, pbc), stress)

    @property
    def description(self) -> str:
        """In a few words, for logs."""
        return f"fused kernels ({self.kernel.instructions})"


def make_kernel(potential: Potential | PotentialEnsemble) -> Kernel:
    """The kernels of a potential, after a comparison with torch on a tiny structure.

    Raises:
        NoKernel: there are none here for this potential, or they do not agree with torch; the message says why.
        MdpotError: the environment variable `MDPOT_KERNELS` names what this machine does not run.
    """
    if not isinstance(potential, Potential):
        raise NoKernel("there are no kernels for an ensemble.")
    kernel = Kernel(potential)
    self_test(kernel, potential)
    return kernel


def find_kernel(potential: Potential | PotentialEnsemble) -> Kernel | None:
    """The same, or None where torch has to do it: said once in the log, as a warning where the kernels should be there.

    Raises:
        MdpotError: as `make_kernel`.
    """
    try:
        return make_kernel(potential)
    except NoKernel as error:
        expected = isinstance(potential, Potential) and isinstance(potential.backbone, Tide) and not library.is_off()
        if str(error) not in _told:
            _told.add(str(error))
            level = logging.WARNING if expected else logging.INFO
            logger.log(level, "torch computes this potential, not the ten times faster kernels: %s", error)
        return None


def engine_on_cpu(potential: Potential | PotentialEnsemble) -> str:
    """Who computes a potential on this machine's CPU, in a few words: "fused kernels (avx2)", or "torch" and why."""
    try:
        return f"fused kernels ({make_kernel(potential).instructions})"
    except NoKernel as error:
        return f"torch ({str(error).rstrip('.')})"
