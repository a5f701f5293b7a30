"""Masking atom by atom, in organic molecules, against a naive reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule as make_molecule
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import primitive_neighbor_list

from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store
from mdpot.training.objectives.masking import mask_molecules

from .test_masking import CUTOFF, H, O, check_edges, generator, positions_key  # noqa: F401


def organic_frames() -> list[Frame]:
    """Molecules across the boundary of a slanted cell, in random order of their atoms, and one without a cell."""
    rng, frames = np.random.default_rng(4), []
    for names, size in ((("CH3CH2OH", "C6H6", "H2O", "H2"), 14.0), (("CH3CH2OH",), 0.0), (("CH4", "C6H6"), 11.0)):
        placed = []
        for n, name in enumerate(names):
            atoms = make_molecule(name)
            atoms.rattle(0.05, rng=rng)
            atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
            placed.append((atoms.numbers, atoms.positions + np.array([0.0, 6.0 * (n % 2), 6.0 * (n // 2)])))
        order = rng.permutation(sum(len(numbers) for numbers, _ in placed))
        cell = size * np.array([[1.0, 0, 0], [0.2, 1, 0], [0, -0.1, 1]])
        positions = np.concatenate([x for _, x in placed])[order]
        if size:
            positions = (np.mod(positions @ np.linalg.inv(cell), 1.0)) @ cell
        numbers = np.concatenate([z for z, _ in placed])[order]
        forces = rng.normal(size=positions.shape)
        frames.append(Frame(numbers.astype(np.int64), positions, cell, np.full(3, size > 0), 0.0, forces))
    return frames


def components(frame: Frame) -> list[set[int]]:
    """The molecules of a frame: what bonds of covalent radii connect, walked one by one."""
    i, j = primitive_neighbor_list(
        "ij", frame.pbc, frame.cell, frame.positions, 1.3 * covalent_radii[frame.numbers], numbers=frame.numbers
    )
    left, found = set(range(len(frame))), []
    while left:
        group = {left.pop()}
        while new := set(j[np.isin(i, list(group))].tolist()) - group:
            group |= new
        left -= group
        found.append(group)
    return found


def naive_target(frame: Frame, atom: int, gone: set[int], target: str) -> np.ndarray:
    """The vector from a visible atom to a removed one of its molecule, by the rule as it is written down."""
    vectors = {
        lost: find_mic(frame.positions[lost] - frame.positions[atom], frame.cell, bool(frame.pbc.all()))[0]
        for lost in gone
    }
    lengths = {lost: float(np.linalg.norm(vector)) for lost, vector in vectors.items()}
    reach = {lost: 1.3 * covalent_radii[frame.numbers[[lost, atom]]].sum() for lost in gone}
    bonded = [lost for lost in gone if lengths[lost] < reach[lost]]
    if bonded or target == "nearest":
        return vectors[min(bonded or gone, key=lambda lost: lengths[lost])]
    return vectors[max(gone, key=lambda lost: lengths[lost])]


@pytest.mark.parametrize("target", ["nearest", "farthest"])
@pytest.mark.parametrize("ratio", [0.2, 0.6, 1.0])
def test_masking_atom_by_atom_equals_a_naive_reference(target, ratio: float) -> None:
    frames = organic_frames()
    batch = Store(frames, CUTOFF).batch(torch.arange(len(frames)), torch.float64)
    n_far = 0
    for seed in range(3):
        masked, found = mask_molecules(batch, ratio, H, generator(seed), "atom", target)
        vectors = dict(zip(found.atoms.tolist(), found.displacements.numpy(), strict=True))
        expected, start, n_gone, n_hydrogens = {}, 0, 0, 0
        for k, frame in enumerate(frames):
            left = {positions_key(x) for x in masked.graph.positions[masked.graph.system == k]}
            kept = [a for a in range(len(frame)) if positions_key(frame.positions[a]) in left]
            for group in components(frame):
                gone = group - set(kept)
                assert all(frame.numbers[a] == H for a in gone)
                n_gone, n_hydrogens = n_gone + len(gone), n_hydrogens + int((frame.numbers[list(group)] == H).sum())
                if ratio == 1.0:  # H2 would leave nobody behind
                    assert len(gone) == (0 if len(group) == 2 else (frame.numbers[list(group)] == H).sum())
                if gone:
                    expected |= {start + kept.index(a): naive_target(frame, a, gone, target) for a in group - gone}
            check_edges(frame, kept, masked, k)
            start += len(kept)
        assert vectors.keys() == expected.keys()
        assert set(masked.marks.nonzero().squeeze(1).tolist()) == expected.keys()
        for atom, vector in expected.items():
            np.testing.assert_allclose(vectors[atom], vector, atol=1e-9)
        assert float(found.share) == pytest.approx(n_gone / n_hydrogens)
        n_far += sum(float(np.linalg.norm(v)) > 3.0 for v in vectors.values())
    assert n_far > 0 or ratio > 0.2, "no atom points to another than a neighbor"


def test_the_two_rules_differ_only_for_atoms_that_lost_no_neighbor() -> None:
    batch = Store(organic_frames(), CUTOFF).batch(torch.arange(3), torch.float64)
    (near, a), (far, b) = (mask_molecules(batch, 0.6, H, generator(1), "atom", t) for t in ("nearest", "farthest"))  # type: ignore[arg-type]
    assert torch.equal(near.graph.positions, far.graph.positions)
    assert torch.equal(a.atoms, b.atoms)
    short, long = a.displacements.norm(dim=1), b.displacements.norm(dim=1)
    bonded = short < 1.4
    assert torch.equal(short[bonded], long[bonded])
    assert bool((long[~bonded] >= short[~bonded]).all())
    assert bool((long[~bonded] > short[~bonded] + 1.0).any())


def test_each_atom_goes_with_the_ratio_and_for_itself() -> None:
    frame = organic_frames()[1]
    batch = Store([frame], CUTOFF).batch(torch.zeros(1, dtype=torch.int64), torch.float64)
    source, gone = generator(2), np.zeros((1000, len(frame)))
    for n in range(len(gone)):
        masked, _ = mask_molecules(batch, 0.3, H, source, "atom")
        left = {positions_key(x) for x in masked.graph.positions}
        gone[n] = [positions_key(x) not in left for x in frame.positions]
    hydrogens = frame.numbers == H
    assert not gone[:, ~hydrogens].any()
    assert np.abs(gone[:, hydrogens].mean(0) - 0.3).max() < 4 * np.sqrt(0.21 / len(gone))
    correlation = np.corrcoef(gone[:, hydrogens].T) - np.eye(hydrogens.sum())
    assert np.abs(correlation).max() < 5 / np.sqrt(len(gone))


def test_atoms_at_the_same_distance_always_give_the_same_target() -> None:
    """In an undistorted methane all H are equally far."""
    atoms = make_molecule("CH4")
    frame = Frame(atoms.numbers, np.round(atoms.positions, 1), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    batch = Store([frame], CUTOFF).batch(torch.zeros(1, dtype=torch.int64), torch.float64)
    for target in ("nearest", "farthest"):
        found = [mask_molecules(batch, 1.0, H, generator(n), "atom", target)[1].displacements for n in range(5)]  # type: ignore[arg-type]
        assert all(torch.equal(one, found[0]) for one in found)
        assert found[0].shape == (1, 3)
