"""Splits by group: frames of one trajectory never part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mdpot.errors import MdpotError

SPLIT_NAMES = ("train", "validation", "test")
#: The share of frames in each of `SPLIT_NAMES` (the masked-pretraining paper, section Datasets).
FRACTIONS = (0.81, 0.09, 0.10)
#: A kind of frames gives validation and test at most so many times their fraction: rare ones are for training.
MOST_TESTED = 1.5


def split_by_group(
    groups: Sequence[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Divides frames among train, validation and test, whole groups at a time.

    The groups come in random order, those of each kind spread evenly. Validation and test each take a group where it
    brings their number of frames nearer to their fraction; train has the rest. So the numbers of frames follow the
    fractions to about half of the smallest group, however unequal the groups are. Of several kinds, none gives the two
    more than `MOST_TESTED` times their fraction of it.

    Args:
        groups: the group of each frame; a kind, whose frames were cut into runs, is what stands before the last #.
        fractions: of train, validation and test; they sum to 1. A split of fraction 0 stays empty.
        seed: of the order of the groups.

    Returns:
        The sorted frame indices [n_frames of that split] int64 of each of `SPLIT_NAMES`.

    Raises:
        MdpotError: fractions that are no fractions, or fewer groups than splits.
    """
    wanted = np.asarray(fractions, dtype=np.float64)
    if wanted.shape != (3,) or (wanted < 0).any() or abs(wanted.sum() - 1) > 1e-6:
        raise MdpotError(f"fractions must be three numbers that are not negative and sum to 1; got {fractions}.")
    names, member, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    n_splits = int((wanted > 0).sum())
    if len(names) < n_splits:
        raise MdpotError(
            f"{n_splits} splits need at least {n_splits} groups of frames; got {len(names)} "
            f"(of {len(groups)} frames). Give more frames, or name their trajectories in info['group']."
        )
    kinds = [name.rpartition("#")[0] for name in names]
    order = _random_order(kinds, np.random.default_rng(seed))
    left = dict.fromkeys(kinds, np.inf)  # frames that a kind may give
    if len(left) > 1:
        of_kind = Counter(np.repeat(kinds, sizes).tolist())
        left = {kind: MOST_TESTED * (wanted[1] + wanted[2]) * n for kind, n in of_kind.items()}
    owner = np.zeros(len(names), dtype=np.int64)
    for split in (1, 2):
        n_taken, target = 0, wanted[split] * len(groups)
        # One group must stay for each split that still has none.
        n_reserved = int((wanted[split + 1 :] > 0).sum()) + int(wanted[0] > 0)
        for group in list(order):
            nearer = abs(n_taken + sizes[group] - target) < abs(n_taken - target)
            if nearer and len(order) > n_reserved and sizes[group] <= left[kinds[group]]:
                owner[group] = split
                n_taken += sizes[group]
                left[kinds[group]] -= sizes[group]
                order.remove(group)
        if n_taken == 0 and target > 0:
            smallest = min(order, key=lambda group: sizes[group])
            owner[smallest] = split
            order.remove(smallest)
    if wanted[0] == 0:
        owner[order] = int(wanted.argmax())
    return {name: np.flatnonzero(owner[member] == k) for k, name in enumerate(SPLIT_NAMES)}


def _random_order(kinds: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Groups of these kinds in random order, but so that any stretch of it holds of each kind its share."""
    order: list[int] = rng.permutation(len(kinds)).tolist()
    sizes = Counter(kinds)
    begin = {kind: rng.uniform() for kind in sizes}
    rank: Counter[str] = Counter()
    places = {}
    for group in order:
        kind = kinds[group]
        places[group] = (rank[kind] + begin[kind]) / sizes[kind]
        rank[kind] += 1
    return sorted(order, key=places.__getitem__)


def limit_frames(indices: np.ndarray, groups: Sequence[str], n_frames: int | None, seed: int = 0) -> np.ndarray:
    """Some of the frames, spread evenly over their groups; a smaller choice of one seed lies inside a larger
    one.

    Args:
        indices: [n] frames to choose from.
        groups: the group of each frame of the data set (not only of the chosen ones).
        n_frames: how many to keep; None keeps all.
        seed: of the choice.

    Returns:
        The sorted indices [min(n, n_frames)] int64 of the kept frames.

    Raises:
        MdpotError: n_frames is not positive.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if n_frames is None or n_frames >= len(indices):
        return np.sort(indices)
    if n_frames < 1:
        raise MdpotError(f"n_frames must be positive; got {n_frames}.")
    shuffled = np.random.default_rng(seed).permutation(np.sort(indices))
    turn: dict[str, int] = {}
    rounds = np.empty(len(shuffled), dtype=np.int64)
    for position, group in enumerate(groups[int(index)] for index in shuffled):
        rounds[position] = turn[group] = turn.get(group, -1) + 1
    return np.sort(shuffled[np.argsort(rounds, kind="stable")[:n_frames]])
