"""A batch of structures as plain tensors, from ASE `Atoms` and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mdpot.neighbors import neighbor_list

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Graph:
    """Structures side by side, with their neighbor lists.

    The vector of an edge (i, j) is `positions[j] - positions[i] + shifts @ cell`: atom i receives, j is its neighbor.

    Attributes:
        numbers: [n_atoms] int64, atomic numbers.
        positions: [n_atoms, 3], Å.
        cell: [n_systems, 3, 3], Å, lattice vectors as rows; zeros where there is none.
        pbc: [n_systems, 3] bool, periodic directions.
        system: [n_atoms] int64, the structure an atom belongs to, ascending.
        edge_index: [2, n_edges] int64, sorted by central atom i.
        shifts: [n_edges, 3], integer lattice translations in the dtype of the positions.
    """

    numbers: torch.Tensor
    positions: torch.Tensor
    cell: torch.Tensor
    pbc: torch.Tensor
    system: torch.Tensor
    edge_index: torch.Tensor
    shifts: torch.Tensor

    @property
    def n_atoms(self) -> int:
        return self.numbers.shape[0]

    @property
    def n_systems(self) -> int:
        return self.cell.shape[0]

    @property
    def n_edges(self) -> int:
        return self.edge_index.shape[1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """A copy on `device`, its floating-point tensors in `dtype`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Graph(**{k: v.to(device, dtype if v.is_floating_point() else None) for k, v in values.items()})

    def replace(self, **tensors: torch.Tensor) -> Graph:
        """A copy in which some tensors are others."""
        return replace(self, **tensors)

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """The tensors that `Potential.forward` takes, in its order."""
        return self.numbers, self.positions, self.cell, self.system, self.edge_index, self.shifts

    @staticmethod
    def from_atoms(atoms: Atoms | Sequence[Atoms], cutoff: float, dtype: torch.dtype = torch.float32) -> Graph:
        """The graph of one or several ASE structures.

        Args:
            atoms: structures, in any cell, with any periodic directions, wrapped or not.
            cutoff: Å; edges are all pairs closer than this.
            dtype: of the floating-point tensors.

        Raises:
            MdpotError: a periodic structure without a cell, or positions that are not finite.
        """
        structures: list[Any] = [atoms] if hasattr(atoms, "numbers") else list(atoms)
        edges = [neighbor_list(a.positions, a.cell.array, a.pbc, cutoff) for a in structures]
        sizes = [len(a) for a in structures]
        starts = np.cumsum([0, *sizes])
        return Graph(
            numbers=torch.from_numpy(np.concatenate([a.numbers for a in structures]).astype(np.int64)),
            positions=torch.tensor(np.concatenate([a.positions for a in structures]), dtype=dtype),
            cell=torch.tensor(np.stack([a.cell.array for a in structures]), dtype=dtype),
            pbc=torch.tensor(np.stack([a.pbc for a in structures])),
            system=torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
            edge_index=torch.from_numpy(
                np.concatenate([e + start for (e, _), start in zip(edges, starts, strict=False)], axis=1)
            ),
            shifts=torch.tensor(np.concatenate([s for _, s in edges]), dtype=dtype),
        )

    def to_atoms(self) -> list[Atoms]:
        """The structures as ASE `Atoms`."""
        from ase import Atoms

        sizes = torch.bincount(self.system, minlength=self.n_systems).tolist()
        numbers, positions = self.numbers.cpu(), self.positions.detach().cpu()
        parts = zip(numbers.split(sizes), positions.split(sizes), self.cell.cpu(), self.pbc.cpu(), strict=True)
        return [Atoms(n.numpy(), x.double().numpy(), cell=c.double().numpy(), pbc=p.numpy()) for n, x, c, p in parts]

    def to_pyg(self) -> Any:
        """The structures as a `torch_geometric.data.Batch`, one `Data` each.

        Fields: z, pos (Å), cell [n_systems, 3, 3], pbc [n_systems, 3], natoms, batch, edge_index, and shifts. In PyG
        messages go from `edge_index[0]`, the neighbor j, to `edge_index[1]`, the central atom i; so the rows are those
        of a `Graph` the other way round. The vector of an edge is `pos[j] - pos[i] + shifts @ cell`, as here.

        Raises:
            MdpotError: PyTorch Geometric is not installed.
        """
        from mdpot.pyg import to_pyg

        return to_pyg(self)

    @staticmethod
    def from_pyg(data: Any, cutoff: float | None = None) -> Graph:
        """The graph of a PyG `Data` or `Batch` with the fields of `to_pyg`.

        Only z (or atomic_numbers) and pos must be there. An edge_index is taken for a neighbor list if it comes with
        shifts, for without them it may hold bonds; otherwise the edges are made anew. The dtype is that of pos.

        Args:
            data: structures in Å.
            cutoff: Å, for data without a neighbor list.

        Raises:
            MdpotError: fields that are missing or do not fit each other; no neighbor list and no cutoff.
        """
        from mdpot.pyg import from_pyg

        return from_pyg(data, cutoff)
