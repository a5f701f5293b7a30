"""Where a run starts: a structure from a file, or a fresh box of water."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from mdpot.electrons import stated_electrons
from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.simulate.engine import U_PER_A3
from mdpot.structures import read_structures

WATER_MASS = 18.01528  # u
OH_LENGTH, HOH_ANGLE = 0.9572, 104.52  # Å, degrees: the molecule in the gas phase
CONTACT = 2.75  # Å: no two oxygens come closer in a fresh box
TRIALS = 24  # orientations tried for a molecule
SWEEPS = 2  # times that every molecule is turned


def count_waters(start: str) -> int:
    """N of a start `water:N`; 0 of a file.

    Raises:
        MdpotError: a malformed count.
    """
    if not start.startswith("water:"):
        return 0
    if not re.fullmatch(r"water:[1-9]\d*", start):
        raise MdpotError(f"START {start!r} must be water:N with a positive count N, e.g. water:64.")
    return int(start.removeprefix("water:"))


def read_start(start: str, rng: np.random.Generator) -> Atoms:
    """The structure a run starts from, with a right-handed cell.

    Args:
        start: a file as `read_structures` takes it (its last frame is taken), or `water:N` for N molecules at 1 g/cm³.
        rng: places and turns the molecules of a fresh box.

    Raises:
        MdpotError: no such file, not a structure, constraints in it, or a malformed count of waters.
    """
    if n_waters := count_waters(start):
        return water_box(n_waters, rng)
    path = Path(start)
    if path.is_dir():
        raise MdpotError(f"START {start!r} is a folder. Give a structure file in it, or water:N for a fresh box.")
    if not path.is_file():
        raise MdpotError(
            f"START {start!r} is not there. Give a structure file that ASE reads, or water:N for a fresh box."
        )
    try:
        atoms = read_structures(path)[-1]
    except MdpotError as error:
        raise MdpotError(f"START {error}") from None
    if len(atoms) == 0:
        raise MdpotError(f"START {start!r} holds no atoms.")
    if atoms.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        raise MdpotError(
            f"START {start!r} holds constraints ({kinds}), which mdpot md does not support: it moves all atoms. Take "
            "the constraints out of the file, or run ASE's dynamics with MaskedGNNCalculator, which keeps them."
        )
    if atoms.has("momenta") and atoms.get_momenta().any():
        warnings.warn(
            f"START {start!r} holds velocities, which are not used: new ones are drawn at the temperature of the run.",
            stacklevel=2,
        )
    clean = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, masses=atoms.get_masses())
    clean.info.update(stated_electrons(atoms).info)
    if np.linalg.det(clean.cell.array) < 0:
        clean.set_cell(-clean.cell.array)  # the same lattice, right-handed
    return clean


def water_box(n_molecules: int, rng: np.random.Generator, density: float = 1.0) -> Atoms:
    """A cubic periodic box of water: a jittered lattice of molecules, pushed apart and turned.

    Every molecule takes, out of `TRIALS` random orientations, the one with the least energy in the field of
    its neighbors (point charges and a repulsion between hydrogens), so that hydrogens do not meet.

    Args:
        n_molecules: how many; atoms come as O, H, H, molecule by molecule.
        rng: everything random comes from it.
        density: g/cm³.

    Returns:
        [3 * n_molecules] atoms; oxygens at least about `CONTACT` apart, periodic images included.

    Raises:
        MdpotError: no molecule, or a density that is not positive.
    """
    if n_molecules < 1 or not density > 0:
        raise MdpotError(f"n_molecules and density must be positive; got {n_molecules} and {density}.")
    length = (n_molecules * WATER_MASS * U_PER_A3 / density) ** (1 / 3)
    oxygens = _spread(n_molecules, length, rng)
    arms = _turn(oxygens, length, rng)
    positions = np.concatenate([oxygens[:, None], oxygens[:, None] + arms], axis=1).reshape(-1, 3)
    return Atoms("OHH" * n_molecules, positions, cell=[length] * 3, pbc=True)


def _spread(n: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Points [n, 3] in a periodic cube: sites of a jittered lattice, pushed apart until none touch."""
    per_side = int(np.ceil(n ** (1 / 3) - 1e-9))
    sites = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = rng.permutation(sites)[:n]
    spacing = length / per_side
    points = (sites + 0.5) * spacing + rng.normal(scale=0.05 * spacing, size=(n, 3))
    contact = min(CONTACT, 0.89 * length)  # leaves room in the box of one or two molecules
    cell, pbc = length * np.eye(3), np.ones(3, dtype=bool)
    for _ in range(2000):
        pairs, shifts = neighbor_list(points, cell, pbc, contact)
        if pairs.size == 0:
            break
        vectors = pair_vectors(points, cell, pairs, shifts)
        distances = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)
        # Each of the two goes half of the way, and a little more so that contacts really open.
        np.subtract.at(points, pairs[0], 0.51 * (contact * 1.01 - distances) * vectors / distances)
    return points % length


def _turn(oxygens: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """Vectors [n, 2, 3] from each oxygen to its hydrogens."""
    half = np.deg2rad(HOH_ANGLE) / 2
    molecule = OH_LENGTH * np.array([[np.sin(half), 0.0, np.cos(half)], [-np.sin(half), 0.0, np.cos(half)]])
    n = len(oxygens)
    rotations = Rotation.random(n * (1 + SWEEPS * TRIALS), rng).as_matrix()
    trials = (molecule @ rotations.swapaxes(1, 2)).reshape(-1, n, 2, 3)
    arms, trials = trials[0].copy(), trials[1:].reshape(SWEEPS, TRIALS, n, 2, 3)
    cell = length * np.eye(3)
    (i, j), shifts = neighbor_list(oxygens, cell, np.ones(3, dtype=bool), 6.0)
    others = i != j
    i, j, shifts = i[others], j[others], shifts[others]
    first = np.searchsorted(i, np.arange(n + 1))
    for sweep in range(SWEEPS):
        for k in rng.permutation(n):
            mine = slice(first[k], first[k + 1])
            at = oxygens[j[mine]] + shifts[mine] @ cell - oxygens[k]  # [n_neighbors, 3]
            around = at[:, None] + np.concatenate([np.zeros((len(at), 1, 3)), arms[j[mine]]], axis=1)
            options = np.concatenate([arms[None, k], trials[sweep, :, k]])  # [1 + TRIALS, 2, 3]
            arms[k] = options[np.argmin(_field(options, around))]
    return arms


def _field(options: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The energy [n_options] of hydrogens [n_options, 2, 3] among molecules [n_neighbors, 3, 3], in no unit.

    Charges in the ratio O : H = −2 : 1, and a wall between hydrogens inside about 1.8 Å.
    """
    vectors = options[:, :, None, None] - around  # [n_options, 2, n_neighbors, 3 sites, 3]
    distances = np.maximum(np.linalg.norm(vectors, axis=-1), 0.1)
    to_oxygen, to_hydrogen = distances[..., 0], distances[..., 1:]
    energy = (1 / to_hydrogen + (1.8 / to_hydrogen) ** 12).sum(axis=(1, 2, 3))
    return energy - (2 / to_oxygen - (1.5 / to_oxygen) ** 12).sum(axis=(1, 2))
