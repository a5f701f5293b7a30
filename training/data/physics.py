"""Whether the labels of a file can be what they are taken for: in these units, with this sign.

Nothing in a file of numbers says that its stress is in GPa or its positions in bohr, but such numbers contradict each
other. Each comparison is silent where the frames do not tell:

- nearest neighbors against the sum of covalent radii;
- the stiffness of bonds to hydrogen, which is much the same in all molecules, and the size of the forces;
- the work of forces and stress between two like frames against the difference of their energies;
- the shear part of the stress against that of a pair energy that is fitted to the forces.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from scipy import sparse

from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.training.data.frames import Frame
from mdpot.training.data.units import ASE, ENERGIES, PRESSURES, RYDBERG, Units
from mdpot.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL

SAMPLE_FRAMES, SAMPLE_ATOMS = 60, 4000
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
#: Median over atoms of the distance to the nearest neighbor, in sums of covalent radii. Crystals at 150 GPa have 0.72
#: and more, and no set of twenty has more than 1.05; Å taken for bohr give about 0.5 and bohr taken for Å about 1.8.
NEAREST = (0.62, 1.4)
#: Stiffness of a bond to hydrogen, eV/Å^2; C-H, N-H and O-H have 26 to 56 in a dozen sets of data.
STIFFNESS = (12.0, 120.0)
LARGEST_TYPICAL_FORCE = 60.0  # eV/Å, the median of the norms
#: Two frames are compared where atoms move by no more than this, Å, and the cell by no more than this strain.
STEP, STRAIN = 0.4, 0.08
WORK_PAIRS = 2000
STRONG = 0.05  # eV/Å, a typical force; relaxed crystals have less, and their stress is none of a pair energy's
AGREEMENT, WEAK_AGREEMENT = 0.75, 0.4  # least correlation at which a slope says something, and says that it is huge


@dataclass(frozen=True)
class Line:
    """A straight line through the origin: slope, the correlation, and how many points it rests on."""

    slope: float
    correlation: float
    n_points: int


def contradictions(frames: Sequence[Frame], names: Mapping[str, str], units: Units = ASE) -> list[str]:
    """What in the frames contradicts physics, a sentence each, with the likely cause and the remedy.

    Args:
        frames: in eV and Å; labels may be absent.
        names: the keys of "energy", "forces" and "stress" in the file, for the messages.
        units: what the numbers in the file were taken to be in.

    Returns:
        The sentences; none where nothing is found.
    """
    frames = [frame for frame in frames if len(frame) > 1]
    some = sample(frames)
    found = [_lengths(some, units.length)]
    if found[0] is None:  # else everything that follows is wrong as well
        forces = _forces(some, names.get("forces", "forces"), units)
        energies = _energies(frames, names, units) if forces is None else None
        found += [forces, energies]
        if forces is energies is None:  # else the stress would contradict them whatever its unit is
            found.append(_stress(frames, names.get("stress", "stress"), units))
    return [text for text in found if text is not None]


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
        (i, j), distances, _ = _edges(frame, min(reach, 6.0))
        nearest = np.full(len(frame), np.inf)
        np.minimum.at(nearest, i, distances / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]]))
        out.append(nearest[~np.isin(frame.numbers, NOBLE_GASES)])
    return np.concatenate(out) if out else np.zeros(0)


def _lengths(frames: Sequence[Frame], unit: str) -> str | None:
    nearest = nearest_neighbors(frames)
    if len(nearest) < 2:
        return None
    middle = float(np.median(nearest))
    taken = f"{_shortest(frames)} ({unit} was taken for the unit of length)."
    if middle < NEAREST[0]:
        if unit == "bohr" and middle > 0.4:
            taken += (
                " They are likely in Å: --units ase if energies and forces are in eV and Å too, else --units length=Å."
            )
        return (
            f"atoms are far too close: half of them have a neighbor within {middle:.2f} of the sum of the covalent "
            f"radii, {taken}"
        )
    if middle > NEAREST[1] and np.quantile(nearest, 0.05, method="lower") > 0.85 * NEAREST[1]:
        if unit == "Å" and middle < 2.1:
            taken += (
                " They are likely in bohr: --units atomic if energies and forces are in Hartree and bohr too, else "
                "--units length=bohr."
            )
        within = f"{middle:.2f} times the sum of the covalent radii" if np.isfinite(middle) else "6 Å"
        return f"atoms are far apart: half of them have no neighbor within {within}, {taken}"
    return None


def _shortest(frames: Sequence[Frame]) -> str:
    """The smallest distance between two elements of the first frame, as text."""
    frame = frames[0]
    (i, j), distances, _ = _edges(frame, 6.0)
    if not len(distances):
        return "e.g. no pair within 6 Å"
    k = int(distances.argmin())
    return f"e.g. {chemical_symbols[frame.numbers[i[k]]]}–{chemical_symbols[frame.numbers[j[k]]]} {distances[k]:.2f} Å"


def stiffness(frames: Sequence[Frame]) -> Line:
    """How fast the force on hydrogen along its only bond changes with the length of the bond, eV/Å^2."""
    lengths, pulls = [], []
    for frame in frames:
        if frame.forces is None or not (frame.numbers == 1).any():
            continue
        (i, j), distances, vectors = _edges(frame, 1.3)
        bonds = (frame.numbers[i] == 1) & np.isin(frame.numbers[j], (6, 7, 8))
        for z in (6, 7, 8):
            of_z = bonds & (frame.numbers[j] == z)
            if of_z.sum() > 1:
                lengths.append(distances[of_z] - np.median(distances[of_z]))
                pull = np.einsum("ij,ij->i", frame.forces[i[of_z]], vectors[of_z]) / distances[of_z]
                pulls.append(pull - np.median(pull))
    x, y = (np.concatenate(part) if part else np.zeros(0) for part in (lengths, pulls))
    near = np.abs(x) < 0.15
    return _line(x[near], y[near]) if near.sum() > 2 and x.std() > 0.003 else Line(math.nan, 0.0, 0)


def _forces(frames: Sequence[Frame], key: str, taken: Units) -> str | None:
    norms = [np.linalg.norm(frame.forces, axis=1) for frame in frames if frame.forces is not None]
    if not norms:
        return None
    typical = float(np.median(np.concatenate(norms)))
    line = stiffness(frames)
    if line.n_points > 30 and line.correlation > 0.6 and not STIFFNESS[0] < line.slope < STIFFNESS[1]:
        units = {"kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL, "energy=Hartree,force=Hartree/bohr": HARTREE / BOHR}
        units |= {"energy=Rydberg,force=Rydberg/bohr": RYDBERG / BOHR, "energy=Hartree,force=Hartree/Å": HARTREE}
        units |= {"force=meV/Å": 1e-3, "force=eV/bohr": 1 / BOHR, "ase": 1.0}
        slope = line.slope / taken.to_ev_per_angstrom  # in the numbers of the file
        likely = _nearest({name: slope * value for name, value in units.items()}, 35.0)
        hint = f" Likely: --units {likely}, energies included." if likely else " No usual unit explains it."
        return (
            f"the forces in {key!r} are not in {taken.force}: bonds to hydrogen would have a stiffness of "
            f"{line.slope:.3g} eV/Å², and C–H, N–H and O–H have 25 to 60.{hint}"
        )
    if line.n_points > 30 and line.correlation < -0.6:
        return (
            f"the forces in {key!r} have the wrong sign: they push bonds to hydrogen apart. If they are gradients of "
            f"the energy: --units force={_turned(taken.force)}."
        )
    if typical > LARGEST_TYPICAL_FORCE:
        hint = " They are likely in meV/Å: --units force=meV/Å." if typical < 1e4 and taken.are_ours else ""
        return f"the forces in {key!r} are far too large: half of them above {typical:.3g} eV/Å.{hint}"
    return None


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


def _energies(frames: Sequence[Frame], names: Mapping[str, str], taken: Units) -> str | None:
    line, sizes = work(frames, with_cell=False)
    if line.n_points < 10 or abs(line.correlation) < 0.9 or 0.6 < line.slope < 1.6:
        return None
    energy, forces = names.get("energy"), names.get("forces")
    said = f"energies ({energy}) and forces ({forces}) contradict each other: between similar frames"
    if line.correlation < 0:
        return (
            f"{said} the energy rises where the forces pull. If they are gradients of the energy: --units "
            f"force={_turned(taken.force)}."
        )
    factor = {
        "energy=Hartree": 1 / HARTREE,
        "energy=Rydberg": 1 / RYDBERG,
        "energy=kcal/mol": 1 / KCAL_PER_MOL,
        "energy=kJ/mol": 1 / KJ_PER_MOL,
        "energy=meV": 1e3,
        "energy=eV/atom": float(np.mean(1 / sizes)),
        "force=Hartree/bohr": HARTREE / BOHR,
        "force=Rydberg/bohr": RYDBERG / BOHR,
        "force=kcal/mol/Å": KCAL_PER_MOL,
        "force=meV/Å": 1e-3,
        "energy=Hartree,force=Hartree/bohr": 1 / BOHR,
        "length=bohr": BOHR,
    }
    likely = _nearest(factor, line.slope, 1.2) if taken.are_ours else None
    hint = f" Likely: --units {likely}." if likely else " Name their units with --units."
    return f"{said} the energy differs by {line.slope:.3g} times the work of the forces.{hint}"


def _turned(unit: str) -> str:
    """A unit with the other sign."""
    return unit.removeprefix("-") if unit.startswith("-") else f"-{unit}"


def shear(frames: Sequence[Frame]) -> Line:
    """The shear components of the stress over those of a pair energy that is fitted to the forces.

    What a pair energy lacks, the dependence on density above all, is in the pressure, which is left out here.
    """
    usable = [f for f in frames if f.stress is not None and f.forces is not None and f.pbc.all() and f.forces.any()]
    if len(usable) < 4:
        return Line(math.nan, 0.0, 0)
    # Forces tell what the pair energy is; frames of small ones are strained crystals, which it does not describe.
    strength = _strength(usable)
    usable = sample([f for f, size in zip(usable, strength, strict=True) if size >= 0.5 * np.median(strength)])
    predicted = _pair_stress(usable)
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


def _pair_stress(frames: Sequence[Frame], cutoff: float = 6.0, n_terms: int = 8, most_pairs: int = 15) -> np.ndarray:
    """[n_frames, 3, 3], eV/Å^3: the stress of a pair energy whose forces are nearest to those of the frames.

    Its derivative is a sum of Gaussians' derivatives in the distance over the sum of covalent radii, common to all
    pairs of elements, and more of them for each of the pairs that occur most.
    """
    edges = [_edges(frame, cutoff) for frame in frames]
    kinds = [
        np.sort(frame.numbers[pairs], axis=0).T @ np.array([200, 1])
        for frame, (pairs, _, _) in zip(frames, edges, strict=True)
    ]
    names, counts = np.unique(np.concatenate(kinds), return_counts=True)
    common = names[np.argsort(-counts)][:most_pairs] if len(names) > 1 else names[:0]
    rows, virials = [], []
    centers = np.linspace(0.6, 2.4, n_terms)
    width = centers[1] - centers[0]
    for frame, ((i, j), distance, vectors), kind in zip(frames, edges, kinds, strict=True):
        x = distance / (covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
        offset = (x[:, None] - centers) / width
        slope = -offset * np.exp(-0.5 * offset**2) * np.square(1 - np.square(distance / cutoff))[:, None]
        columns = [slope, *(slope * (kind == name)[:, None] for name in common)]
        pull = (vectors / distance[:, None])[:, :, None] * np.concatenate(columns, axis=1)[:, None, :]
        rows.append(_sums(i, len(frame), pull).reshape(-1, pull.shape[2]))
        virials.append(0.5 * np.einsum("ea,ebn->abn", vectors, pull) / abs(np.linalg.det(frame.cell)))
    matrix, target = np.concatenate(rows), np.concatenate([frame.forces.ravel() for frame in frames])  # type: ignore
    size = np.sqrt(np.square(matrix).mean(0)) + 1e-12
    normal = (matrix / size).T @ (matrix / size) / len(matrix)
    right = (matrix / size).T @ target / len(matrix)
    found = np.linalg.solve(normal + 1e-4 * np.eye(len(normal)), right) / size
    return np.array([virial @ found for virial in virials])


def _sums(i: np.ndarray, n_atoms: int, values: np.ndarray) -> np.ndarray:
    """The sum over the edges of each atom, [n_atoms, ...] of values [n_edges, ...]; i [n_edges] ascends."""
    to_atoms = sparse.csr_matrix(
        (np.ones(len(i)), np.arange(len(i)), np.searchsorted(i, np.arange(n_atoms + 1))), shape=(n_atoms, len(i))
    )
    return (to_atoms @ values.reshape(len(i), -1)).reshape(n_atoms, *values.shape[1:])


def _stress(frames: Sequence[Frame], key: str, taken: Units) -> str | None:
    """By the work of the stress where frames with one cell and another tell, else by the shear."""
    line, _ = work(frames, with_cell=True)
    ratio = 1 / line.slope if line.n_points >= 10 and abs(line.correlation) > 0.9 and line.slope else math.nan
    against = "the work of deforming the cell"
    if not math.isfinite(ratio):
        line = shear(frames)
        # A pair energy that describes little still has the right size: a factor of a hundred is none of its errors.
        # So it has the right sign, where there are forces worth the name.
        sure = line.n_points > 50 and (
            abs(line.slope) > 20 or (line.slope < -0.2 and np.median(_strength(frames)) > STRONG)
        )
        enough = WEAK_AGREEMENT if sure else AGREEMENT
        if line.n_points < 20 or abs(line.correlation) < enough:
            return None
        ratio, against = line.slope, "the virial that the forces imply"
    if 0.2 < ratio < 5:
        return None
    atomic = {"Hartree/bohr³": HARTREE / BOHR**3} if taken.energy == "Hartree" else {}
    what, units, now = "stress", {**PRESSURES, "eV/Å³": 1.0, **atomic}, taken.to_ev_per_cubic_angstrom
    if "virial" in key.lower():
        what, units, now = "virial", ENERGIES, taken.virial_to_ev
    right = now / ratio  # what the numbers of the file are to be multiplied by
    signed = {f"{sign}{name}": (-size if sign else size) for name, size in units.items() for sign in ("", "-")}
    likely = _nearest(signed, right)
    hint = f" It is likely in {likely.lstrip('-')}" if likely else ""
    if likely and likely.startswith("-"):
        hint += f", with the sign of {'the stress' if what == 'virial' else 'a pressure'}"
    remedy = f"{hint}: --units {what}={likely}." if likely else " Name its unit with --units."
    return (
        f"stress ({key}) and forces contradict each other: the stress is {ratio:.3g} times what {against} says "
        f"(eV/Å³, tension positive).{remedy} Without the stress: --stress-key ignore."
    )


def _strength(frames: Sequence[Frame]) -> np.ndarray:
    """The root mean square force component, eV/Å, of each frame that has forces."""
    return np.array([np.sqrt(np.square(frame.forces).mean()) for frame in frames if frame.forces is not None])


def _edges(frame: Frame, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _nearest(candidates: Mapping[str, float], value: float, most: float = 1.5) -> str | None:
    """The candidate nearest to a value of the same sign, within a factor of `most`."""
    off = {name: abs(math.log(abs(size / value))) for name, size in candidates.items() if size * value > 0}
    best = min(off, key=lambda name: off[name], default=None)
    return best if best is not None and off[best] < math.log(most) else None
