"""How labels of a file compare with each other: slopes that are one, or well known, where units and signs are right.

Each says nothing where the frames do not tell: its line then rests on few points, or correlates badly.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii
from scipy import sparse

from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.training.data.frames import Frame

FELT = 0.05  # eV/Å, a force that is not zero by symmetry or in a relaxed structure
SAMPLE_FRAMES, SAMPLE_ATOMS = 60, 4000
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
#: Two frames are compared where atoms move by no more than this, Å, and the cell by no more than this strain.
STEP, STRAIN = 0.4, 0.08
WORK_PAIRS = 2000
#: A pair energy is one of the frames where it gives this part of their forces, from so many of these to a parameter.
EXPLAINED, ROWS = 0.9, 4
#: Fewer frames of one composition in one cell are not compared.
LIKE = 4
#: Energies of one composition part where they lie apart by so many times what most of them do.
GAP = 8.0
#: eV/Å; a molecule whose largest force is smaller is at rest, and its forces are what is left of a relaxation.
MOVING = 0.2


@dataclass(frozen=True)
class Line:
    """A straight line through the origin: slope, the correlation, and how many points it rests on."""

    slope: float
    correlation: float
    n_points: int


def sample(frames: Sequence[Frame]) -> list[Frame]:
    """Evenly spread frames, at most `SAMPLE_FRAMES` of them and about `SAMPLE_ATOMS` atoms."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), SAMPLE_FRAMES)).astype(int)) if frames else []
    out: list[Frame] = []
    n_atoms = 0
    for index in np.random.default_rng(0).permutation(chosen):
        if not out or n_atoms + len(frames[index]) <= SAMPLE_ATOMS:
            out.append(frames[index])
            n_atoms += len(frames[index])
    return out


def nearest_neighbors(frames: Sequence[Frame]) -> np.ndarray:
    """The distance of each atom to its nearest neighbor, in sums of covalent radii; infinite where there is none within
    reach. Noble gases are left out."""
    out = []
    for frame in frames:
        reach = 2.2 * 2 * covalent_radii[frame.numbers].max()
        (i, j), distances, _ = edges(frame, min(reach, 6.0))
        nearest = np.full(len(frame), np.inf)
        np.minimum.at(nearest, i, distances / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]]))
        out.append(nearest[~np.isin(frame.numbers, NOBLE_GASES)])
    return np.concatenate(out) if out else np.zeros(0)


def bonds_to_hydrogen(frames: Sequence[Frame], farther: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of C-H, N-H and O-H bonds, Å, and what pulls their hydrogen along them, eV/Å, both [n] and beside the
    median of their frame.

    Args:
        frames: those that have forces; a hydrogen whose force was set to zero is left out.
        farther: Å; so is one with another C, N or O within this distance, which pulls as well.
    """
    lengths, pulls = [], []
    for frame in frames:
        if frame.forces is None or not (frame.numbers == 1).any():
            continue
        (i, j), distances, vectors = edges(frame, max(1.3, farther))
        heavy = (frame.numbers[i] == 1) & np.isin(frame.numbers[j], (6, 7, 8))
        bonded = heavy & (distances < 1.3) & (np.linalg.norm(frame.forces, axis=1)[i] > 0)
        if farther:
            bonded &= np.bincount(i[heavy & (distances < farther)], minlength=len(frame))[i] == 1
        for z in (6, 7, 8):
            of_z = bonded & (frame.numbers[j] == z)
            if of_z.sum() > 1:
                lengths.append(distances[of_z] - np.median(distances[of_z]))
                pull = np.einsum("ij,ij->i", frame.forces[i[of_z]], vectors[of_z]) / distances[of_z]
                pulls.append(pull - np.median(pull))
    x, y = (np.concatenate(part) if part else np.zeros(0) for part in (lengths, pulls))
    near = np.abs(x) < 0.15
    return x[near], y[near]


def stiffness(frames: Sequence[Frame]) -> Line:
    """How fast the force on hydrogen along its only bond changes with the length of the bond, eV/Å^2."""
    x, y = bonds_to_hydrogen(frames)
    return _line(x, y) if len(x) > 2 and x.std() > 0.003 else Line(math.nan, 0.0, 0)


def work(frames: Sequence[Frame], with_cell: bool) -> tuple[Line, np.ndarray]:
    """Differences of energy between like frames over the work that forces (and stress) say they take.

    For frames a and b with atoms in the same order, E_b - E_a = -½ (F_a + F_b)·Δx + V ½ (σ_a + σ_b):ε to second order.

    Args:
        frames: labeled.
        with_cell: take the pairs whose cells differ, and the work of the stress alone, E_b - E_a + ½ (F_a + F_b)·Δx
            being what it is compared with; else the pairs in one cell.

    Returns:
        The line, and the numbers of atoms of the frames it is of.
    """
    groups: dict[bytes, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.energy is not None and frame.forces is not None and not (with_cell and frame.stress is None):
            groups[frame.numbers.tobytes() + frame.pbc.tobytes()].append(frame)
    pairs = [(a, b) for group in groups.values() for k in (1, 2) for a, b in zip(group, group[k:], strict=False)]
    if len(pairs) > WORK_PAIRS:
        pairs = [pairs[n] for n in np.linspace(0, len(pairs) - 1, WORK_PAIRS).astype(int)]
    rows = [row for a, b in pairs if (row := _work_between(a, b, with_cell)) is not None]
    if len(rows) < 5:
        return Line(math.nan, 0.0, 0), np.zeros(0)
    x, y, steps, sizes = np.array(rows).T
    # To second order: the smallest steps tell most, as long as there is enough of them.
    near = np.argsort(steps, kind="stable")[: max(20, len(rows) // 4)]
    return _line(x[near], y[near]), sizes[near]


def _work_between(a: Any, b: Any, with_cell: bool) -> tuple[float, float, float, float] | None:
    """Work, difference of energies, size of the step, number of atoms of two frames; None where they are too unlike."""
    strained = bool(np.abs(a.cell - b.cell).max() > 1e-8)
    if strained != with_cell or (with_cell and not a.pbc.all()):
        return None
    strain, volume = np.zeros((3, 3)), 0.0
    if a.pbc.all():
        middle, volume = (a.cell + b.cell) / 2, abs(np.linalg.det(a.cell) + np.linalg.det(b.cell)) / 2
        if volume < 1e-3:
            return None
        strain = np.linalg.solve(middle, b.cell - a.cell)
        moved = b.positions @ np.linalg.inv(b.cell) - a.positions @ np.linalg.inv(a.cell)
        moved = (moved - np.round(moved)) @ middle
    else:
        moved = b.positions - a.positions
        if a.pbc.any() and abs(np.linalg.det(a.cell)) > 1e-3:
            moved = moved - np.where(a.pbc, np.round(moved @ np.linalg.inv(a.cell)), 0.0) @ a.cell
    moved = moved - moved.mean(0)
    step = float(np.sqrt(np.square(moved).sum(1).mean()))
    if step > STEP or np.abs(strain).max() > STRAIN:
        return None
    by_forces = -float(((a.forces + b.forces) / 2 * moved).sum())
    if not with_cell:
        return by_forces, b.energy - a.energy, step, float(len(a))
    by_stress = volume * float(((a.stress + b.stress) / 2 * (strain + strain.T) / 2).sum())
    return by_stress, b.energy - a.energy - by_forces, step, float(len(a))


def shear(frames: Sequence[Frame]) -> Line:
    """The shear components of the stress over those of a pair energy that is fitted to the forces.

    What a pair energy lacks, the dependence on density above all, is in the pressure, which is left out here.
    """
    usable = [
        f
        for f in frames
        if f.stress is not None and f.forces is not None and f.pbc.all() and np.abs(f.forces).max() > FELT
    ]
    if len(usable) < 4:
        return Line(math.nan, 0.0, 0)
    # Forces tell what the pair energy is; frames of small ones are strained crystals, which it does not describe.
    sizes = strength(usable)
    usable = sample([f for f, size in zip(usable, sizes, strict=True) if size >= 0.5 * np.median(sizes)])
    volumes = np.array([abs(np.linalg.det(f.cell)) for f in usable])
    predicted = fit_pairs(usable).virials / volumes[:, None, None]
    p, s = (_shear_components(x) for x in (predicted, np.array([f.stress for f in usable])))
    # A few strained frames would otherwise decide.
    weight = 1 / np.maximum(np.repeat(np.linalg.norm(s.reshape(-1, 5), axis=1), 5), 1e-12)
    weight = np.minimum(weight, 4 * np.median(weight))
    return _line(p * weight, s * weight)


def _shear_components(stress: np.ndarray) -> np.ndarray:
    """[5 n_frames], of [n_frames, 3, 3]; each of the same size under rotation."""
    xx, yy, zz = (stress[:, k, k] for k in range(3))
    off = [math.sqrt(2) * (stress[:, a, b] + stress[:, b, a]) / 2 for a, b in ((0, 1), (0, 2), (1, 2))]
    return np.stack([*off, (xx - yy) / math.sqrt(2), (2 * zz - xx - yy) / math.sqrt(6)], axis=1).ravel()


def pair_energies(frames: Sequence[Frame]) -> Line:
    """Differences of energy over those of a pair energy that is fitted to the forces, between frames of one composition
    in one cell.

    What a pair energy lacks is left out so: the dependence on density, and what phases or isomers differ by, of which
    each is taken alone. A pair energy that does not describe the forces tells nothing.
    """
    usable = sample(
        [f for f in frames if f.energy is not None and f.forces is not None and np.abs(f.forces).max() > FELT]
    )
    groups: dict[bytes, list[int]] = defaultdict(list)
    for n, frame in enumerate(usable):
        cell = np.where(frame.pbc[:, None], frame.cell, 0.0).round(3) + 0.0
        groups[np.sort(frame.numbers).tobytes() + cell.tobytes()].append(n)
    energies = np.array([frame.energy for frame in usable], np.float64)
    members = [part for group in groups.values() for part in _levels(np.array(group), energies) if len(part) >= LIKE]
    fit = fit_pairs(usable) if members else None
    if fit is None or fit.explained < EXPLAINED:
        return Line(math.nan, 0.0, 0)
    given, stated = (np.concatenate([x[part] - x[part].mean() for part in members]) for x in (fit.energies, energies))
    return _line(given, stated)


def _levels(group: np.ndarray, energies: np.ndarray) -> list[np.ndarray]:
    """The members of a group in parts, between which the energies have gaps."""
    ordered = group[np.argsort(energies[group])]
    gaps = np.diff(energies[ordered])
    return np.split(ordered, np.flatnonzero(gaps > GAP * np.median(gaps)) + 1) if len(gaps) else [ordered]


@dataclass(frozen=True)
class PairFit:
    """A pair energy whose forces are nearest to those of some frames.

    Attributes:
        energies: [n_frames], eV, but for a constant.
        virials: [n_frames, 3, 3], eV: stress times volume.
        explained: the part of the squared forces that it gives.
    """

    energies: np.ndarray
    virials: np.ndarray
    explained: float


def fit_pairs(frames: Sequence[Frame], cutoff: float = 6.0, n_terms: int = 8, most_pairs: int = 15) -> PairFit:
    """Fits a pair energy to the forces of frames by least squares.

    Its derivative is a sum of Gaussians' derivatives in the distance over the sum of covalent radii, common to all
    pairs of elements, and more of them for each of the pairs that occur most.
    """
    near = [edges(frame, cutoff) for frame in frames]
    kinds = [
        np.sort(frame.numbers[pairs], axis=0).T @ np.array([200, 1])
        for frame, (pairs, _, _) in zip(frames, near, strict=True)
    ]
    names, counts = np.unique(np.concatenate(kinds), return_counts=True)
    common = names[np.argsort(-counts)][:most_pairs] if len(names) > 1 else names[:0]
    rows, virials, energies = [], [], []
    for frame, ((i, j), distance, vectors), kind in zip(frames, near, kinds, strict=True):
        radii = covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]]
        slope, integral = _terms(distance, radii, cutoff, n_terms)
        columns, sizes = (
            np.concatenate([part, *(part * (kind == name)[:, None] for name in common)], axis=1)
            for part in (slope, integral)
        )
        pull = (vectors / distance[:, None])[:, :, None] * columns[:, None, :]
        rows.append(sums(i, len(frame), pull).reshape(-1, pull.shape[2]))
        virials.append(0.5 * np.einsum("ea,ebn->abn", vectors, pull))
        energies.append(0.5 * sizes.sum(axis=0))
    matrix, target = np.concatenate(rows), np.concatenate([frame.forces.ravel() for frame in frames])  # type: ignore
    size = np.sqrt(np.square(matrix).mean(0)) + 1e-12
    matrix /= size
    normal, right = matrix.T @ matrix / len(matrix), matrix.T @ target / len(matrix)
    found = np.linalg.solve(normal + 1e-4 * np.eye(len(normal)), right)
    enough = len(target) >= ROWS * len(found) and target.any()
    explained = 1 - float(np.square(target - matrix @ found).sum() / np.square(target).sum()) if enough else 0.0
    found /= size
    return PairFit(np.array(energies) @ found, np.array([virial @ found for virial in virials]), explained)


def _terms(distance: np.ndarray, radii: np.ndarray, cutoff: float, n_terms: int) -> tuple[np.ndarray, np.ndarray]:
    """The terms of the derivative of a pair energy, and of the pair energy, both [n_edges, n_terms].

    Args:
        distance: [n_edges], Å.
        radii: [n_edges], the sums of covalent radii, Å.
    """
    centers = np.linspace(0.6, 2.4, n_terms)
    width = centers[1] - centers[0]

    def slopes(at: np.ndarray, unit: np.ndarray | float) -> np.ndarray:
        offset = ((at / unit)[:, None] - centers) / width
        return -offset * np.exp(-0.5 * offset**2) * np.square(1 - np.square(at / cutoff))[:, None]

    grid = np.linspace(0.0, cutoff, 601)
    integrals = np.zeros((len(distance), n_terms))
    for unit in np.unique(radii):
        steps = slopes(grid, unit)
        steps = (steps[1:] + steps[:-1]) / 2 * grid[1]
        table = np.vstack([-np.cumsum(steps[::-1], axis=0)[::-1], np.zeros(n_terms)])
        at = distance[radii == unit] / grid[1]
        low = np.minimum(at.astype(int), len(grid) - 2)
        part = (at - low)[:, None]
        integrals[radii == unit] = table[low] * (1 - part) + table[low + 1] * part
    return slopes(distance, radii), integrals


def push_and_turn(frames: Sequence[Frame]) -> np.ndarray:
    """How forces push and turn molecules as a whole, which those of a molecule's own energy never do.

    Of frames that are not periodic, |ΣF| / Σ|F| and |Σ r × F| / Σ|r||F|, with r from the middle of the atoms; both are
    0 for forces of its own, and about 1/√n_atoms for vectors that have nothing to do with the positions. Frames of one
    or two atoms, and those at rest, are left out.

    Returns:
        [n, 2].
    """
    rows = []
    for frame in frames:
        if frame.forces is None or frame.pbc.any() or len(frame) < 3:
            continue
        arms = frame.positions - frame.positions.mean(axis=0)
        sizes = np.linalg.norm(frame.forces, axis=1)
        if sizes.max() > MOVING:
            push = np.linalg.norm(frame.forces.sum(axis=0)) / sizes.sum()
            turn = np.linalg.norm(np.cross(arms, frame.forces).sum(axis=0))
            rows.append((push, turn / (np.linalg.norm(arms, axis=1) * sizes).sum()))
    return np.array(rows).reshape(-1, 2)


def repeated_forces(frames: Sequence[Frame]) -> int:
    """How many frames have, to the last digit, the forces of one before them whose distances are others."""
    seen: dict[bytes, np.ndarray] = {}
    n = 0
    for frame in frames:
        if frame.forces is not None and np.abs(frame.forces).max() > FELT:
            distances = np.sort(edges(frame, 6.0)[1])
            first = seen.setdefault(frame.forces.tobytes(), distances)
            both = min(len(first), len(distances))  # one that is just within reach may be just beyond
            n += bool(np.abs(first[:both] - distances[:both]).max(initial=0.0) > 0.01)
    return n


def sums(i: np.ndarray, n_atoms: int, values: np.ndarray) -> np.ndarray:
    """The sum over the edges of each atom, [n_atoms, ...] of values [n_edges, ...]; i [n_edges] ascends."""
    to_atoms = sparse.csr_matrix(
        (np.ones(len(i)), np.arange(len(i)), np.searchsorted(i, np.arange(n_atoms + 1))), shape=(n_atoms, len(i))
    )
    return (to_atoms @ values.reshape(len(i), -1)).reshape(n_atoms, *values.shape[1:])


def strength(frames: Sequence[Frame]) -> np.ndarray:
    """The root mean square force component, eV/Å, of each frame that has forces."""
    return np.array([np.sqrt(np.square(frame.forces).mean()) for frame in frames if frame.forces is not None])


def edges(frame: Frame, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs [2, n_edges], distances [n_edges] and vectors [n_edges, 3], Å; atoms on top of each other are left out."""
    pairs, shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, reach)
    vectors = pair_vectors(frame.positions, frame.cell, pairs, shifts)
    distances = np.linalg.norm(vectors, axis=1)
    apart = distances > 1e-3
    return pairs[:, apart], distances[apart], vectors[apart]


def _line(x: np.ndarray, y: np.ndarray) -> Line:
    """Through the origin, by the ratio of the two root mean squares, so that noise in x does not flatten it; the few
    points that are farthest from the first line are left out of the second."""
    for _ in range(2):
        xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
        if min(xx, yy) == 0 or len(x) < 3:
            return Line(math.nan, 0.0, len(x))
        correlation, slope = xy / math.sqrt(xx * yy), math.copysign(math.sqrt(yy / xx), xy)
        off = np.abs(y - slope * x)
        keep = off <= np.percentile(off, 95)
        x, y = x[keep], y[keep]
    return Line(slope, correlation, len(x))
