"""What every reader gives: labeled structures in eV and Å, and a named set of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from string import ascii_lowercase

import numpy as np
from ase.data import chemical_symbols

from mdpot.electrons import NOTHING_SAID, Electrons
from mdpot.errors import MdpotError
from mdpot.training.data.targets import TARGETS

#: Frames without named groups are cut into about this many runs of consecutive frames.
N_CHUNKS = 50
#: Fewer named groups than this cannot be split into fractions; each is then cut into runs as well.
MIN_GROUPS = 10
#: Frames in a run of a rare kind, where a file without names would have longer ones.
SHORTEST_RUN = 5
#: A letter that stands alone in a name.
_LETTER = re.compile(r"(?<![^\W_])[A-Za-z](?![^\W_])")


@dataclass(slots=True)
class Frame:
    """One structure with its labels, each of which may be absent; see `mdpot.training.data.targets`.

    Attributes:
        numbers: [n_atoms] int64, atomic numbers.
        positions: [n_atoms, 3] float64, Å, wrapped or not.
        cell: [3, 3] float64, Å, lattice vectors as rows; zeros where there is none.
        pbc: [3] bool, periodic directions.
        energy: eV, None where it is not known.
        forces: [n_atoms, 3] float64, eV/Å, None where they are not known.
        stress: [3, 3] float64, eV/Å^3, tension positive, None where it is not known.
        group: the trajectory it comes from; frames of one group never part in a split.
        index: its place in its file or folder, from 0; messages name it by that.
        properties: further labels, a number each, by name, in the units of the data; no name of another label.
        file: of a folder, the file it is from, and its place there where that has several.
        electrons: what is stated of charge and spin, which force fields need to know.
        kind: what the file calls frames of its kind, such as a `config_type`; errors are told apart by it.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    group: str = ""
    index: int = 0
    properties: dict[str, float] = field(default_factory=dict)
    file: str = ""
    electrons: Electrons = NOTHING_SAID
    kind: str = ""

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"frame {self.index}" + (f" ({self.file})" if self.file else "")

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The labels that are there, by name, float64; shapes and units in `mdpot.training.data.targets`."""
        found = {name: getattr(self, name) for name in TARGETS} | self.properties
        return {name: np.asarray(value, np.float64) for name, value in found.items() if value is not None}


@dataclass
class Dataset:
    """A named set of frames.

    Attributes:
        name: of the source.
        frames: the frames, in the order of the file.
        labels: what computed the labels, as it is shown in reports.
        origin: where the frames were found.
        splits: the official split, frame indices by split name; None where there is none.
        tests: further sets, for testing only, by name.
        notice: one line that the user should see, e.g. why a download was given up; empty where all is well.
        caution: what whoever runs a potential that learned the labels should know; empty where there is nothing.
        isolated: energies, eV, of single atoms in vacuum by atomic number, where the source has them; they are the
            reference energies of their elements, and are not among the frames.
        notes: what the user should know of how the frames were read, a sentence each.
        folds: the test frames of each official fold, where the data have them; indices into the frames.
        property: the property that is predicted by default, and `unit` its unit; "" where there is none.
    """

    name: str
    frames: list[Frame]
    labels: str
    origin: str
    splits: dict[str, np.ndarray] | None = None
    tests: dict[str, Dataset] = field(default_factory=dict)
    notice: str = ""
    caution: str = ""
    isolated: dict[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    folds: tuple[np.ndarray, ...] = ()
    property: str = ""
    unit: str = ""

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the frames' content: atoms, cells, labels and groups, not of the file's bytes."""
        return fingerprint(self.frames)


def fingerprint(frames: Sequence[Frame]) -> str:
    """The sha256, as 64 hexadecimal digits, of all that the frames hold for a network, in their order."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame.numbers, np.int64).tobytes())
        for array in (frame.positions, frame.cell, frame.energy, frame.forces, frame.stress):
            absent = array is None
            digest.update(b"-" if absent else np.ascontiguousarray(array, np.float64).tobytes())
        for name, value in sorted(frame.properties.items()):
            digest.update(name.encode() + np.float64(value).tobytes())
        digest.update(np.ascontiguousarray(frame.pbc, bool).tobytes() + frame.group.encode() + b"\n")
    return digest.hexdigest()


def make_groups(names: Sequence[str], kinds: Sequence[str] = ()) -> list[str]:
    """Groups for frames in the order of a file, so that neighbors along a trajectory stay together.

    Names that tell at least `MIN_GROUPS` groups apart are taken as they are. Otherwise the frames of each name, and in
    any case those without one, are cut by their kinds into runs of consecutive frames, about `N_CHUNKS` in all, shorter
    ones of a rare kind. Only the ends of the runs have neighbors on the other side.

    Args:
        names: the group each frame names, "" where it names none.
        kinds: the kind of each frame, "" where it has none, which is no group; none by default.

    Returns:
        The group of each frame; what was cut has the number of the run behind a #.
    """
    whole = set(names) - {""}
    if len(whole) < MIN_GROUPS:
        whole = set()
    kinds = kinds or [""] * len(names)
    cut = [" ".join(filter(None, dict.fromkeys(pair))) for pair in zip(names, kinds, strict=True)]
    longest = max(1, round(len(cut) / N_CHUNKS))
    sizes = Counter(part for part, name in zip(cut, names, strict=True) if name not in whole)
    seen: Counter[str] = Counter()
    groups = []
    for part, name in zip(cut, names, strict=True):
        if name in whole:
            groups.append(name)
        else:
            groups.append(f"{part}#{seen[part] // min(longest, _run_length(sizes[part]))}")
            seen[part] += 1
    return groups


def _run_length(n_frames: int) -> int:
    """Of the runs of a kind: a twentieth of it, or `SHORTEST_RUN` frames if that is more, but at most a third of it."""
    return min(max(SHORTEST_RUN, -(-n_frames // 20)), -(-n_frames // 3))


def are_kinds(names: Collection[str]) -> bool:
    """Whether so many names are those of kinds of frames, such as surface and Ta-W, of which a potential has to learn
    all, and not those of trajectories, which count (md_01, md_02, or run_a, run_b) or are more."""
    names = set(names) - {""}
    letters = {letter.lower() for name in names for letter in _LETTER.findall(name)}
    counts = letters == set(ascii_lowercase[: len(letters)])  # B, C, N, and O are elements
    without = {re.sub(r"\b[0-9a-f]{6,}\b|\d+", "", _LETTER.sub("", name) if counts else name) for name in names}
    return MIN_GROUPS <= len(names) < N_CHUNKS and 4 * len(without) > len(names)


def first_of_repeats(frames: Sequence[Frame]) -> list[int]:
    """Of each frame the place of the first one with the same atoms, positions and cell: no split may have one of them
    in training and another in test."""
    first: dict[bytes, int] = {}
    places = []
    for place, frame in enumerate(frames):
        parts = (frame.numbers, frame.positions, frame.cell, frame.pbc)
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).digest()
        places.append(first.setdefault(digest, place))
    return places


def elements_of(frames: Iterable[Frame]) -> list[int]:
    """The atomic numbers in some frames, ascending."""
    return sorted(set().union(*(np.unique(frame.numbers).tolist() for frame in frames)))


def smallest_counts(counts: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """What tells compositions apart: how many atoms of each element there are, of periodic frames in the smallest cell.

    So a cell and its supercells have one composition, and molecules of one ratio, as C2H4 and C4H8, have two.

    Args:
        counts: [..., n_elements] integers, of the atoms of each element.
        periodic: [...] bool, whether the frame is, in any direction.
    """
    return counts // np.where(periodic, np.gcd.reduce(counts, axis=-1), 1)[..., None]


def require_elements(numbers: np.ndarray, at: str) -> None:
    """Refuses atomic numbers [n_atoms] that are none.

    Args:
        numbers: to be checked.
        at: the file and the frame, for the message.

    Raises:
        MdpotError: one is that of no element.
    """
    strange = numbers[(numbers < 1) | (numbers >= len(chemical_symbols))]
    if len(strange):
        raise MdpotError(f"{at}: atomic numbers go from 1 to {len(chemical_symbols) - 1}; got {strange[0]}.")
