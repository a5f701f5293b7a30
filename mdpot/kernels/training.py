"""A Tide in training, computed by the fused kernels: energies, forces, stress, and their gradients by the weights.

The gradients are exact and need no second derivative, see `gradient.h` and docs/engine.md.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdpot.errors import unknown
from mdpot.heads import Potential
from mdpot.kernels.describe import trained_weights
from mdpot.kernels.errors import Clash, NoKernel, NotFinite
from mdpot.kernels.kernel import Kernel

OUTPUTS = ("energy", "energies", "interaction", "forces", "stress", "derivative")
"""What `TrainingKernel` computes: all outputs of a potential but its vector head's."""

MOST_WEIGHTS = 2**24
"""In float32 the kernels number the weights up to here."""


class TrainingKernel:
    """A potential in fused kernels that follows its weights: called as `Potential.forward` is, with the same result.

    What it returns carries gradients to the weights, of the first order: a loss of energies, forces and stress can be
    differentiated. Same results to the bit for the same number of threads, which is torch's.

    Args:
        potential: a Tide on the CPU. Its weights may change, its pair energy, wall and reference may not.
        lib: a library of `mdpot.kernels.library.load`; None is the best one for this machine.

    Raises:
        NoKernel: another architecture, or no compiled library.
    """

    def __init__(self, potential: Potential, lib: ctypes.CDLL | None = None) -> None:
        self.kernel = Kernel(potential, lib=lib)
        self.weights = trained_weights(potential)
        if (n_weights := self.kernel.description.weights.size) >= MOST_WEIGHTS and self.kernel.dtype == torch.float32:
            raise NoKernel(
                f"they train networks of less than {MOST_WEIGHTS:,} weights in float32; it has {n_weights:,}."
            )
        self._lookup = potential.lookup.numpy()
        self._shift = potential.shift.numpy()
        self._flat = torch.zeros(self.kernel.description.weights.size, dtype=torch.float64)
        self._flat_array = self._flat.numpy()
        sizes = [weight.numel() for weight in self.weights]
        self._sizes = [*sizes, self._flat.numel() - sum(sizes)]
        self._views = [v.view_as(w) for v, w in zip(self._flat.split(self._sizes), self.weights, strict=False)]
        self._versions: list[int] = []
        self.kernel.call("train", ctypes.byref(self.kernel.description.structure()))

    def __call__(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        marks: Tensor | None = None,
        outputs: list[str] | None = None,
    ) -> dict[str, Tensor]:
        """What is asked for of a batch of structures; see `Potential.forward`, of which it knows `OUTPUTS`.

        Raises:
            MdpotError: another output, or positions that are not finite.
        """
        wanted = ["energy", "forces"] if outputs is None else outputs
        for name in wanted:
            if name not in OUTPUTS:
                raise unknown("output of the kernels", name, OUTPUTS)
        batch = self._batch(numbers, positions, cell, system, edge_index, shifts, marks, "stress" in wanted)
        found: Any = _Evaluation.apply(self, batch, *self.weights)
        out: dict[str, Tensor] = dict(
            zip(("energies", "energy", "interaction", "forces", "stress"), found, strict=True)
        )
        out["derivative"] = out["forces"]
        always = ("energies", "energy", "interaction")
        return {name: value for name, value in out.items() if name in always or name in wanted}

    def evaluate(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Energies [n_atoms], eV, forces [n_atoms, 3], eV/Å, and virials [n_systems, 3, 3], eV, if wanted."""
        n = len(batch.species)
        energies, forces = np.empty(n), np.empty((n, 3))
        virials = None if batch.inverse_volume is None else np.empty(batch.cell.shape)
        self._follow_weights()
        try:
            self.kernel.call("evaluate", *batch.arguments(), energies, forces, virials)
        except Clash:
            # Weights that have diverged: as with torch, who trains sees it by the numbers.
            for array in (energies, forces, virials):
                if array is not None:
                    array.fill(np.nan)
        return energies, forces, virials

    def gradients(
        self, batch: _Batch, by_energies: np.ndarray, by_forces: np.ndarray | None, by_virials: np.ndarray | None
    ) -> list[Tensor]:
        """The derivatives of a loss by the weights, from those by energies [n_atoms], forces [n_atoms, 3] and virials
        [n_systems, 3, 3]; None is zero."""
        gradient = np.empty(self._flat.numel())
        moved = None if by_forces is None else -by_forces
        # A sum keeps the order of its terms in memory, which need not be that of C.
        strain = (
            None if by_virials is None else np.ascontiguousarray(0.5 * (by_virials + by_virials.transpose(0, 2, 1)))
        )
        self._follow_weights()
        try:
            self.kernel.call("gradient", *batch.arguments(), by_energies, moved, strain, gradient)
        except (Clash, NotFinite):  # not finite: the derivatives of the loss
            gradient.fill(np.nan)
        parts = torch.from_numpy(gradient).to(self.weights[0].dtype).split(self._sizes)
        return [part.view_as(weight) for part, weight in zip(parts, self.weights, strict=False)]

    def _follow_weights(self) -> None:
        versions = [weight._version for weight in self.weights]
        if versions != self._versions:
            with torch.no_grad():
                torch._foreach_copy_(self._views, self.weights)  # pyright: ignore[reportPrivateImportUsage]
            self.kernel.call("update", self._flat_array)
            self._versions = versions

    def _batch(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        marks: Tensor | None,
        stress: bool,
    ) -> _Batch:
        species = self._lookup[numbers.numpy()].astype(np.int32)
        volume = cell.detach().double().det().abs().numpy() if stress else np.zeros(0)
        inverse = np.divide(1.0, volume, out=np.zeros_like(volume), where=volume > 0)
        return _Batch(
            species=species,
            positions=np.ascontiguousarray(positions.detach().double().numpy()),
            marks=None if marks is None or not bool(marks.any()) else marks.double().numpy(),
            system=system.to(torch.int32).numpy(),
            cell=np.ascontiguousarray(cell.detach().double().numpy()),
            first=np.ascontiguousarray(edge_index[0].numpy()),
            second=np.ascontiguousarray(edge_index[1].numpy()),
            shifts=np.ascontiguousarray(shifts.to(torch.int32).numpy()),
            reference=self._shift[species],
            inverse_volume=inverse if stress else None,
            dtype=positions.dtype,
        )


@dataclass(frozen=True)
class _Batch:
    """Structures as the kernels take them, see `mdpot_kernel_evaluate`.

    Attributes:
        reference: [n_atoms], eV, of each atom.
        inverse_volume: [n_systems], 1/Å^3, zero without a volume; None where no stress is wanted.
        dtype: of the positions.
    """

    species: np.ndarray
    positions: np.ndarray
    marks: np.ndarray | None
    system: np.ndarray
    cell: np.ndarray
    first: np.ndarray
    second: np.ndarray
    shifts: np.ndarray
    reference: np.ndarray
    inverse_volume: np.ndarray | None
    dtype: torch.dtype

    def arguments(self) -> tuple[Any, ...]:
        atoms = (len(self.species), self.species, self.positions, self.marks)
        return (*atoms, len(self.cell), self.system, self.cell, len(self.first), self.first, self.second, self.shifts)

    def per_system(self, values: np.ndarray) -> np.ndarray:
        """Sums [n_systems] of values [n_atoms]."""
        return np.bincount(self.system, values, len(self.cell)).astype(
            np.float64
        )  # without atoms it counts in integers


class _Evaluation(torch.autograd.Function):
    """Energies, forces and stress as functions of the weights."""

    @staticmethod
    def forward(ctx: Any, kernel: TrainingKernel, batch: _Batch, *weights: Tensor) -> tuple[Any, ...]:
        energies, forces, virials = kernel.evaluate(batch)
        ctx.kernel, ctx.batch = kernel, batch
        ctx.save_for_backward(*weights)  # so that torch sees to it that they are the same in `backward`
        ctx.set_materialize_grads(False)
        found = None
        if virials is not None and batch.inverse_volume is not None:
            found = torch.from_numpy(virials * batch.inverse_volume[:, None, None]).to(batch.dtype)
        return (
            torch.from_numpy(energies),
            torch.from_numpy(batch.per_system(energies)),
            torch.from_numpy(batch.per_system(energies - batch.reference)).to(weights[0].dtype),
            torch.from_numpy(forces).to(batch.dtype),
            found,
        )

    @staticmethod
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Any, ...]:
        _ = ctx.saved_tensors  # raises where the weights have changed since
        batch = ctx.batch
        energies, energy, interaction, forces, stress = (None if d is None else d.double().numpy() for d in by)
        by_energies = np.zeros(len(batch.species)) if energies is None else energies.copy()
        for of_system in (energy, interaction):
            if of_system is not None:
                by_energies += of_system[batch.system]
        by_virials = None
        if stress is not None and batch.inverse_volume is not None:
            by_virials = stress * batch.inverse_volume[:, None, None]
        by_forces = None if forces is None else np.ascontiguousarray(forces)
        found = ctx.kernel.gradients(batch, by_energies, by_forces, by_virials)
        needed = ctx.needs_input_grad[2:]
        return (None, None, *(g if want else None for g, want in zip(found, needed, strict=True)))
