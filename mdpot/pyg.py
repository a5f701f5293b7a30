"""Graphs as the data objects of PyTorch Geometric (PyG), and back. PyG is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from mdpot.errors import MdpotError

if TYPE_CHECKING:
    from mdpot.graph import Graph

NUMBERS = ("z", "atomic_numbers")


def import_pyg(module: str) -> Any:
    """A module of PyG, e.g. "data".

    Raises:
        MdpotError: PyG is not installed.
    """
    try:
        return import_module(f"torch_geometric.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "torch_geometric":
            raise
        raise MdpotError('PyTorch Geometric is not installed. pip install "mdpot[pyg]"') from None


def to_pyg(graph: Graph) -> Any:
    """The structures of a graph as a PyG `Batch`, one `Data` each; see `Graph.to_pyg`."""
    data = import_pyg("data")
    sizes = torch.bincount(graph.system, minlength=graph.n_systems)
    edges = torch.bincount(graph.system[graph.edge_index[0]], minlength=graph.n_systems).tolist()
    starts = (torch.cumsum(sizes, 0) - sizes).tolist()
    n_atoms = sizes.tolist()
    parts = zip(
        graph.numbers.split(n_atoms),
        graph.positions.split(n_atoms),
        graph.cell.split(1),
        graph.pbc.split(1),
        graph.edge_index.flip(0).split(edges, dim=1),
        graph.shifts.split(edges),
        starts,
        strict=True,
    )
    return data.Batch.from_data_list(
        [
            data.Data(z=z, pos=pos, cell=cell, pbc=pbc, edge_index=pairs - start, shifts=shifts, natoms=len(z))
            for z, pos, cell, pbc, pairs, shifts, start in parts
        ]
    )


def from_pyg(data: Any, cutoff: float | None = None) -> Graph:
    """The graph of a PyG `Data` or `Batch`; see `Graph.from_pyg`."""
    from mdpot.graph import Graph

    numbers, positions = atoms_of(data)
    batch = data.get("batch")
    system = torch.zeros_like(numbers) if batch is None else batch.long()
    if (system.diff() < 0).any():
        raise MdpotError("the batch of a PyG object must be in ascending order; got atoms of mixed structures.")
    cell, pbc = cells_of(data, int(system.max()) + 1)
    no_edges = numbers.new_zeros((2, 0)), positions.new_zeros((0, 3))
    bare = Graph(numbers, positions, cell, pbc, system, *no_edges)
    if "edge_index" in data and "shifts" in data:
        centers = data["edge_index"][1]
        order = torch.argsort(centers, stable=True)
        return bare.replace(edge_index=data["edge_index"].flip(0)[:, order], shifts=data["shifts"][order])
    if cutoff is None:
        raise MdpotError(
            "cutoff must be given (Å) for a PyG object without a neighbor list, which is edge_index together with "
            "shifts; bonds alone are none."
        )
    return Graph.from_atoms(bare.to_atoms(), cutoff, positions.dtype).to(positions.device)


def atoms_of(data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Atomic numbers [n_atoms] int64 and positions [n_atoms, 3] of a PyG object.

    Raises:
        MdpotError: it has none, or they do not fit each other.
    """
    numbers = next((data[key] for key in NUMBERS if key in data), None)
    positions = data.get("pos")
    if numbers is None or positions is None:
        there = ", ".join(sorted(data.keys())) or "nothing"
        raise MdpotError(f"a PyG object of a structure has z (atomic numbers) and pos (positions, Å); got {there}.")
    if positions.ndim != 2 or positions.shape[1] != 3 or numbers.numel() != len(positions) or not len(positions):
        raise MdpotError(
            f"pos must have the shape [n_atoms, 3] and z [n_atoms]; got {list(positions.shape)} and "
            f"{list(numbers.shape)}."
        )
    if numbers.is_floating_point() and (numbers != numbers.round()).any():
        raise MdpotError("z must be atomic numbers, which are integers; got fractions.")
    return numbers.reshape(-1).long(), positions


def cells_of(data: Any, n_systems: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells [n_systems, 3, 3], in the dtype of the positions, and periodic directions [n_systems, 3] bool.

    Without `cell` it is zeros. Without `pbc` a structure is periodic in all directions if its cell is not zero.

    Raises:
        MdpotError: another number of cells than of structures.
    """
    positions = data["pos"]
    cell = data.get("cell")
    cell = positions.new_zeros((n_systems, 3, 3)) if cell is None else torch.as_tensor(cell).to(positions)
    if cell.numel() != 9 * n_systems:
        raise MdpotError(f"cell must have the shape [{n_systems}, 3, 3]; got {list(cell.shape)}.")
    cell = cell.reshape(n_systems, 3, 3)
    pbc = data.get("pbc")
    if pbc is None:
        return cell, (cell != 0).flatten(1).any(1, keepdim=True).expand(-1, 3).contiguous()
    pbc = torch.as_tensor(pbc, device=positions.device).bool()
    if pbc.numel() not in (1, n_systems, 3 * n_systems):
        raise MdpotError(f"pbc must have the shape [{n_systems}, 3]; got {list(pbc.shape)}.")
    return cell, pbc.reshape(-1, 3 if pbc.numel() == 3 * n_systems else 1).expand(n_systems, 3).contiguous()
