"""Frames as concatenated tensors, with neighbor lists and molecules; and the batches cut from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mdpot.errors import MdpotError
from mdpot.graph import Graph
from mdpot.molecules import find_molecules, is_bond, longest_bond
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.training.data.frames import MIN_GROUPS, Frame, smallest_counts
from mdpot.training.data.rows import Rows
from mdpot.training.data.targets import TARGETS, target

INTERACTION = "interaction"
"""The label that networks learn of the energy: what is left of it beyond the reference energies of the atoms."""


@dataclass(frozen=True)
class Batch:
    """Structures with their labels; atoms, systems and edges as in `Graph`.

    Attributes:
        graph: the structures.
        labels: by name, those that any frame of the store has: [n_systems, *shape] or [n_atoms, *shape], see
            `mdpot.training.data.targets`; zeros where absent. What is one number of a frame is in float64, such as
            "interaction", the energy less the sum of the store's shifts over the atoms.
        present: [n_systems] bool by name: which of the systems have the label.
        marks: [n_atoms] int64, zeros; masking sets them.
        molecule: [n_atoms] int64, from 0 to n_molecules - 1, ascending by system, -1 for atoms that
            masking must leave alone.
        whole: [n_atoms, 3], Å, positions with molecules made whole: within one, the displacement from a
            to b is whole[b] - whole[a].
        n_molecules: how many molecules there are, known without asking the device.
        complete: the labels that every frame of the store has.
    """

    graph: Graph
    labels: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    marks: torch.Tensor
    molecule: torch.Tensor
    whole: torch.Tensor
    n_molecules: int
    complete: frozenset[str] = frozenset()

    def there(self, name: str) -> torch.Tensor:
        """Which rows [n_systems] or [n_atoms] bool of a label are there."""
        of_system = self.present[name]
        return of_system[self.graph.system] if target(name).per == "atom" else of_system

    def gaps(self, name: str) -> torch.Tensor | None:
        """`there`, and None of a label without gaps in any frame: nothing need be left out then."""
        return None if name in self.complete else self.there(name)

    def replace(self, **values: object) -> Batch:
        """A copy in which some fields are others."""
        return replace(self, **values)  # type: ignore[arg-type]


class Store:
    """Frames, their neighbor lists and their molecules, built once.

    Args:
        frames: at least one.
        cutoff: Å, of the neighbor lists.
        shift: energy per element, {atomic number: eV}, taken off in the label "interaction"; zeros without it.
        molecule: only molecules of exactly this formula, e.g. "H2O", are usable for masking; None takes every
            component that does not reach across its cell.
        molecules: whether molecules are looked for; where nothing is masked, nobody asks for them.

    Attributes:
        labels, present: as those of a `Batch`, of all frames, float64.
        n_atoms_per_frame, n_edges_per_frame, n_molecules_per_frame: [n_frames] int64, always on the CPU.
        molecule: [n_atoms] int64, unique in the store, -1 where not usable for masking.
        whole: [n_atoms, 3] float64, Å, positions with molecules made whole.

    Raises:
        MdpotError: no frames, a periodic frame without a cell, an element that `shift` lacks, or a
            formula that is none.
    """

    n_atoms_per_frame: torch.Tensor
    n_edges_per_frame: torch.Tensor
    n_molecules_per_frame: torch.Tensor

    def __init__(
        self,
        frames: Sequence[Frame],
        cutoff: float,
        shift: Mapping[int, float] | None = None,
        molecule: str | None = None,
        molecules: bool = True,
    ) -> None:
        if not frames:
            raise MdpotError("a store needs at least one frame; got none.")
        self.cutoff = float(cutoff)
        sizes = np.array([len(frame) for frame in frames])
        self.n_atoms_per_frame = torch.from_numpy(sizes)
        self.numbers = torch.from_numpy(np.concatenate([frame.numbers for frame in frames]).astype(np.int64))
        self.positions = torch.from_numpy(np.concatenate([frame.positions for frame in frames]).astype(np.float64))
        self.cell = torch.from_numpy(np.stack([frame.cell for frame in frames]).astype(np.float64))
        self.pbc = torch.from_numpy(np.stack([frame.pbc for frame in frames]).astype(bool))
        names = {name: n for n, name in enumerate(dict.fromkeys(frame.group for frame in frames))}
        self._group_per_frame = torch.tensor([names[frame.group] for frame in frames])
        self._set_labels(frames, shift)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        bonds, bond_shifts = self._set_edges(frames, starts, molecules)
        self._set_molecules(bonds, bond_shifts, molecule, starts)
        self._atom_runs, self._edge_runs = _Runs(self.n_atoms_per_frame), _Runs(self.n_edges_per_frame)
        self._molecule_runs = _Runs(self.n_molecules_per_frame)

    def __len__(self) -> int:
        return len(self.n_atoms_per_frame)

    @property
    def device(self) -> torch.device:
        return self.numbers.device

    def to(self, device: torch.device | str) -> Store:
        """This store, its tensors moved to a device; neighbor lists that lie in a file stay there."""
        stay = ("_edges", "_shifts") if self._in_files else ()
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor) and not name.endswith("_per_frame") and name not in stay:
                setattr(self, name, value.to(device))
        for tensors in (self.labels, self.present):
            tensors.update({name: value.to(device) for name, value in tensors.items()})
        return self

    def batch(self, indices: torch.Tensor, dtype: torch.dtype = torch.float32) -> Batch:
        """Frames side by side, cut out by tensor operations on the device of the store.

        Args:
            indices: [n_systems] int64, on the CPU (elsewhere they are fetched); a frame may come twice.
            dtype: of the floating-point tensors, those labels excepted that are one number of a frame.
        """
        frame = indices.cpu()
        device = self.device
        atoms, system = self._atom_runs.rows(frame, device)
        edges, edge_system = self._edge_runs.rows(frame, device)
        frame_on_device = frame.to(device)
        first_atom = _starts(self.n_atoms_per_frame[frame]).to(device)
        rows = edges.to(self._edges.device)
        graph = Graph(
            numbers=self.numbers[atoms],
            positions=self.positions[atoms].to(dtype),
            cell=self.cell[frame_on_device].to(dtype),
            pbc=self.pbc[frame_on_device],
            system=system,
            edge_index=self._edges[rows].to(device).T.long().contiguous() + first_atom[edge_system],
            shifts=self._shifts[rows].to(device, dtype),
        )
        counts = self.n_molecules_per_frame[frame]
        renumber = (_starts(counts) - self._molecule_runs.starts[frame]).to(device)
        molecule = self.molecule[atoms]
        return Batch(
            graph=graph,
            labels={
                name: values[atoms if target(name).per == "atom" else frame_on_device].to(
                    dtype if target(name).shape else torch.float64
                )
                for name, values in self.labels.items()
            },
            present={name: there[frame_on_device] for name, there in self.present.items()},
            marks=torch.zeros_like(molecule),
            molecule=torch.where(molecule < 0, molecule, molecule + renumber[system]),
            whole=self.whole[atoms].to(dtype),
            n_molecules=int(counts.sum()),
            complete=self._complete,
        )

    def groups(self) -> torch.Tensor:
        """The number of the group of each frame, [n_frames] int64 on the CPU; each is its own where groups are few."""
        return self._group_per_frame if int(self._group_per_frame.max()) >= MIN_GROUPS - 1 else torch.arange(len(self))

    def fingerprint(self) -> str:
        """The sha256 of the frames: atoms, cells, labels, groups, and the cutoff of the neighbor lists."""
        digest = hashlib.sha256(f"{self.cutoff!r}".encode())
        tensors = (self.n_atoms_per_frame, self._group_per_frame, self.numbers, self.positions, self.cell, self.pbc)
        names = [*TARGETS, *sorted(self.labels.keys() - TARGETS.keys() - {INTERACTION})]
        for tensor in (*tensors, *(self.with_gaps(name) for name in names)):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def counts(self, elements: Sequence[int]) -> torch.Tensor:
        """How many atoms of each element each frame has: [n_frames, n_elements] float64, on the CPU."""
        place = torch.zeros(max(elements) + 1, dtype=torch.int64)
        place[torch.tensor(elements)] = torch.arange(len(elements))
        frame = torch.repeat_interleave(torch.arange(len(self)), self.n_atoms_per_frame)
        cell = frame * len(elements) + place[self.numbers.cpu()]
        return torch.bincount(cell, minlength=len(self) * len(elements)).view(len(self), -1).double()

    def n_compositions(self) -> float:
        """How many compositions the frames have, see `smallest_counts`: the exponential of their entropy, so that rare
        ones hardly count."""
        counts = self.counts(self.numbers.unique().tolist()).numpy().astype(np.int64)
        smallest = smallest_counts(counts, self.pbc.any(1).cpu().numpy())
        share = np.unique(smallest, axis=0, return_counts=True)[1] / len(self)
        return round(float(np.exp(-(share * np.log(share)).sum())), 6)  # twenty alike are twenty

    def with_gaps(self, name: str) -> torch.Tensor:
        """A label of all frames, on the CPU, NaN where it is absent."""
        kind, n_frames = target(name), len(self)
        rows = self.n_atoms_per_frame if kind.per == "atom" else torch.ones(n_frames, dtype=torch.int64)
        if name not in self.labels:
            return torch.full([int(rows.sum()), *kind.shape], torch.nan, dtype=torch.float64)
        absent = torch.repeat_interleave(~self.present[name].cpu(), rows)
        values = self.labels[name].cpu().clone()
        values[absent] = torch.nan
        return values

    def _set_labels(self, frames: Sequence[Frame], shift: Mapping[int, float] | None) -> None:
        found = [frame.labels for frame in frames]
        self.labels: dict[str, torch.Tensor] = {}
        self.present: dict[str, torch.Tensor] = {}
        for name in dict.fromkeys(name for labels in found for name in labels):
            kind = target(name)
            nothing = [np.zeros((kind.rows(len(frame)), *kind.shape)) for frame in frames]
            values = [
                labels.get(name, zeros).reshape(zeros.shape) for labels, zeros in zip(found, nothing, strict=True)
            ]
            self.labels[name] = torch.from_numpy(np.concatenate(values))
            self.present[name] = torch.tensor([name in labels for labels in found])
        self._complete = frozenset(name for name, there in self.present.items() if bool(there.all()))
        self.set_shift({int(z): 0.0 for z in self.numbers.unique()} if shift is None else shift)

    def set_shift(self, shift: Mapping[int, float]) -> None:
        """Takes the sum of `shift` (eV by atomic number) over the atoms off the energies, in the label "interaction".

        Raises:
            MdpotError: `shift` lacks an element of the frames.
        """
        if "energy" in self.labels:
            self.labels[INTERACTION] = self.without(shift)
            self.present[INTERACTION] = self.present["energy"]
            if "energy" in self._complete:
                self._complete |= {INTERACTION}

    def without(self, shift: Mapping[int, float]) -> torch.Tensor:
        """The energies [n_frames], eV, less the sum of `shift` over the atoms, zero where absent; errors as
        `set_shift`."""
        elements = self.numbers.unique().tolist()
        if lacking := sorted(set(elements) - {int(z) for z in shift}):
            raise MdpotError(f"shift must cover all elements of the frames; it lacks Z = {lacking}.")
        energies = torch.tensor([shift[z] for z in elements], dtype=torch.float64)
        per_frame = self.counts(elements) @ energies
        energy = self.labels["energy"]
        return torch.where(self.present["energy"], energy - per_frame.to(energy.device), 0.0)

    def _set_edges(
        self, frames: Sequence[Frame], starts: np.ndarray, want_bonds: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Builds the neighbor lists; returns the bonds [2, n_bonds] in atoms of the store, and their shifts."""
        edges, shifts = Rows(2, np.int32), Rows(3, np.int8)
        counts = []
        bonds, bond_shifts = [np.zeros((2, 0), np.int64)], [np.zeros((0, 3), np.int32)]
        for frame, start in zip(frames, starts, strict=True):
            reach = longest_bond(frame.numbers) if want_bonds else 0.0
            pairs, translations = neighbor_list(frame.positions, frame.cell, frame.pbc, max(self.cutoff, reach))
            if want_bonds:
                vectors = pair_vectors(frame.positions, frame.cell, pairs, translations)
                squared = np.einsum("ij,ij->i", vectors, vectors)
                near = is_bond(frame.numbers[pairs[0]], frame.numbers[pairs[1]], squared)
                bonds.append(pairs[:, near] + start)
                bond_shifts.append(translations[near])
                if reach > self.cutoff:
                    inside = squared < self.cutoff**2
                    pairs, translations = pairs[:, inside], translations[inside]
            counts.append(pairs.shape[1])
            edges.append(pairs.T)
            shifts.append(translations)
        self.n_edges_per_frame = torch.tensor(counts)
        self._edges, self._shifts = edges.take(), shifts.take()
        self._in_files = edges.in_file or shifts.in_file
        return np.concatenate(bonds, axis=1), np.concatenate(bond_shifts)

    def _set_molecules(self, bonds: np.ndarray, shifts: np.ndarray, formula: str | None, starts: np.ndarray) -> None:
        """Finds the molecules that the bonds make; without bonds every atom is alone."""
        found, images = find_molecules(self.numbers.numpy(), bonds, shifts, formula)
        self.molecule = torch.from_numpy(found)
        frame = torch.repeat_interleave(torch.arange(len(self)), self.n_atoms_per_frame)
        moved = np.einsum("ij,ijk->ik", images.astype(np.float64), self.cell[frame].numpy())
        self.whole = self.positions + torch.from_numpy(moved)
        # Molecules are numbered in the order of their first atoms, so those of a frame follow each other.
        last = np.maximum.accumulate(np.maximum.reduceat(found, starts)) + 1
        self.n_molecules_per_frame = torch.from_numpy(np.diff(last, prepend=0))


def count_batches(store: Store, n_atoms: int | None = None, n_frames: int | None = None) -> int:
    """How many batches `batches` gives: the same number in every epoch. Arguments as there."""
    if (n_atoms is None) == (n_frames is None):
        raise MdpotError(f"give one of n_atoms and n_frames; got n_atoms={n_atoms}, n_frames={n_frames}.")
    asked = n_frames if n_atoms is None else n_atoms
    if asked is None or asked < 1:
        raise MdpotError(f"a batch needs a positive number of atoms or frames; got {asked}.")
    if n_atoms is None:
        return -(-len(store) // asked)
    # No batch stays empty when batches are at least as wide as the largest frame.
    width = max(n_atoms, int(store.n_atoms_per_frame.max()))
    return max(1, int(store.n_atoms_per_frame.sum()) // width)


def batches(
    store: Store,
    n_atoms: int | None = None,
    n_frames: int | None = None,
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """All frames once, in random order, cut into batches.

    Args:
        store: the frames.
        n_atoms: about so many atoms in a batch, and never fewer than the largest frame has; the sums differ
            from each other by at most about one frame.
        n_frames: or: so many frames in a batch; the last may have fewer.
        generator: on the CPU; None keeps the order of the store.

    Returns:
        One tensor [n_systems] int64 of frame indices for each batch.

    Raises:
        MdpotError: not exactly one of n_atoms and n_frames, or one that is not positive.
    """
    n_batches = count_batches(store, n_atoms, n_frames)
    order = torch.arange(len(store)) if generator is None else torch.randperm(len(store), generator=generator)
    if n_frames is not None:
        return list(order.split(n_frames))
    ordered = store.n_atoms_per_frame[order]
    # A frame belongs to the batch in which its middle falls when all atoms stand in a row.
    middle = 2 * ordered.cumsum(0) - ordered
    owner = middle * n_batches // (2 * int(ordered.sum()))
    return list(order.split(torch.bincount(owner, minlength=n_batches).tolist()))


def _starts(counts: torch.Tensor) -> torch.Tensor:
    """Where each of several runs of these lengths [n] starts when they follow each other: [n] int64."""
    return counts.cumsum(0) - counts


class _Runs:
    """Runs of rows that follow each other in a concatenated tensor.

    Args:
        counts: [n_runs] int64 on the CPU, the length of each.
    """

    def __init__(self, counts: torch.Tensor) -> None:
        self.counts, self.starts = counts, _starts(counts)

    def rows(self, chosen: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of some of the runs.

        Args:
            chosen: [n_chosen] int64 on the CPU, runs, in any order.
            device: of the results.

        Returns:
            rows [sum of the chosen lengths] int64, and run [same] int64: the position in `chosen` each row belongs to.
        """
        lengths = self.counts[chosen]
        total = int(lengths.sum())
        offset = (self.starts[chosen] - _starts(lengths)).to(device)
        # The total is known on the CPU; given as output_size, a GPU need not be waited for.
        run = torch.repeat_interleave(torch.arange(len(chosen), device=device), lengths.to(device), output_size=total)
        return torch.arange(total, device=device) + offset[run], run
