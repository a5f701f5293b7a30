"""Splits by group: nothing parts, nothing is lost, the fractions hold."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data.frames import make_groups
from mdpot.training.data.splits import FRACTIONS, limit_frames, split_by_group


def _groups(kind: str) -> list[str]:
    rng = np.random.default_rng(1)
    sizes = {
        "equal": np.full(306, 20),
        "sample": rng.integers(3, 5, 306),
        "uneven": np.concatenate([[400], rng.integers(1, 60, 30)]),
        "few": np.full(10, 7),
    }[kind]
    return np.repeat([f"g{k}" for k in range(len(sizes))], sizes).tolist()


@pytest.mark.parametrize("kind", ["equal", "sample", "uneven", "few"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_groups_in_about_the_fractions(kind: str, seed: int) -> None:
    groups = np.array(_groups(kind))
    splits = split_by_group(groups.tolist(), seed=seed)
    assert list(splits) == ["train", "validation", "test"]
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(groups)))
    owners = [set(groups[indices]) for indices in splits.values()]
    assert sum(len(owner) for owner in owners) == len(set(groups))
    tolerance = {"equal": 20, "sample": 4, "uneven": 20, "few": 7}[kind]
    for indices, fraction in zip(splits.values(), FRACTIONS, strict=True):
        assert abs(len(indices) - fraction * len(groups)) <= tolerance
        assert np.array_equal(indices, np.sort(indices))


@pytest.mark.parametrize("seed", range(5))
def test_each_split_has_its_share_of_each_kind(seed: int) -> None:
    n_runs = {"bulk": 40, "surface": 10, "liquid": 25, "dimer": 13}
    groups = [f"{kind}#{run}" for kind, n in n_runs.items() for run in range(n) for _ in range(6)]
    for indices, fraction in zip(split_by_group(groups, seed=seed).values(), FRACTIONS, strict=True):
        found = Counter(groups[k].split("#")[0] for k in indices)
        assert all(abs(found[kind] / 6 - fraction * n) <= 1.5 for kind, n in n_runs.items())


@pytest.mark.parametrize(("n_common", "n_rare"), [(1000, 3), (1000, 12), (5000, 30), (5000, 60)])
def test_rare_kinds_are_for_training(n_common: int, n_rare: int) -> None:
    groups = make_groups([""] * (n_common + n_rare), ["common"] * n_common + ["rare"] * n_rare)
    for seed in range(50):
        splits = split_by_group(groups, seed=seed)
        assert (splits["train"] >= n_common).sum() >= 0.7 * n_rare
        for part, fraction in zip(splits.values(), FRACTIONS, strict=True):
            assert abs(len(part) - fraction * len(groups)) < 0.02 * len(groups)


def test_groups_of_one_kind_come_in_plain_random_order() -> None:
    """So splits of earlier versions are kept."""
    order = np.random.default_rng(3).permutation(100)
    for name in ("frame_{:02}", "#{:02}"):
        splits = split_by_group([name.format(k) for k in range(100)], seed=3)
        assert set(splits["validation"]) == set(order[:9])
        assert set(splits["test"]) == set(order[9:19])


def test_a_seed_gives_one_split() -> None:
    groups = _groups("sample")
    first, again, other = (split_by_group(groups, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["test"], other["test"])


def test_every_split_has_frames() -> None:
    for seed in range(20):
        splits = split_by_group(["a"] * 90 + ["b"] * 5 + ["c"] * 5, seed=seed)
        assert all(len(indices) for indices in splits.values())
    splits = split_by_group(["a", "b", "c", "d"], (0.5, 0.5, 0.0))
    assert [len(indices) for indices in splits.values()] == [2, 2, 0]
    splits = split_by_group(["a", "b", "c", "d"], (0.0, 0.0, 1.0))
    assert [len(indices) for indices in splits.values()] == [0, 0, 4]


def test_refusals() -> None:
    with pytest.raises(MdpotError, match=r"sum to 1; got \(0\.5, 0\.1, 0\.1\)"):
        split_by_group(["a", "b", "c"], (0.5, 0.1, 0.1))
    with pytest.raises(MdpotError, match="at least 3 groups of frames; got 2"):
        split_by_group(["a", "b", "a"])


def test_limits_are_nested_and_spread_over_groups() -> None:
    groups = _groups("equal")
    train = split_by_group(groups)["train"]
    few, more = (limit_frames(train, groups, n, seed=3) for n in (100, 600))
    assert set(few) < set(more) < set(train)
    assert len({groups[k] for k in few}) == 100
    counts = np.unique([groups[k] for k in more], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(limit_frames(train, groups, None), train)
    assert np.array_equal(limit_frames(train, groups, 10**6), train)
    with pytest.raises(MdpotError, match="n_frames must be positive"):
        limit_frames(train, groups, 0)
