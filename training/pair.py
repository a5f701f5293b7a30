"""The pair energy that a network starts from: fitted to the forces of the training frames, repulsive where they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from mdpot.models.potential import edge_vectors
from mdpot.radial import pair_energy
from mdpot.training.data.store import Batch, Store, batches

N_TERMS = 4
CHUNK_ATOMS = 5000
MAX_ATOMS = 100_000
RIDGE = 1e-7
ANCHORS = (0.4, 0.5, 0.6, 0.7)
ANCHOR_WEIGHT = 1e-3


def fit_pair_energy(
    store: Store, elements: Sequence[int], cutoff: float, smallest: Mapping[tuple[int, int], float]
) -> np.ndarray:
    """The coefficients of `mdpot.radial.pair_energy` that explain most of the forces of a store.

    Linear least squares on the force components with a small ridge. At 0.4 to 0.7 of the smallest distance of each pair
    of elements, where there are no data, the forces are to be those of the repulsion of Ziegler, Biersack and Littmark
    (1985), in relative terms: what is fitted stays repulsive there.

    Args:
        store: training frames, of which evenly spread ones with about 100,000 atoms are used.
        elements: atomic numbers, ascending.
        cutoff: Å.
        smallest: distance, Å, by pair of elements Z1 <= Z2.

    Returns:
        [n_terms, n_elements, n_elements] float64, eV, symmetric; zero for pairs that do not occur.
    """
    pairs = [(elements.index(a), elements.index(b)) for a, b in sorted(smallest)]
    table = torch.full([120, 120], -1, device=store.device)
    for n, (a, b) in enumerate(sorted(smallest)):
        table[a, b] = table[b, a] = n
    n_unknown = len(pairs) * N_TERMS
    step = max(1, round(float(store.n_atoms_per_frame.sum()) / MAX_ATOMS))
    normal, right, n_rows = sparse.csr_matrix((n_unknown, n_unknown)), np.zeros(n_unknown), 0
    for frames in batches(store, n_atoms=CHUNK_ATOMS)[::step] if step > 1 else batches(store, n_atoms=CHUNK_ATOMS):
        batch = store.batch(frames, torch.float64)
        rows, target = _force_rows(batch, table, n_unknown, cutoff)
        normal, right, n_rows = normal + rows.T @ rows, right + rows.T @ target, n_rows + len(target)
    size = np.sqrt(normal.diagonal() / max(n_rows, 1))
    for n, pair in enumerate(sorted(smallest)):
        for distance in smallest[pair] * np.array(ANCHORS):
            force = zbl_force(distance, *pair)
            row = np.zeros(n_unknown)
            row[n * N_TERMS : (n + 1) * N_TERMS] = -_slopes(torch.tensor([distance], dtype=torch.float64), cutoff)[:, 0]
            weight = ANCHOR_WEIGHT * n_rows / force**2
            row = sparse.csr_matrix(row)
            normal, right = normal + weight * (row.T @ row), right + weight * force * row.toarray()[0]
    size[size == 0] = 1.0
    scaled = sparse.diags(1 / size) @ normal @ sparse.diags(1 / size) + RIDGE * n_rows * sparse.eye(n_unknown)
    found = (spsolve(scaled.tocsc(), right / size) / size).reshape(len(pairs), N_TERMS)
    out = np.zeros((N_TERMS, len(elements), len(elements)))
    for (a, b), coefficients in zip(pairs, found, strict=True):
        out[:, a, b] = out[:, b, a] = coefficients
    return out


def evaluate_pair_energy(
    store: Store, elements: Sequence[int], coefficients: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the pair energy alone says of the frames of a store.

    Returns:
        Energies [n_frames], eV, and forces [n_atoms, 3], eV/Å, in the order of the store.
    """
    terms = torch.tensor(coefficients, device=store.device)
    lookup = torch.zeros([120], dtype=torch.int64, device=store.device)
    lookup[torch.tensor(elements, device=store.device)] = torch.arange(len(elements), device=store.device)
    energies, forces = [], []
    for frames in batches(store, n_atoms=CHUNK_ATOMS):
        graph = store.batch(frames, torch.float64).graph
        positions = graph.positions.requires_grad_()
        vectors = edge_vectors(positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
        first, second = lookup[graph.numbers[graph.edge_index]]
        per_edge = 0.5 * pair_energy(vectors.norm(dim=1), terms[:, first, second], cutoff)
        total = per_edge.new_zeros(graph.n_systems).index_add(0, graph.system[graph.edge_index[0]], per_edge)
        forces.append(-torch.autograd.grad(total.sum(), positions)[0].cpu().numpy())
        energies.append(total.detach().cpu().numpy())
    return np.concatenate(energies), np.concatenate(forces)


def zbl_force(distance: float, z1: int, z2: int) -> float:
    """The universal screened nuclear repulsion of Ziegler, Biersack and Littmark (1985) as a force, eV/Å.

    Args:
        distance: Å.
        z1, z2: atomic numbers.
    """
    x = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    scaled = x * (z1**0.23 + z2**0.23) / 0.46850
    factors, rates = (0.18175, 0.50986, 0.28022, 0.02817), (3.19980, 0.94229, 0.40290, 0.20162)
    screening = sum(f * torch.exp(-r * scaled) for f, r in zip(factors, rates, strict=True))
    energy = 14.399645 * z1 * z2 / x * screening
    return -float(torch.autograd.grad(energy, x)[0])  # type: ignore[arg-type]


def _slopes(distance: Tensor, cutoff: float) -> np.ndarray:
    """The derivative by distance of each term with coefficient 1: [n_terms, n_distances], 1/Å."""
    slopes = []
    for unit in torch.eye(N_TERMS, dtype=torch.float64, device=distance.device):
        x = distance.detach().requires_grad_()
        energy = pair_energy(x, unit.unsqueeze(1).expand(-1, len(x)), cutoff)
        slopes.append(torch.autograd.grad(energy.sum(), x)[0])
    return torch.stack(slopes).cpu().numpy()


def _force_rows(batch: Batch, table: Tensor, n_unknown: int, cutoff: float) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The force components [n_rows] of a batch as linear functions of the coefficients [n_rows, n_unknown]."""
    graph = batch.graph
    vectors = edge_vectors(graph.positions, graph.cell, graph.system, graph.edge_index, graph.shifts)
    distance = vectors.norm(dim=1)
    slopes = torch.from_numpy(_slopes(distance, cutoff)).to(vectors.device)
    kind = table[graph.numbers[graph.edge_index[0]], graph.numbers[graph.edge_index[1]]]
    # An edge pulls its first atom along the vector by the slope; the other half comes from the edge the other way.
    values = slopes.t().unsqueeze(1) * (vectors / distance.unsqueeze(1)).unsqueeze(2)
    row = (3 * graph.edge_index[0].unsqueeze(1) + torch.arange(3, device=kind.device)).unsqueeze(2).expand_as(values)
    column = (N_TERMS * kind.unsqueeze(1) + torch.arange(N_TERMS, device=kind.device)).unsqueeze(1).expand_as(values)
    used = (kind >= 0).view(-1, 1, 1).expand_as(values)
    entries = (values[used].cpu().numpy(), (row[used].cpu().numpy(), column[used].cpu().numpy()))
    matrix = sparse.coo_matrix(entries, shape=(3 * graph.n_atoms, n_unknown)).tocsr()
    target = batch.forces.double().flatten().cpu().numpy()
    known = np.isfinite(target)
    return matrix[known], target[known]
