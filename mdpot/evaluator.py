"""A potential together with its own neighbor list: what an exported file and an OpenMM force hold inside.

Everything here scripts and needs nothing but torch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.heads import AnyPotential
from mdpot.torch_neighbors import TorchNeighborList
from mdpot.units import KJ_PER_MOL, NM


@dataclass(frozen=True)
class Particles:
    """Which particles of an OpenMM System are the atoms of a potential.

    Attributes:
        numbers: [n_atoms], atomic numbers.
        atoms: [n_atoms], their indices among the particles, ascending; None: the particles are the atoms.
        count: number of particles.
    """

    numbers: list[int]
    atoms: list[int] | None
    count: int

    def enter(self, module: Any) -> None:
        """Tells a `ForOpenMM`, scripted or not; errors as its `set_atoms`."""
        numbers = torch.tensor(self.numbers, dtype=torch.int64)
        if self.atoms is None:
            module.set_atoms(numbers, None, 0)
        else:
            module.set_atoms(numbers, torch.tensor(self.atoms, dtype=torch.int64), self.count)


class Evaluator(nn.Module):
    """From atoms in a cell to energy and forces, in eV and Å.

    Neighbors, edge vectors and sums are in float64 whatever the precision of the network, so that coordinates
    far from the origin cost no accuracy.

    Args:
        potential: in evaluation mode, on any device.
        skin: Å, see `TorchNeighborList`.
    """

    lookup: Tensor

    def __init__(self, potential: AnyPotential, skin: float = 0.5):
        super().__init__()
        self.potential = potential
        self.neighbors = TorchNeighborList(potential.cutoff, skin)
        self.register_buffer("lookup", potential.lookup, persistent=False)  # type: ignore[arg-type]
        self.eval()

    def forward(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor, outputs: list[str] | None = None
    ) -> dict[str, Tensor]:
        """What is asked for, see `Potential.forward`.

        Args:
            numbers: [n_atoms] int64, atomic numbers, all among those trained.
            positions: [n_atoms, 3], Å, wrapped or not.
            cell: [3, 3], Å, rows are lattice vectors; rows of aperiodic directions are ignored.
            pbc: [3] bool, periodic directions.
            outputs: names; None is energy and forces. The stress is zero without three cell vectors.

        Returns:
            "energy" [1] float64 eV, "energies" [n_atoms] float64 eV, "interaction" [1] eV, and where asked "forces"
            [n_atoms, 3] float64 eV/Å, "stress" [1, 3, 3] float64 eV/Å^3 (positive under tension), …

        Raises:
            MdpotError: an element was not trained, shapes do not fit, positions are not finite, a periodic direction
                has no cell vector, or as `Potential.forward`.
        """
        device = self.lookup.device
        if positions.dim() != 2 or positions.shape[1] != 3 or positions.shape[0] != numbers.shape[0]:
            raise MdpotError(
                "positions: must be [n_atoms, 3] with n_atoms = "
                + str(numbers.shape[0])
                + " as in numbers; got "
                + str(positions.shape)
                + "."
            )
        numbers = numbers.to(device)
        # A copy without gradient, because torch.jit.freeze drops detach() and openmmtorch freezes what it
        # loads; positions that require a gradient would make the potential keep its graph for a second
        # derivative.
        with torch.no_grad():
            positions = positions.to(device=device, dtype=torch.float64, copy=True)
            cell = cell.to(device=device, dtype=torch.float64, copy=True)
        self.require_trained(numbers)
        edge_index, shifts = self.neighbors(positions, cell, pbc)
        system = torch.zeros_like(numbers)
        return self.potential(numbers, positions, cell.unsqueeze(0), system, edge_index, shifts, None, outputs)

    def require_trained(self, numbers: Tensor) -> None:
        """Raises MdpotError where `numbers` [n_atoms] holds an element that was not trained."""
        lookup = self.lookup
        known = (numbers >= 0) & (numbers < lookup.shape[0])
        known = known & (lookup.index_select(0, torch.where(known, numbers, torch.zeros_like(numbers))) >= 0)
        if not bool(known.all()):
            wrong: list[int] = torch.unique(numbers[~known]).tolist()
            elements: list[int] = (lookup >= 0).nonzero().squeeze(1).tolist()
            raise MdpotError(
                "numbers: this potential was trained for the elements with atomic numbers "
                + str(elements)
                + "; it knows nothing of "
                + str(wrong)
                + "."
            )


def usual_outputs(stress: bool) -> list[str]:
    """The outputs that an exported file gives, whose call has a flag for the stress."""
    return ["energy", "forces", "stress"] if stress else ["energy", "forces"]


class ForASE(nn.Module):
    """What a file exported for ASE holds: energy and forces, in eV and Å, and the stress where `compute_stress`."""

    def __init__(self, evaluator: Evaluator, metadata: str):
        super().__init__()
        self.evaluator = evaluator
        self.metadata_json = metadata
        self.eval()

    def forward(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor, compute_stress: bool = False
    ) -> dict[str, Tensor]:
        return self.evaluator(numbers, positions, cell, pbc, usual_outputs(compute_stress))

    @torch.jit.export
    def evaluate(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor, compute_stress: bool = False
    ) -> dict[str, Tensor]:
        return self.evaluator(numbers, positions, cell, pbc, usual_outputs(compute_stress))

    @torch.jit.export
    def metadata(self) -> str:
        return self.metadata_json


class ForOpenMM(nn.Module):
    """What a file exported for OpenMM holds: called as openmmtorch's TorchForce does, in nm and kJ/mol.

    Args:
        evaluator: the potential.
        metadata: JSON.
    """

    numbers: Tensor
    atoms: Tensor

    def __init__(self, evaluator: Evaluator, metadata: str):
        super().__init__()
        self.evaluator = evaluator
        self.metadata_json = metadata
        self.n_particles = 0  # 0: the atoms are all particles
        self.register_buffer("numbers", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("atoms", torch.zeros(0, dtype=torch.int64))
        # Factors are attributes because TorchScript sees no globals.
        self.length = NM
        self.energy = KJ_PER_MOL
        self.eval()

    def forward(self, positions: Tensor, boxvectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces of the atoms set by `set_atoms`.

        Args:
            positions: [n_particles, 3], nm.
            boxvectors: [3, 3], nm; None without periodic boundaries.

        Returns:
            energy [] float64, kJ/mol, and forces [n_particles, 3] in the dtype of the positions, kJ/mol/nm;
            zero on particles that are not among the atoms.
        """
        if self.numbers.shape[0] == 0:
            raise MdpotError("this file does not say which atoms it is for: call set_atoms(numbers) first.")
        device = self.numbers.device
        with torch.no_grad():
            x = positions.to(device=device, dtype=torch.float64) * self.length
        if self.n_particles > 0:
            if x.shape[0] != self.n_particles:
                raise MdpotError(
                    "positions: the atoms were set for a system of "
                    + str(self.n_particles)
                    + " particles; got "
                    + str(x.shape[0])
                    + "."
                )
            x = x.index_select(0, self.atoms)
        if boxvectors is None:
            cell = torch.zeros(3, 3, dtype=torch.float64, device=device)
            pbc = torch.zeros(3, dtype=torch.bool)
        else:
            cell = boxvectors.to(device=device, dtype=torch.float64) * self.length
            pbc = torch.ones(3, dtype=torch.bool)
        out = self.evaluator(self.numbers, x, cell, pbc)
        forces = out["forces"] * (self.length / self.energy)
        if self.n_particles > 0:
            everywhere = torch.zeros(positions.shape[0], 3, dtype=forces.dtype, device=device)
            forces = everywhere.index_copy(0, self.atoms, forces)
        return out["energy"][0] / self.energy, forces.to(positions.dtype)

    @torch.jit.export
    def evaluate(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor, compute_stress: bool = False
    ) -> dict[str, Tensor]:
        """The potential in eV and Å, as `ForASE`."""
        return self.evaluator(numbers, positions, cell, pbc, usual_outputs(compute_stress))

    @torch.jit.export
    def set_atoms(self, numbers: Tensor, atoms: Tensor | None = None, n_particles: int = 0) -> None:
        """Says which particles are atoms of the potential.

        Args:
            numbers: [n_atoms] int64, atomic numbers.
            atoms: [n_atoms] int64, their indices among the particles; None: the particles are the atoms.
            n_particles: number of particles, where `atoms` is given.

        Raises:
            MdpotError: an element that was not trained, or indices that do not fit.
        """
        self.evaluator.require_trained(numbers.to(self.numbers.device))
        if atoms is None:
            self.n_particles = 0
            self.atoms = torch.zeros(0, dtype=torch.int64, device=self.numbers.device)
        else:
            if atoms.shape[0] != numbers.shape[0] or torch.unique(atoms).shape[0] != atoms.shape[0]:
                raise MdpotError("atoms: must be one different index for each of numbers.")
            if int(atoms.min().item()) < 0 or int(atoms.max().item()) >= n_particles:
                raise MdpotError("atoms: indices must be from 0 to below n_particles.")
            self.n_particles = n_particles
            self.atoms = atoms.to(device=self.numbers.device, dtype=torch.int64)
        self.numbers = numbers.to(device=self.numbers.device, dtype=torch.int64)

    @torch.jit.export
    def metadata(self) -> str:
        return self.metadata_json
