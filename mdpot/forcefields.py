"""Force fields that cost nothing beside DFT: energies and forces of any structures that they describe.

A network can learn one first (pretraining by supervised forces; see the derivative-pretraining paper), or what DFT has
beyond it (Δ-machine learning).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms

from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError, unknown
from mdpot.molecules import find_molecules, is_bond
from mdpot.neighbors import neighbor_list
from mdpot.units import BOHR, HARTREE, KCAL_PER_MOL


class AnyStructure(Protocol):
    """What a force field reads: a `Structure`, or a `Frame` of the training.

    Attributes:
        numbers: [n_atoms], atomic numbers.
        positions: [n_atoms, 3], Å.
        cell: [3, 3], Å, lattice vectors as rows.
        pbc: [3] bool.
        electrons: what is said of them.
    """

    @property
    def numbers(self) -> np.ndarray: ...
    @property
    def positions(self) -> np.ndarray: ...
    @property
    def cell(self) -> np.ndarray: ...
    @property
    def pbc(self) -> np.ndarray: ...
    @property
    def electrons(self) -> Electrons: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Structure:
    """Atoms as a force field reads them; attributes as of `AnyStructure`."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    electrons: Electrons = NOTHING_SAID

    @classmethod
    def of(cls, atoms: Atoms, electrons: Electrons = NOTHING_SAID) -> Structure:
        """ASE's `Atoms`, whose electrons are said beside."""
        return cls(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, electrons)

    def __len__(self) -> int:
        return len(self.numbers)


NOT_DESCRIBED = (
    "{baseline}, which the potential corrects, does not describe these atoms: broken or other molecules, directions of "
    "which some are periodic, or it does not converge for them."
)


#: What a force field gives for a structure: energy, eV, and forces [n_atoms, 3], eV/Å; None where it describes it not.
Labels = tuple[float, np.ndarray] | None


@dataclass(frozen=True)
class ForceField:
    """A way to label structures.

    Attributes:
        description: one line: what it is, what it describes, what it costs.
        label: the labels of one structure.
        follower: makes what labels the steps of one trajectory, each faster for the one before; None where that is
            `label`.
    """

    description: str
    label: Callable[[AnyStructure], Labels]
    follower: Callable[[], Callable[[AnyStructure], Labels]] | None = None

    def labels_of_steps(self) -> Callable[[AnyStructure], Labels]:
        """What labels the steps of one trajectory, in their order."""
        return self.label if self.follower is None else self.follower()


@dataclass(frozen=True)
class SPCFw:
    """Flexible SPC/Fw water (Wu, Tepper and Voth, J. Chem. Phys. 124, 024503, 2006, table I), in eV, Å and e.

    The Coulomb sum is damped and shifted (Fennell and Gezelter, J. Chem. Phys. 124, 234104, 2006, eq. 17) and the
    Lennard-Jones potential shifted likewise, so that energy and forces are continuous at the cutoff.
    """

    bond: float = 1059.162 * KCAL_PER_MOL  # eV/Å^2
    length: float = 1.012  # Å
    angle: float = 75.90 * KCAL_PER_MOL  # eV/rad^2
    equilibrium: float = math.radians(113.24)
    epsilon: float = 0.1554253 * KCAL_PER_MOL
    sigma: float = 3.165492
    charge: float = 0.41  # of H; O has -2 of these
    cutoff: float = 9.0
    damping: float = 0.2  # 1/Å

    def label(self, frame: AnyStructure) -> Labels:
        """Energy and forces of a frame of whole H2O molecules, in any order and any cell."""
        if not set(np.unique(frame.numbers).tolist()) <= {1, 8} or frame.electrons.charge:
            return None
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, self.cutoff)
        offsets = shifts @ np.where(frame.pbc[:, None], frame.cell, 0.0)
        arms = _arms(frame, i, j, shifts, offsets)
        if arms is None:
            return None
        positions = torch.tensor(frame.positions, dtype=torch.float64, requires_grad=True)
        is_oxygen = torch.from_numpy(frame.numbers == 8)
        charges = torch.where(is_oxygen, -2 * self.charge, self.charge).double()
        # Each pair once; an atom and its own image are listed in both directions, so each counts half.
        pairs = np.flatnonzero(i <= j)
        first, second = torch.from_numpy(i[pairs]), torch.from_numpy(j[pairs])
        weight = torch.where(first == second, 0.5, 1.0).double()
        oxygens = torch.nonzero(is_oxygen[first] & is_oxygen[second])[:, 0]
        distance = (positions[second] - positions[first] + torch.from_numpy(offsets[pairs])).norm(dim=1)
        products = weight * charges[first] * charges[second]
        energy = (products * self._shifted(self._coulomb, distance)).sum()
        energy = energy + (weight[oxygens] * self._shifted(self._lennard_jones, distance[oxygens])).sum()
        bonds = positions[torch.from_numpy(j[arms])] - positions[torch.from_numpy(i[arms])]
        energy = energy + self._molecules(bonds + torch.from_numpy(offsets[arms])) + self._self_energy(charges)
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.item(), -gradient.numpy()

    def _coulomb(self, r: torch.Tensor) -> torch.Tensor:
        return HARTREE * BOHR * torch.erfc(self.damping * r) / r

    def _lennard_jones(self, r: torch.Tensor) -> torch.Tensor:
        attraction = (self.sigma / r) ** 6
        return 4 * self.epsilon * (attraction * attraction - attraction)

    def _shifted(self, potential: Callable[[torch.Tensor], torch.Tensor], r: torch.Tensor) -> torch.Tensor:
        """v(r) - v(R) - v'(R) (r - R) at distances [n_pairs] inside the cutoff R."""
        end = torch.tensor(self.cutoff, dtype=torch.float64, requires_grad=True)
        value = potential(end)
        (slope,) = torch.autograd.grad(value, end)
        return potential(r) - value.detach() - slope * (r - self.cutoff)

    def _self_energy(self, charges: torch.Tensor) -> torch.Tensor:
        """What the damping adds for each charge alone; it does not depend on the positions."""
        reach = self.damping * self.cutoff
        value = math.erfc(reach) / (2 * self.cutoff) + self.damping / math.sqrt(math.pi)
        return -HARTREE * BOHR * value * (charges**2).sum()

    def _molecules(self, vectors: torch.Tensor) -> torch.Tensor:
        """Bonds and angles of molecules with these vectors O→H [n_molecules, 2, 3], less the Coulomb energy inside."""
        first, second = vectors.unbind(1)
        a, b, c = first.norm(dim=1), second.norm(dim=1), (second - first).norm(dim=1)
        theta = torch.arccos((first * second).sum(1) / (a * b))
        bonds = self.bond / 2 * ((a - self.length) ** 2 + (b - self.length) ** 2)
        inside = HARTREE * BOHR * self.charge**2 * (1 / c - 2 / a - 2 / b)
        return (bonds + self.angle / 2 * (theta - self.equilibrium) ** 2 - inside).sum()


def _arms(
    frame: AnyStructure, i: np.ndarray, j: np.ndarray, shifts: np.ndarray, offsets: np.ndarray
) -> np.ndarray | None:
    """The edges [n_molecules, 2] from each O to its two H; None where not every atom belongs to a whole H2O."""
    near = frame.positions[j] - frame.positions[i] + offsets
    bonds = np.flatnonzero(is_bond(frame.numbers[i], frame.numbers[j], np.einsum("ij,ij->i", near, near)))
    molecule, _ = find_molecules(frame.numbers, np.stack([i[bonds], j[bonds]]), shifts[bonds], "H2O")
    arms = bonds[(frame.numbers[i[bonds]] == 8) & (frame.numbers[j[bonds]] == 1)]
    counts = np.bincount(i[arms], minlength=len(frame))[frame.numbers == 8]
    # The edges are sorted by their first atom, so the two of a molecule follow each other.
    return arms.reshape(-1, 2) if (molecule >= 0).all() and (counts == 2).all() else None


class GFN2xTB:
    """GFN2-xTB by tblite, at the Γ point: in cells of a few Å not converged, yet a smooth potential.

    Called with a structure, it gives its labels. Where it has given some before, the electrons begin as they were then,
    so the atoms, their charge, and their spin must be the same. Of steps of 1 fs that saves a fifth (ethanol) to a
    quarter (aspirin) of the time. Forces on molecules differ by less than 1 meV/Å from those of a new start; of metals,
    whose electrons may settle in several ways, periodic structures begin anew.
    """

    def __init__(self) -> None:
        self._calculator: Any = None
        self._result: Any = None

    def __call__(self, frame: AnyStructure) -> Labels:
        """The labels of a structure.

        Raises:
            MdpotError: tblite is not installed, or the electrons of the structure are not known (see
                `Electrons.settled`).
        """
        try:
            from tblite.exceptions import TBLiteRuntimeError
            from tblite.interface import Calculator
        except ModuleNotFoundError:
            raise MdpotError("force field 'gfn2-xtb' needs tblite. pip install 'mdpot[xtb]'") from None
        if frame.pbc.any():
            if not frame.pbc.all():
                return None
            self._result = None
        try:
            self._set(frame, Calculator)
            self._result = self._calculator.singlepoint(self._result)
        except TBLiteRuntimeError:
            again, self._result = self._result is not None, None
            return self(frame) if again else None
        return float(self._result.get("energy")) * HARTREE, -self._result.get("gradient") * HARTREE / BOHR

    def _set(self, frame: AnyStructure, new: Callable[..., Any]) -> None:
        """Makes the calculator one of this structure."""
        positions = frame.positions / BOHR
        if self._result is not None:
            self._calculator.update(positions)
            return
        lattice = frame.cell / BOHR if frame.pbc.all() else None
        charge, unpaired = frame.electrons.settled(frame.numbers)
        self._calculator = new("GFN2-xTB", frame.numbers, positions, charge=charge, uhf=unpaired, lattice=lattice)
        self._calculator.set("verbosity", 0)


def gfn2_xtb(frame: AnyStructure) -> Labels:
    """The labels of a structure by GFN2-xTB; errors of `GFN2xTB`."""
    return GFN2xTB()(frame)


FORCE_FIELDS: dict[str, ForceField] = {
    "spcfw": ForceField("flexible SPC/Fw water; whole H2O molecules only; milliseconds a frame", SPCFw().label),
    "gfn2-xtb": ForceField(
        "the tight-binding method GFN2-xTB; elements up to radon, all directions periodic or none; seconds a frame",
        gfn2_xtb,
        GFN2xTB,
    ),
}


def find_forcefield(name: str) -> ForceField:
    """The force field of a name.

    Raises:
        MdpotError: there is none.
    """
    if name not in FORCE_FIELDS:
        raise unknown("force field", name, FORCE_FIELDS)
    return FORCE_FIELDS[name]
