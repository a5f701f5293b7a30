"""From what a reader finds in a file to frames that can be trained on: units, absent labels, isolated atoms."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame, first_of_repeats, make_groups, require_elements
from mdpot.training.data.label_keys import is_energy_per_atom, is_per_atom
from mdpot.training.data.labels import Keys
from mdpot.training.data.physics import MOST_BINDING, contradictions
from mdpot.training.data.targets import TARGETS
from mdpot.training.data.units import ASE, Units

LABELS = tuple(TARGETS)
#: What training needs of a frame by default.
ENERGY_AND_FORCES = frozenset({"energy", "forces"})
#: Single atoms whose images are farther away than this, Å, are as good as in vacuum.
VACUUM = 8.0
#: eV/Å; forces of this size beside others of exactly zero are those of atoms at rest, which none are by chance.
FELT = 0.05
#: A number that comes again, so many times the distance of the quartiles from them, may stand for an absent one.
FAR = 20
#: Numbers that stand for absent ones as a rule.
PLACEHOLDERS = (-999.0, -9999.0, -99999.0, 9999.0, 99999.0, 1e20)
ISOLATED_NAMES = ("isolatedatom", "isolated")


@dataclass
class Raw:
    """What a reader finds in a file, in the units of the file.

    Attributes:
        frames: every structure, with the labels under `keys`; the group of each is the name that the file gives it.
        keys: of the labels.
        units: that the format has or the file states.
        isolated: for each frame, whether the file calls it an isolated atom.
        ignored: keys that look like labels and are not.
        files: of a folder, which files were read.
        numbers: other keys under which structures have a number, with the least and the largest.
        texts: by property, what stands in place of a number where that is said to be something.
    """

    frames: list[Frame]
    keys: Keys
    units: Units = ASE
    isolated: Sequence[bool] = ()
    ignored: Sequence[str] = ()
    files: str = ""
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class Reading:
    """The frames of a file that can be used, and what became of the others.

    Attributes:
        frames: in eV and Å.
        keys: where their labels are in the file.
        units: of the file.
        isolated: energies, eV, of the isolated atoms by atomic number.
        n_frames: structures in the file.
        n_isolated, n_unlabeled: how many of them are isolated atoms, or lack a label that is needed.
        notes: what a user should know, a sentence each.
        ignored: keys that look like labels and are not.
        path: the file.
        refusal: why no frame can be used; empty where some can.
        splits: the official split, frame indices by split name; None where there is none.
        files: of a folder, which files were read.
        numbers: other keys under which structures have a number, with the least and the largest.
        texts: by property, what stands in place of a number where that is said to be something.
    """

    frames: list[Frame]
    keys: Keys
    units: Units
    isolated: dict[int, float] = field(default_factory=dict)
    n_frames: int = 0
    n_isolated: int = 0
    n_unlabeled: int = 0
    notes: list[str] = field(default_factory=list)
    ignored: Sequence[str] = ()
    path: Path = Path()
    refusal: str = ""
    splits: dict[str, np.ndarray] | None = None
    files: str = ""
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def described(self) -> str:
        """Files of a folder, keys and units in one line; a property is in the unit of its data."""
        of_labels = any(getattr(self.keys, kind) for kind in LABELS)
        return f"{self.files}; " * bool(self.files) + f"{self.keys}" + f"; in {self.units}" * of_labels

    def check(self, physics: bool = True) -> None:
        """Refuses what cannot be trained on.

        Args:
            physics: whether labels that contradict physics are refused as well.

        Raises:
            MdpotError: no frame has what is needed; labels contradict physics.
        """
        if self.refusal:
            raise MdpotError(self.refusal)
        if physics and (doubts := self.doubts()):
            raise MdpotError(
                f"{self.path}: {' Also: '.join(doubts)} If the file is right: --check off (in a recipe: data.check)."
            )

    def doubts(self) -> list[str]:
        """What contradicts physics, a sentence each."""
        names = {kind: key for kind in LABELS if (key := getattr(self.keys, kind)) is not None}
        found = contradictions(self.frames, names, self.units)
        if is_per_atom(energy := names.get("energy", "")) and any(doubt.startswith("energies") for doubt in found):
            found.append(f"{energy} is taken for energies per atom: if it holds those of whole frames, rename it.")
        far = _off_isolated(self.frames, self.isolated)
        if not found and abs(far) > MOST_BINDING:
            found.append(
                f"the energies of the frames lie {far:.4g} eV per atom from those of the isolated atoms: these are of "
                "another method, or wrong. Take them out of the file."
            )
        return found


def finish(raw: Raw, need: Collection[str] | None, path: Path) -> Reading:
    """Turns units into eV and Å, and parts frames from isolated atoms and from frames without labels.

    An isolated atom with a property that is needed is a frame like any other. Of several properties, frames keep those
    that are needed, if any is.

    Args:
        raw: of a reader.
        need: the labels that a frame must have; none for pretraining; None for any label at all.
        path: the file, for messages.

    Raises:
        MdpotError: atomic numbers that are none.
    """
    reading = Reading([], raw.keys, raw.units, n_frames=len(raw.frames), notes=[*raw.keys.notes], path=path)
    reading.ignored, reading.files, reading.numbers, reading.texts = raw.ignored, raw.files, raw.numbers, raw.texts
    called = raw.isolated or [False] * len(raw.frames)
    frames, alone = [], []
    for frame, name in zip(raw.frames, called, strict=True):
        require_elements(frame.numbers, f"{path}, {frame.place}")
        converted = convert(frame, raw.units)
        asked = frame.properties.keys() & set(need or ())
        (alone if _is_isolated(converted, name) and not asked else frames).append(converted)
    reading.n_isolated = len(alone)
    _drop_absent_labels(frames, reading)
    absent = [kind for kind in LABELS if frames and all(getattr(frame, kind) is None for frame in frames)]
    reading.keys = replace(raw.keys, **dict.fromkeys(absent))
    reading.isolated = _isolated_energies(alone, reading.notes)
    reading.frames = [frame for frame in frames if _has(frame, need)]
    reading.n_unlabeled = len(frames) - len(reading.frames)
    if wanted := set(need or ()) - set(LABELS):
        reading.keys = replace(reading.keys, properties=tuple(wanted))
        for frame in reading.frames:
            frame.properties = {name: value for name, value in frame.properties.items() if name in wanted}
    if not reading.frames:
        reading.refusal = _nothing_left(reading, frames, need)
        if frames and (wrong := contradictions(frames, {}, raw.units)):
            reading.refusal += f" Also: {' '.join(wrong)}"
        return reading
    _set_groups(reading.frames)
    reading.notes += [*_about_repeats(reading.frames), *_about_held(reading.frames), *_about_left_out(reading, need)]
    properties = set(need or ()) - set(LABELS)
    reading.notes += [*about_texts(reading, properties), *about_numbers(reading.frames, properties)]
    return reading


def official(frames: Sequence[Frame], splits: dict[str, np.ndarray] | None = None) -> Reading:
    """The frames of a source whose labels are known, in eV and Å, and its official split."""
    return Reading(list(frames), Keys("energies", "forces"), ASE, n_frames=len(frames), splits=splits)


def convert(frame: Frame, units: Units) -> Frame:
    """A frame in eV and Å."""
    if units.are_ours:
        return replace(frame)
    return replace(
        frame,
        positions=frame.positions * units.to_angstrom,
        cell=frame.cell * units.to_angstrom,
        energy=None if frame.energy is None else frame.energy * units.to_ev * (len(frame) if units.per_atom else 1),
        forces=None if frame.forces is None else frame.forces * units.to_ev_per_angstrom,
        stress=None if frame.stress is None else frame.stress * units.to_ev_per_cubic_angstrom,
    )


def is_called_isolated(name: object) -> bool:
    """Whether a `config_type` says that a frame is an isolated atom."""
    return str(name).lower().replace("_", "").replace("-", "").replace(" ", "") in ISOLATED_NAMES


def _is_isolated(frame: Frame, called: bool) -> bool:
    """Whether a frame is a single atom: called isolated, in no cell, or in one as large as a vacuum."""
    if len(frame) != 1:
        return False
    lattice = frame.cell[frame.pbc]
    return called or not len(lattice) or float(np.linalg.norm(lattice, axis=1).min()) > VACUUM


def _drop_absent_labels(frames: Sequence[Frame], reading: Reading) -> None:
    """Makes labels that are there in name only None: NaN throughout, zero in all frames, or zero in all of a frame."""
    for frame in frames:
        for kind in LABELS:
            value = getattr(frame, kind)
            if value is not None and bool(np.isnan(value).all()):
                setattr(frame, kind, None)
    for kind in LABELS:
        there = [frame for frame in frames if getattr(frame, kind) is not None]
        if there and not any(np.any(getattr(frame, kind)) for frame in there):
            for frame in there:
                setattr(frame, kind, None)
            reading.notes.append(f"{kind} ({getattr(reading.keys, kind)}): zero in all frames, so taken as absent.")
    n_empty = 0
    for frame in frames:
        if len(frame) > 1 and frame.energy == 0.0 and frame.forces is not None and not frame.forces.any():
            frame.energy = frame.forces = frame.stress = None
            n_empty += 1
    if n_empty:
        reading.notes.append(f"{n_empty} frames have an energy and forces of zero, and are taken as unlabeled.")


def _set_groups(frames: Sequence[Frame]) -> None:
    """Puts groups for splits in the place of the names that the file gives, which tell kinds where nothing else does.

    A bare number tells a trajectory from others, and is no name of a kind.
    """
    groups = make_groups([frame.group for frame in frames], [frame.kind for frame in frames])
    for frame, group in zip(frames, groups, strict=True):
        frame.kind = frame.kind or ("" if frame.group.isdigit() else frame.group)
        frame.group = group


def _about_repeats(frames: Sequence[Frame]) -> Iterator[str]:
    first = first_of_repeats(frames)
    if n_repeats := len(first) - len(set(first)):
        said = f"{n_repeats} of {len(first)} frames are repeats of others, atom for atom; a split keeps them together."
        if differ := _contradict(frames, first):
            said += f" They differ in {differ}: a network learns something between."
        yield said


def _contradict(frames: Sequence[Frame], first: Sequence[int]) -> str:
    """The properties in which repeats of a structure differ from the first of them."""
    differ: dict[str, None] = {}
    for frame, place in zip(frames, first, strict=True):
        for name, value in frame.properties.items():
            if not np.isclose(value, frames[place].properties.get(name, value), rtol=1e-3, atol=0.0):
                differ[name] = None
    return ", ".join(differ)


def _about_held(frames: Sequence[Frame]) -> Iterator[str]:
    """Whether some atoms have forces of exactly zero, as if held fixed, where that is the rule."""
    forces = [frame.forces for frame in frames if frame.forces is not None and len(frame) > 1]
    n = sum(not f.any(axis=1).all() and float(np.linalg.norm(f, axis=1).max()) > FELT for f in forces)
    if 2 * n > len(forces):
        yield (
            f"in {n} frames some atoms have forces of exactly zero and others do not: if these were held fixed and "
            "their forces set to zero, they are learned as true forces."
        )


def _isolated_energies(alone: Sequence[Frame], notes: list[str]) -> dict[int, float]:
    found: dict[int, float] = {}
    for frame in alone:
        if frame.energy is None or np.isnan(frame.energy):
            continue
        z = int(frame.numbers[0])
        if z in found and abs(found[z] - frame.energy) > 1e-3:
            notes.append(
                f"isolated {chemical_symbols[z]} has several energies, e.g. {found[z]:.4f} and {frame.energy:.4f} eV; "
                "the lowest is taken."
            )
        found[z] = min(found.get(z, np.inf), float(frame.energy))
    return found


def _off_isolated(frames: Sequence[Frame], isolated: Mapping[int, float]) -> float:
    """What binds an atom, eV, in the median over the frames of elements whose isolated atoms are known; 0 for none."""
    off = [
        (frame.energy - sum(isolated[int(z)] for z in frame.numbers)) / len(frame)
        for frame in frames
        if frame.energy is not None and {int(z) for z in frame.numbers} <= isolated.keys()
    ]
    return float(np.median(off)) if off else 0.0


def _has(frame: Frame, need: Collection[str] | None) -> bool:
    if need is None:
        return bool(frame.properties) or any(getattr(frame, kind) is not None for kind in LABELS)
    return all(kind in frame.properties or getattr(frame, kind, None) is not None for kind in need)


def _nothing_left(reading: Reading, frames: Sequence[Frame], need: Collection[str] | None) -> str:
    """Why no frame can be used: what was needed, what was looked for, what is there."""
    if not frames:
        return f"{reading.path}: it holds isolated atoms only ({reading.n_isolated}), which are not trained on."
    if asked := sorted(set(need or ()) - set(LABELS)):
        known = sorted({name for frame in frames for name in frame.properties} | reading.numbers.keys())
        held = f"there are numbers under {', '.join(known)}" if known else "no structure has a number of its own"
        said = "".join(f" {text}" for text in about_texts(reading, asked))
        return (
            f"{reading.path}: no frame has the property {asked[0]!r}, a number, which text, True, and False are not; "
            f"{held}. Name another: --set data.property_key=KEY.{said}"
        )
    missing = [kind for kind in LABELS if need is None or kind in need]
    missing = [kind for kind in missing if all(getattr(frame, kind) is None for frame in frames)] or list(missing)
    seen = [*reading.keys.others, *reading.ignored]
    there = f" Keys there that might be labels: {', '.join(seen)}." if seen else ""
    notes = "".join(f" {note[0].upper()}{note[1:]}" for note in reading.notes)
    remedies = []
    divided = [key for key in seen if "energy" in missing and is_energy_per_atom(key)]
    if divided:
        remedies.append(f"--energy-key {divided[0]} takes it for energies per atom")
    if missing == ["forces"]:
        remedies.append("energies alone are trained on with --set finetune.force_weight=0")
    if missing == ["energy"]:
        remedies.append("forces alone with --set finetune.energy_weight=0 --set finetune.second_energy_weight=none")
    if need is not None:
        remedies.append("pretraining alone needs no labels (mdpot pretrain)")
    looked = "energy, forces, stress or virial, alone or with a family's name as in REF_energy and forces_xtb"
    said = f"no {', no '.join(missing)} in any of its {len(frames)} frames (looked for {looked})."
    others = "; ".join(["Other keys: --energy-key, --forces-key, --stress-key", *remedies])
    return f"{reading.path}: {said}{there}{notes} {others}."


def about_texts(reading: Reading, names: Collection[str]) -> Iterator[str]:
    """What is no number under the names of properties."""
    for name in names:
        if said := reading.texts.get(name, ()):
            yield (
                f"{name} is not a number in {len(said)} of {reading.n_frames} frames, e.g. {said[0][:60]!r}: write "
                "bare numbers, without units and errors, and 1 and 0 for yes and no."
            )


def about_numbers(frames: Sequence[Frame], names: Collection[str]) -> Iterator[str]:
    """Properties that are the same in all frames, and numbers that seem to stand for absent ones: those of
    `PLACEHOLDERS` that do not lie among the others, and those that come again far from the others."""
    for name in names:
        values = np.array([frame.properties[name] for frame in frames if name in frame.properties])
        known, counts = np.unique(values, return_counts=True)
        if len(known) == 1 < len(values):
            yield f"{name} is {known[0]:g} in all frames: there is nothing to learn."
        others = values[~np.isin(values, PLACEHOLDERS)]
        if not len(others):
            continue
        low, high = np.quantile(others, [0.25, 0.75])
        far = (np.maximum(low - known, known - high) > FAR * (high - low)) & (high > low) & (counts > 1)
        outside = np.isin(known, PLACEHOLDERS) & ((known < others.min()) | (known > others.max()))
        for value, count in zip(known[far | outside], counts[far | outside], strict=True):
            yield (
                f"{name} is {value:g} in {count} of {len(values)} frames, and about {low:.4g} to {high:.4g} in others: "
                "if it says that there is no number, leave the field empty."
            )


def _about_left_out(reading: Reading, need: Collection[str] | None) -> Iterator[str]:
    if reading.n_isolated:
        energies = ", ".join(f"{chemical_symbols[z]} {e:.6g}" for z, e in sorted(reading.isolated.items()))
        yield f"{reading.n_isolated} isolated atoms are not trained on" + (
            f"; their energies are the reference energies of their elements: {energies} eV." if energies else "."
        )
    if reading.n_unlabeled:
        needed = LABELS[:2] if need is None else need
        yield left_out(reading.n_unlabeled, reading.n_frames, needed, reading.keys)


def left_out(n: int, n_frames: int, need: Collection[str], keys: Keys) -> str:
    """The note on frames that lack one of some labels, of those that the file has under its keys."""
    names = {kind: getattr(keys, kind, None) or kind for kind in sorted(need)}
    others = f" Labels that were not taken: {', '.join(keys.others)}." if keys.others else ""
    return f"{n} of {n_frames} frames are left out, for they have no {' or no '.join(names.values())}.{others}"
