"""The pair energy that a network starts from: fitted to the forces of the training frames, repulsive where they end.

Every pair of elements has its own few unknowns, and most pairs of a set of many elements are rare. So the fit leans on
a prior: the repulsion of nuclei inside the closest approach, and no force beyond. How much it leans is judged on
training frames that are left out; where no fit helps those, there is no pair energy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from mdpot.heads.potential import edge_vectors
from mdpot.radial import pair_energy
from mdpot.training.contacts import CHUNK_ATOMS, Pair
from mdpot.training.data.cache import Arrays
from mdpot.training.data.reference import robust_shift
from mdpot.training.data.store import Batch, Store, batches

N_TERMS = 4
MAX_ATOMS = 100_000
RIDGE = 1e-7
#: The repulsion of nuclei is asked for at these shares of the closest approach, and no force at so many points from
#: there to the cutoff.
ANCHORS = (0.4, 0.5, 0.6, 0.7)
N_FREE = 10
#: An anchor weighs, in relative terms, as much as this share of the rows of its pair.
ANCHOR_WEIGHT = 1e-3
#: How many force components of zero the prior of a pair is worth; the frames that are left out choose among these.
PRIOR_ROWS = (0.1, 1.0, 10.0, 100.0, 1000.0)
#: One group of frames in so many is left out while that is judged.
LEFT_OUT = 5
#: The weakest prior is taken that scores no worse than the best by this share: scores of few frames are noisy.
SAME = 0.05
#: A pair energy is dropped that does not lessen the score of the forces of the frames left out by this share.
WORTH = 0.1
#: Forces beyond so many times the typical one weigh less: they are few, and should not decide.
WILD = 5.0
# Number of unknowns up to which the normal equations are solved directly.
_DENSE = 1000
# A pair of elements as one number: 1000 Z1 + Z2.
_NAMES = 1000


@dataclass(frozen=True)
class PairFit:
    """A fitted pair energy, and what it was judged by: frames that were left out of a fit.

    Attributes:
        coefficients: [n_terms, n_elements, n_elements] float64, eV, symmetric; zero for pairs that do not occur.
        forces: the score of the forces of the frames left out, without and with the pair energy: the mean of
            ln(1 + |F| / typical |F|) over their components.
        energies: mean absolute error of the reference energies, eV per atom, on these frames, without and with it.
        typical: eV/Å, the typical force.
    """

    coefficients: np.ndarray
    forces: tuple[float, float]
    energies: tuple[float, float]
    typical: float

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> PairFit:
        """From what `arrays` made."""
        forces, energies = arrays["forces"].tolist(), arrays["energies"].tolist()
        return cls(arrays["coefficients"], tuple(forces), tuple(energies), float(arrays["typical"]))

    @property
    def arrays(self) -> Arrays:
        """The fields as arrays."""
        return {name: np.array(value) for name, value in vars(self).items()}

    @property
    def helps(self) -> bool:
        """Whether it explains forces that it was not fitted to, and adds less to the energies than it takes from these
        (over 1 Å)."""
        gain = self.forces[0] - self.forces[1]
        return gain > WORTH * self.forces[0] and self.energies[1] - self.energies[0] < self.typical * gain


@dataclass(frozen=True)
class _System:
    """Force components as linear functions of the coefficients, both times the weights of the components.

    Attributes:
        matrix: [n_rows, n_unknown], the unknowns pair by pair.
        target: [n_rows].
        weight: [n_rows], at most 1.
        group: [n_rows], of the frame.
        typical: eV/Å, the median over the frames of the mean absolute force component.
    """

    matrix: sparse.csr_matrix
    target: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    typical: float

    def part(self, rows: np.ndarray) -> _System:
        """Some of the rows."""
        return _System(self.matrix[rows], self.target[rows], self.weight[rows], self.group[rows], self.typical)

    def score(self, coefficients: np.ndarray) -> float:
        """How large the forces are that coefficients [n_unknown] leave; see `PairFit`.

        The logarithm keeps a few frames of huge forces from deciding for all.
        """
        left = np.abs(self.target - self.matrix @ coefficients) / self.weight
        return float(np.log1p(left / self.typical).mean())


def fit_pair_energy(store: Store, elements: Sequence[int], cutoff: float, closest: Mapping[Pair, float]) -> PairFit:
    """The coefficients of `mdpot.radial.pair_energy` that explain most of the forces of a store.

    Linear least squares on the force components. At 0.4 to 0.7 of the closest approach of each pair of elements, where
    there are no data, the forces are to be those of the repulsion of Ziegler, Biersack and Littmark (1985), in relative
    terms: what is fitted stays repulsive there. From there to the cutoff they are to vanish, as far as the data do not
    say otherwise. A pair that is not repulsive inside after all gets no energy.

    Args:
        store: training frames with forces, of which evenly spread ones with about 100,000 atoms are used.
        elements: atomic numbers, ascending.
        cutoff: Å.
        closest: approach, Å, of every pair of elements Z1 <= Z2; see `closest_approach`.
    """
    pairs, system = _assemble(store, cutoff)
    judged = _left_out(system.group)
    if not pairs or not judged.any() or judged.all():  # too few frames to judge by
        return PairFit(np.zeros((N_TERMS, len(elements), len(elements))), (0.0, 0.0), (0.0, 0.0), system.typical)
    priors = _Priors(pairs, closest, cutoff)
    fitted, others = system.part(~judged), system.part(judged)
    normal = (fitted.matrix.T @ fitted.matrix).tocsr()
    trials = [priors.solve(fitted, normal, rows) for rows in PRIOR_ROWS]
    scores = [others.score(trial) for trial in trials]
    best = next(n for n, score in enumerate(scores) if score <= (1.0 + SAME) * min(scores))
    forces = others.score(np.zeros(normal.shape[0])), scores[best]
    energies = _energy_errors(store, elements, _table(elements, pairs, trials[best]), cutoff)
    found = priors.solve(system, (system.matrix.T @ system.matrix).tocsr(), PRIOR_ROWS[best]).reshape(-1, N_TERMS)
    found[~priors.repulsive(found)] = 0.0
    return PairFit(_table(elements, pairs, found), forces, energies, system.typical)


def _left_out(group: np.ndarray) -> np.ndarray:
    """Which rows (or frames) [n] of these groups judge a fit to the others."""
    return group % LEFT_OUT == LEFT_OUT - 1


def _table(elements: Sequence[int], pairs: Sequence[Pair], found: np.ndarray) -> np.ndarray:
    """Coefficients of pairs [n_pairs * n_terms] as [n_terms, n_elements, n_elements]."""
    out = np.zeros((N_TERMS, len(elements), len(elements)))
    a, b = np.searchsorted(elements, np.array(pairs).T)
    out[:, a, b] = out[:, b, a] = found.reshape(-1, N_TERMS).T
    return out


def _chunks(store: Store) -> list[Tensor]:
    """The frames that are fitted, in chunks: evenly spread over the store, about `MAX_ATOMS` in all."""
    step = max(1, round(float(store.n_atoms_per_frame.sum()) / MAX_ATOMS))
    return batches(store, n_atoms=CHUNK_ATOMS)[::step]


def _energy_errors(
    store: Store, elements: Sequence[int], coefficients: np.ndarray, cutoff: float
) -> tuple[float, float]:
    """The mean absolute error, eV per atom, of reference energies on the frames left out, without and with a pair
    energy [n_terms, n_elements, n_elements]; zeros where the energies are not known."""
    chunks = _chunks(store)
    frames = torch.cat(chunks)
    paired = evaluate_pair_energy(store, elements, coefficients, cutoff, chunks)[0]
    n_atoms = store.n_atoms_per_frame[frames].numpy()
    shares = store.counts(elements)[frames].numpy() / n_atoms[:, None]
    labels = store.with_gaps("energy")[frames].numpy()
    out = _left_out(store.groups()[frames].numpy())
    known = np.isfinite(labels)
    if not (out & known).any() or not (~out & known).any():
        return 0.0, 0.0

    def error(energies: np.ndarray) -> float:
        shift = robust_shift(shares[known & ~out], energies[known & ~out])
        return float(np.abs(energies - shares @ shift)[known & out].mean())

    return error(labels / n_atoms), error((labels - paired) / n_atoms)


class _Priors:
    """What is believed of each pair before its forces are seen.

    Args:
        pairs: of elements.
        closest: approach, Å.
        cutoff: Å.
    """

    def __init__(self, pairs: Sequence[Pair], closest: Mapping[Pair, float], cutoff: float) -> None:
        start = np.minimum([closest[pair] for pair in pairs], cutoff)
        z1, z2 = np.array(pairs).T
        inside = start[:, None] * np.array(ANCHORS)
        free = start[:, None] + (cutoff - start)[:, None] * (np.arange(N_FREE) + 0.5) / N_FREE
        self.wanted = zbl_force(inside, z1[:, None], z2[:, None])
        self.inside = self._forces(inside, cutoff)  # [n_pairs, n_anchors, n_terms]
        relative = self.inside / self.wanted[:, :, None]
        self.anchors = np.einsum("pai,paj->pij", relative, relative)
        self.pull = relative.sum(1)
        forces = self._forces(free, cutoff)
        self.free = np.einsum("pai,paj->pij", forces, forces) / N_FREE

    @staticmethod
    def _forces(distance: np.ndarray, cutoff: float) -> np.ndarray:
        """Force [n_pairs, n_points, n_terms] at distances [n_pairs, n_points] of each term with coefficient 1."""
        slopes = _slopes(torch.from_numpy(distance.ravel()), cutoff).numpy()
        return -slopes.T.reshape(*distance.shape, N_TERMS)

    def solve(self, system: _System, normal: sparse.csr_matrix, rows: float) -> np.ndarray:
        """The coefficients [n_unknown] for a prior that is worth so many force components.

        Args:
            system: the data.
            normal: [n_unknown, n_unknown], of the system.
            rows: the weight of the prior.
        """
        seen = np.diff(system.matrix.tocsc().indptr).reshape(-1, N_TERMS).max(1)
        weight = ANCHOR_WEIGHT * (seen + rows)
        added = rows * self.free + weight[:, None, None] * self.anchors
        right = system.matrix.T @ system.target + (weight[:, None] * self.pull).ravel()
        n = len(right)
        diagonal = normal.diagonal() + np.einsum("pii->pi", added).ravel()
        size = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        blocks = sparse.bsr_matrix((added, np.arange(len(added)), np.arange(len(added) + 1)), shape=(n, n))
        scaling = sparse.diags(1 / size)
        matrix = (scaling @ (normal + blocks) @ scaling + RIDGE * sparse.eye(n)).tocsr()
        if n <= _DENSE:
            return np.linalg.solve(matrix.toarray(), right / size) / size
        return _iterate(matrix, right / size) / size

    def repulsive(self, coefficients: np.ndarray) -> np.ndarray:
        """Whether the forces of pairs with coefficients [n_pairs, n_terms] are repulsive inside the data: [n_pairs]."""
        return (np.einsum("pat,pt->pa", self.inside, coefficients) > 0).all(1)


def _iterate(matrix: sparse.csr_matrix, right: np.ndarray) -> np.ndarray:
    """Solves by conjugate gradients, each pair's own unknowns exactly."""
    n_pairs = len(right) // N_TERMS
    whole = matrix.tobsr((N_TERMS, N_TERMS))
    own = np.repeat(np.arange(n_pairs), np.diff(whole.indptr)) == whole.indices
    inverse = np.linalg.inv(whole.data[own])

    def precondition(x: np.ndarray) -> np.ndarray:
        return np.einsum("pij,pj->pi", inverse, x.reshape(-1, N_TERMS)).ravel()

    operator = LinearOperator(matrix.shape, matvec=precondition)  # type: ignore[call-arg]
    return cg(matrix, right, rtol=1e-6, maxiter=500, M=operator)[0]


def evaluate_pair_energy(
    store: Store,
    elements: Sequence[int],
    coefficients: np.ndarray,
    cutoff: float,
    chunks: Sequence[Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the pair energy alone says of the frames of a store.

    Args:
        store: frames.
        elements: atomic numbers, ascending.
        coefficients: [n_terms, n_elements, n_elements], eV.
        cutoff: Å.
        chunks: which frames, [n] int64 each; all of them, in the order of the store, without it.

    Returns:
        Energies [n_frames], eV, and forces [n_atoms, 3], eV/Å.
    """
    terms = torch.tensor(coefficients, device=store.device)
    lookup = torch.zeros([120], dtype=torch.int64, device=store.device)
    lookup[torch.tensor(elements, device=store.device)] = torch.arange(len(elements), device=store.device)
    energies, forces = [], []
    for frames in batches(store, n_atoms=CHUNK_ATOMS) if chunks is None else chunks:
        graph = store.batch(frames, torch.float64).graph
        positions = graph.positions.requires_grad_()
        vectors = edge_vectors(positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
        first, second = lookup[graph.numbers[graph.edge_index]]
        per_edge = 0.5 * pair_energy(vectors.norm(dim=1), terms[:, first, second], cutoff)
        total = per_edge.new_zeros(graph.n_systems).index_add(0, graph.system[graph.edge_index[0]], per_edge)
        forces.append(-torch.autograd.grad(total.sum(), positions)[0].cpu().numpy())
        energies.append(total.detach().cpu().numpy())
    return np.concatenate(energies), np.concatenate(forces)


def zbl_force(distance: np.ndarray | float, z1: np.ndarray | int, z2: np.ndarray | int) -> np.ndarray:
    """The universal screened nuclear repulsion of Ziegler, Biersack and Littmark (1985) as a force, eV/Å.

    Args:
        distance: Å.
        z1, z2: atomic numbers.
    """
    d = np.asarray(distance, dtype=np.float64)
    rate = (np.asarray(z1) ** 0.23 + np.asarray(z2) ** 0.23) / 0.46850
    screening, slope = np.zeros_like(d), np.zeros_like(d)
    for factor, decay in zip((0.18175, 0.50986, 0.28022, 0.02817), (3.19980, 0.94229, 0.40290, 0.20162), strict=True):
        part = factor * np.exp(-decay * d * rate)
        screening, slope = screening + part, slope + decay * rate * part
    return 14.399645 * np.asarray(z1) * np.asarray(z2) / d * (screening / d + slope)


def _slopes(distance: Tensor, cutoff: float) -> Tensor:
    """The derivative by distance of each term with coefficient 1: [n_terms, n_distances], 1/Å."""
    slopes = []
    for unit in torch.eye(N_TERMS, dtype=torch.float64, device=distance.device):
        x = distance.detach().requires_grad_()
        energy = pair_energy(x, unit.unsqueeze(1).expand(-1, len(x)), cutoff)
        slopes.append(torch.autograd.grad(energy.sum(), x)[0])
    return torch.stack(slopes)


def _assemble(store: Store, cutoff: float) -> tuple[list[Pair], _System]:
    """The pairs of elements that occur, and the linear system of the forces that are known."""
    atoms, names, values, forces, known, groups, n_atoms = [], [], [], [], [], [], 0
    of_frame = store.groups()
    for frames in _chunks(store):
        batch = store.batch(frames, torch.float64)
        atom, name, value = _blocks(batch, cutoff)
        atoms.append(atom + n_atoms)
        names.append(name)
        values.append(value)
        forces.append(batch.labels["forces"].cpu().numpy())
        known.append(batch.there("forces").cpu().numpy())
        groups.append(of_frame[frames][batch.graph.system.cpu()].numpy())
        n_atoms += batch.graph.n_atoms
    unique, pair = np.unique(np.concatenate(names), return_inverse=True)
    row = 3 * np.concatenate(atoms)[:, None, None] + np.arange(3)[:, None]
    column = N_TERMS * pair[:, None, None] + np.arange(N_TERMS)
    value = np.concatenate(values)
    entries = (value.ravel(), tuple(np.broadcast_to(x, value.shape).ravel() for x in (row, column)))
    matrix = sparse.coo_matrix(entries, shape=(3 * n_atoms, N_TERMS * len(unique))).tocsr()
    there = np.concatenate(known)
    target, group = np.concatenate(forces), np.repeat(np.concatenate(groups), 3)
    size = np.linalg.norm(target, axis=1) / np.sqrt(3)
    wild = WILD * size[there].mean()
    weight = np.repeat(np.sqrt(wild / np.maximum(size, wild)), 3)
    rows = np.repeat(there, 3)
    matrix = sparse.csr_matrix((sparse.diags(weight) @ matrix)[rows])
    weight, target, group = weight[rows], target.ravel()[rows], group[rows]
    system = _System(matrix, weight * target, weight, group, _typical_force(store))
    return [divmod(int(name), _NAMES) for name in unique], system


def _typical_force(store: Store) -> float:
    """The median over the frames that have forces of the mean absolute force component, eV/Å."""
    parts = store.with_gaps("forces").abs().mean(1).split(store.n_atoms_per_frame.tolist())
    means = np.array([float(part.mean()) for part in parts])
    return max(float(np.median(means[np.isfinite(means)])), 1e-3)


def _blocks(batch: Batch, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The force on each atom by each pair of elements: atom [n], pair [n] and the linear function [n, 3, n_terms]."""
    graph = batch.graph
    vectors = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
    distance = vectors.norm(dim=1)
    slopes = _slopes(distance, cutoff).t()
    low, high = graph.numbers[graph.edge_index].sort(0)[0]
    key, inverse = torch.unique(graph.edge_index[0] * _NAMES**2 + low * _NAMES + high, return_inverse=True)
    # An edge pulls its first atom along the vector by the slope; the other half comes from the edge the other way.
    values = (vectors / distance.unsqueeze(1)).unsqueeze(2) * slopes.unsqueeze(1)
    sums = values.new_zeros(len(key), 3, N_TERMS).index_add_(0, inverse, values)
    name, sums = key.cpu().numpy(), sums.cpu().numpy()
    return name // _NAMES**2, name % _NAMES**2, sums
