"""A potential in torch without a wait for the GPU: fixed slots for the neighbors, captured in a CUDA graph.

A small system keeps a GPU waiting for the processor that sends it four hundred operations a step. Where all shapes and
addresses stay the same, CUDA records them once and plays them again in one go. So the table of neighbors
(`mdpot.padded`) holds all pairs out to the skin and is filled anew only when the list or the cell is another; a step
copies positions in and results out. On a CPU the same runs without a graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mdpot.autograd import exact_gradients
from mdpot.errors import MdpotError
from mdpot.export_check import example_structures
from mdpot.graph import Graph
from mdpot.heads import AnyPotential, Potential
from mdpot.neighbors import VerletList, translations
from mdpot.padded import PaddedPotential, pad_edges

logger = logging.getLogger("mdpot.captured")
ROOM = 1.1
"""Slots for each that is needed, so that the next list fits as well."""
WARM_UP = 3
"""Calls before a graph is captured, in which libraries allocate what they work with."""
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-9}
"""Of the largest force and energy."""


@dataclass(frozen=True)
class Found:
    """Results of a structure, float64.

    Attributes:
        energies: [n_atoms], eV.
        forces: [n_atoms, 3], eV/Å.
        virial: [3, 3], dE/dε, eV; zero for a force-centric potential.
    """

    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray


class FixedSlots:
    """A potential with a neighbor list whose table grows where a list overflows it, and else keeps its size.

    Args:
        potential: in evaluation mode, on its device.
        skin: Å, of the neighbor list.

    Raises:
        MdpotError: an ensemble, whose spread it would not give.
    """

    def __init__(self, potential: AnyPotential, skin: float) -> None:
        if not isinstance(potential, Potential):
            raise MdpotError("fixed slots are for one potential; an ensemble takes backend 'torch'.")
        self.function = PaddedPotential(potential)
        self.device = potential.shift.device
        self.neighbors = VerletList(potential.cutoff, skin)
        self.n_slots = 1  # an atom alone has none to fill, and networks want a slot
        self._inputs: tuple[Tensor, ...] = ()
        self._filled_for: tuple[int, bytes] = (0, b"")  # which build of the list, in which cell
        self._run: Callable[[], Tensor] | None = None

    def __getstate__(self) -> dict[str, object]:
        # A graph belongs to its process; a copy captures its own.
        return {**self.__dict__, "_inputs": (), "_run": None}

    @exact_gradients()
    def __call__(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Found:
        """Energies, forces and virial.

        Args:
            numbers: [n_atoms], at least one, atomic numbers, all among those trained.
            positions: [n_atoms, 3] float64, Å, wrapped or not.
            cell: [3, 3] float64, Å, rows are lattice vectors.
            pbc: [3] bool, periodic directions.

        Raises:
            MdpotError: as `neighbor_list`.
        """
        i, j, shifts = self.neighbors.candidates(numbers, positions, cell, pbc)
        filled_for = (self.neighbors.n_builds, np.asarray(cell, dtype=np.float64).tobytes())
        if not self._inputs or self._filled_for != filled_for:
            edges = torch.from_numpy(np.stack([i, j]))
            offsets = torch.from_numpy(translations(shifts, np.where(pbc[:, None], cell, 0.0)))
            self._fill(torch.from_numpy(numbers.astype(np.int64)), edges, offsets)
            self._filled_for = filled_for
        self._inputs[1].copy_(torch.from_numpy(np.ascontiguousarray(positions)))
        if self._run is None:
            self._run = capture(self.packed, self._inputs)
        packed = self._run().cpu().numpy()  # here, and nowhere before, the GPU is waited for
        n = len(numbers)
        return Found(packed[:n].copy(), packed[n : 4 * n].reshape(n, 3).copy(), packed[4 * n :].reshape(3, 3).copy())

    def packed(self, *inputs: Tensor) -> Tensor:
        """Energies, forces and virial in one row [4 n_atoms + 9] float64, of the inputs of `PaddedPotential`."""
        energies, _, forces, virial = self.function(*inputs)
        return torch.cat([energies, forces.flatten(), virial.flatten()])

    def _fill(self, numbers: Tensor, edge_index: Tensor, offsets: Tensor) -> None:
        """Enters a new list; where it does not fit, larger tensors take the place of those that a graph knows."""
        n, cutoff = len(numbers), self.function.cutoff
        table = pad_edges(edge_index, offsets, n, cutoff, self.n_slots)
        if (most := table[0].shape[1]) > self.n_slots:
            self.n_slots = math.ceil(ROOM * most)
            table = pad_edges(edge_index, offsets, n, cutoff, self.n_slots)
        new = (numbers, torch.zeros(n, 3, dtype=torch.float64), *table)
        if [t.shape for t in new] == [t.shape for t in self._inputs]:
            for old, tensor in zip(self._inputs, new, strict=True):
                old.copy_(tensor)
        else:
            self._inputs = tuple(tensor.to(self.device) for tensor in new)
            self._run = None


def capture(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
    """A call of a function with these tensors, whatever they hold then; on a GPU captured in a CUDA graph.

    The result of a captured call is overwritten by the next one. What its graph reads, of the function and of these
    tensors, lives as long as the call.
    """
    if inputs[0].device.type != "cuda":
        return lambda: function(*inputs)
    with torch.cuda.device(inputs[0].device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function(*inputs)

    def replay(_read: object = (function, inputs)) -> Tensor:
        graph.replay()
        return result

    return replay


def find_fixed_slots(potential: AnyPotential, skin: float) -> FixedSlots | None:
    """Fixed slots for a potential, after a comparison with torch as it is; None, and a line in the log, where torch has
    to do without: an ensemble, or what does not capture or agree."""
    if not isinstance(potential, Potential):
        return None
    try:
        self_test(FixedSlots(potential, skin), potential)
    except (RuntimeError, MdpotError) as error:
        reason = str(error).strip().split("\n")[0]
        logger.warning("torch computes this potential without a CUDA graph, which is slower: %s", reason)
        return None
    return FixedSlots(potential, skin)


def self_test(fixed: FixedSlots, potential: Potential) -> None:
    """Compares energies and forces of small structures, the second time with moved atoms in a graph that is kept.

    Raises:
        MdpotError: they differ.
    """
    dtype = next(potential.parameters()).dtype
    rng = np.random.default_rng(0)
    alone = Atoms([potential.elements[0]], [[0.0, 0.0, 0.0]])
    for atoms in [alone, *example_structures(potential.elements)[:2]]:
        for _ in range(2):
            found = fixed(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
            with exact_gradients():
                graph = Graph.from_atoms(atoms, potential.cutoff, torch.float64).to(fixed.device)
                wanted = {name: value.cpu().numpy() for name, value in potential(*graph.inputs()).items()}
            largest = max(1e-3 * potential.scale, np.abs(wanted["forces"]).max(), abs(wanted["interaction"][0]))
            for name in ("energies", "forces"):
                difference = np.abs(getattr(found, name) - wanted[name]).max()
                if not difference <= TOLERANCE[dtype] * largest:  # NaN is different
                    raise MdpotError(f"its {name} differ from torch's by {difference:.1e} of {largest:.1e}.")
            atoms.positions += rng.uniform(-0.05, 0.05, atoms.positions.shape)
