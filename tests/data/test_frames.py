"""Frames, data sets, fingerprints and groups."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mdpot.training.data.frames import Dataset, are_kinds, fingerprint, first_of_repeats, make_groups
from mdpot.training.data.splits import split_by_group


def test_the_fingerprint_depends_on_all_of_the_content(make_frame) -> None:
    first = fingerprint([make_frame(), make_frame(energy=-11.0)])
    assert len(first) == 64
    assert first == fingerprint([make_frame(), make_frame(energy=-11.0)])
    changes = [
        {"energy": -12.0},
        {"energy": None},
        {"forces": np.zeros((3, 3))},
        {"forces": None},
        {"numbers": np.array([8, 1, 2])},
        {"cell": np.eye(3) * 6.5},
        {"pbc": np.zeros(3, dtype=bool)},
        {"stress": np.eye(3)},
        {"group": "other"},
    ]
    others = {fingerprint([make_frame(), make_frame(**{"energy": -11.0, **change})]) for change in changes}
    assert len(others | {first}) == len(changes) + 1


def test_a_data_set_knows_its_size_and_fingerprint(make_frame) -> None:
    frames = [make_frame(), make_frame()]
    dataset = Dataset("name", frames, "labels", "origin")
    assert len(dataset) == 2
    assert dataset.fingerprint == fingerprint(frames)


def test_repeats_are_found_whatever_their_labels_are(make_frame) -> None:
    moved = make_frame().positions + 0.1
    frames = [
        make_frame(),
        make_frame(positions=moved),
        make_frame(energy=-12.0, group="b"),
        make_frame(cell=np.eye(3)),
    ]
    assert first_of_repeats(frames) == [0, 1, 0, 3]


def test_ten_named_groups_are_kept() -> None:
    names = [str(k // 3) for k in range(30)]
    assert make_groups(names) == names


def test_frames_without_names_leave_trajectories_whole() -> None:
    names = [*(f"md_{k // 6}" for k in range(72)), *[""] * 6]
    groups = make_groups(names, ["md"] * 72 + ["surface"] * 6)
    assert groups[:72] == names[:72]
    assert groups[72:] == [f"surface#{k // 2}" for k in range(6)]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        ([f"traj_{letter}" for letter in "abcdefghijkl"], False),
        ([f"run {letter}" for letter in "ABCDEFGHIJ"], False),
        ([f"md_{k:02d}" for k in range(12)] + [""], False),
        ([f"oxide_{letter}" for letter in ("B", "C", "O", "N", "S", "P", "F", "H", "I", "V")], True),
        (["bulk", "slab", "dimer", "Ta-W", "liquid", "phonon", "twin", "vacancy", "A15", "sigma", ""], True),
        (["bulk", "slab", "dimer", "Ta-W", "liquid", "phonon", "twin", "vacancy", "A15", ""], False),
    ],
)
def test_names_that_count_are_those_of_trajectories(names: list[str], kinds: bool) -> None:
    assert are_kinds(names) == kinds


@pytest.mark.parametrize("n_frames", [1, 49, 100, 1234])
def test_frames_without_names_come_in_runs(n_frames: int) -> None:
    groups = make_groups([""] * n_frames)
    assert len(groups) == n_frames
    assert min(n_frames, 33) <= len(set(groups)) <= 75
    # A group is one run: it starts once.
    starts = [g for k, g in enumerate(groups) if k == 0 or groups[k - 1] != g]
    assert len(starts) == len(set(starts))


def test_kinds_are_cut_into_runs_rare_ones_into_shorter_ones() -> None:
    sizes = {"bulk": 700, "shear": 300, "dimer": 60, "gamma_111": 20, "surface": 12, "slab": 4, "phonon": 104}
    kinds = [name for name, size in sizes.items() for _ in range(size)]
    groups = make_groups([""] * len(kinds), kinds)
    longest = {
        name: max(Counter(g for g, kind in zip(groups, kinds, strict=True) if kind == name).values()) for name in sizes
    }
    of_all = round(len(kinds) / 50)
    assert longest == {
        "bulk": of_all, "shear": 15, "dimer": 5, "gamma_111": 5, "surface": 4, "slab": 2, "phonon": 6
    }  # fmt: skip
    assert {kinds[k] for k in split_by_group(groups)["train"]} == set(sizes)


def test_few_names_are_cut_into_runs_of_their_own_frames() -> None:
    groups = make_groups([["ice", "liquid"][k % 2] for k in range(200)])
    assert {g.split("#")[0] for g in groups} == {"ice", "liquid"}
    assert len(set(groups)) == 50
