"""Folders of calculations: one output a directory, or several, all of one kind, in natural order."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.packed import has_ending
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Asked, Keys
from mdpot.training.data.readers.ase_io import label_outputs
from mdpot.training.data.readers.outputs import Outputs, read_outputs
from mdpot.training.data.readers.search import Found, Output, came_to_its_end, choose, reason_of, search
from mdpot.training.data.readers.settings import settings_notes
from mdpot.training.data.reading import LABELS, Raw
from mdpot.training.data.units import QUANTITIES, Units

#: Files and folders named in a note.
NAMED = 5
#: Names of the parts of data that are split already.
_PART = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])", re.I)
#: Those that `label_outputs` does not read.
_OWN = ("ML_AB", "RuNNer", "MTP", "npz", "HDF5")


def parse_folder(path: Path, asked: Asked, want_labels: bool, parse: Callable[[Path], Raw]) -> Raw:
    """The frames of all outputs in a folder and the folders in it, in natural order: calc_2 before calc_10.

    All are of one kind, but for VASP's, of which each calculation may have an OUTCAR, a vasprun.xml, or both; the
    latter is taken then. Hidden files are passed over, links are followed, and a file is read once. What cannot be read
    is left out and named in the notes. Where no labels are wanted, and there are neither outputs nor a table, CIFs are
    read.

    A calculation with several frames is a group of its own, with the names that its file gives in it. Of calculations
    with a frame each, in one folder or in folders side by side (step_1/scf and step_2/scf, too), nothing says that they
    are not of one trajectory; they are a group together, which `make_groups` cuts into runs where there are few.

    Args:
        path: a folder, or a pattern of files or folders.
        asked: what the user says of the labels.
        want_labels: whether there are to be any.
        parse: reads one file of a format of its own.

    Raises:
        MdpotError: no outputs, outputs of several kinds, of which nothing says that their energies go together, or in
            several units; none that can be read; labels as of `label_outputs`.
    """
    found = search(path)
    if not (want_labels or found.outputs or any(has_ending(file, ".csv") for file in path.glob("*"))):
        found.outputs, found.n_others = found.cifs, found.n_others - len(found.cifs)
    chosen, twins = choose(path, found)
    parts: list[tuple[Output, Outputs | Raw]] = []
    for candidates in chosen:
        for output in candidates:
            try:
                parts.append((output, parse(output.path) if output.kind in _OWN else read_outputs(output.path)))
                break
            except (MdpotError, OSError, ValueError) as error:
                found.failed[output.name] = reason_of(output.path, error)
    if not parts:
        name, reason = next(iter(found.failed.items()))
        raise MdpotError(f"{path}: of its {len(chosen)} outputs none can be read. The first, {name}: {reason}")
    outputs = [output for output, _ in parts]
    raw = _together(path, outputs, [part for _, part in parts], asked, want_labels)
    raw.files = _description(outputs, twins, found)
    raw.keys = replace(raw.keys, notes=(*raw.keys.notes, *_notes(outputs, raw, found, want_labels)))
    return raw


def _together(
    path: Path, outputs: Sequence[Output], parts: Sequence[Outputs | Raw], asked: Asked, want_labels: bool
) -> Raw:
    """The frames of all parts, with their groups and places.

    Raises:
        MdpotError: parts in several units, or with labels under several keys.
    """
    said = {
        output.name: part.notes if isinstance(part, Outputs) else part.keys.notes
        for output, part in zip(outputs, parts, strict=True)
    }
    notes = _gathered(said) if len(parts) > 1 else list(next(iter(said.values())))
    if isinstance(parts[0], Outputs):
        read = [part for part in parts if isinstance(part, Outputs)]
        sizes = [len(part.structures) for part in read]
        _require_same(path, outputs, [(part.units, part.units_of) for part in read])
        merged = Outputs([a for part in read for a in part.structures], read[0].units, read[0].units_of, notes)
        raw = label_outputs(path, merged, asked, want_labels)
    else:
        raws = [part for part in parts if isinstance(part, Raw)]
        sizes = [len(part.frames) for part in raws]
        _require_same(path, outputs, [(part.units, {}) for part in raws])
        raw = _joined(path, outputs, raws, notes)
    _place(raw.frames, outputs, sizes)
    return raw


def _require_same(path: Path, outputs: Sequence[Output], units: Sequence[tuple[Units, Mapping[str, str]]]) -> None:
    """Refuses files in several units: those of all labels, and those of single keys."""
    first, first_of = units[0]
    for output, (there, there_of) in zip(outputs, units, strict=True):
        if there.conversions != first.conversions or there_of != first_of:
            one, other = (
                ", ".join(
                    [*(getattr(of_all, name) for name in QUANTITIES), *(f"{key} in {u}" for key, u in of.items())]
                )
                for of_all, of in (units[0], (there, there_of))
            )
            raise MdpotError(
                f"{path}: {outputs[0].name} is in {one}, and {output.name} in {other}. Give each kind for itself, or "
                "write all in one unit."
            )


def _joined(path: Path, outputs: Sequence[Output], raws: Sequence[Raw], notes: Sequence[str]) -> Raw:
    """The frames of files in a format of their own, whose keys must not differ."""
    keys: dict[str, str | None] = {}
    others = tuple(dict.fromkeys(key for raw in raws for key in raw.keys.others))
    for kind in LABELS:
        names = {name: output for output, raw in zip(outputs, raws, strict=True) if (name := getattr(raw.keys, kind))}
        if len(names) > 1:
            one, other = list(names.items())[:2]
            raise MdpotError(
                f"{path}: {kind} is called {one[0]} in {one[1].name}, and {other[0]} in {other[1].name}. Give the "
                "files of one kind."
            )
        keys[kind] = next(iter(names), None)
    return Raw(
        [frame for raw in raws for frame in raw.frames],
        Keys(keys["energy"], keys["forces"], keys["stress"], others, tuple(notes)),
        raws[0].units,
        isolated=[called for raw in raws for called in (raw.isolated or [False] * len(raw.frames))],
        ignored=list(dict.fromkeys(key for raw in raws for key in raw.ignored)),
    )


def _place(frames: Sequence[Frame], outputs: Sequence[Output], sizes: Sequence[int]) -> None:
    """Gives frames their place, file and group."""
    groups = _groups(outputs, sizes)
    several = len({*groups}) > 1
    at = 0
    for output, group, size in zip(outputs, groups, sizes, strict=True):
        for k in range(size):
            frame = frames[at]
            where = group or ("." if several else "")
            frame.group = ": ".join(part for part in (where, frame.group) if part) if len(outputs) > 1 else frame.group
            frame.file = output.name if size == 1 else f"{output.name}, frame {k}"
            frame.index, at = at, at + 1


def _groups(outputs: Sequence[Output], sizes: Sequence[int]) -> list[str]:
    """The group of each output: a trajectory is its own; single frames are a series with those in their folder.

    A single frame that is alone in its folder stands in a row with those in the folders beside it, or in the folders
    beside one farther up.
    """
    rows = [output.calculation[0] if size == 1 else "" for output, size in zip(outputs, sizes, strict=True)]
    single = [n for n, size in enumerate(sizes) if size == 1]
    while True:
        members = Counter(rows[n] for n in single)
        alone = [n for n in single if rows[n] and members[rows[n]] == 1]
        if not alone:
            break
        for n in alone:
            rows[n] = os.path.dirname(rows[n])
    return [row if size == 1 else output.name for row, output, size in zip(rows, outputs, sizes, strict=True)]


def _description(outputs: Sequence[Output], twins: Mapping[str, int], found: Found) -> str:
    """What was read, and what was not, for a line."""
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in Counter(output.kind for output in outputs).items())
    said = f"{kinds}: {outputs[0].name}" + (f" to {outputs[-1].name}" if len(outputs) > 1 else "")
    others = [f"{n:,} {kind}" for kind, n in twins.items()]
    n_others = found.n_others + len(found.refused)
    others += [f"{n_others:,} other file{'s' * (n_others > 1)}"] if n_others else []
    return said + (f"; not read: {', '.join(others)}" if others else "")


def _notes(outputs: Sequence[Output], raw: Raw, found: Found, want_labels: bool) -> Iterator[str]:
    """What was left out of a folder, by name."""
    if found.failed:
        files = [f"{name} ({reason.rstrip('.')})" for name, reason in found.failed.items()]
        yield f"{len(files)} files cannot be read and are left out: {listed(files)}."
    if found.empty:
        yield f"{len(found.empty)} folders beside those that were read have no output: {listed(found.empty)}."
    read = {os.path.dirname(output.name) for output in outputs}
    alone = [f"{name} ({reason})" for name, reason in found.refused.items() if os.path.dirname(name) not in read]
    if alone:
        yield f"{len(alone)} files are of formats that are not read: {listed(alone)}"
    broken = [output.name for output in outputs if not came_to_its_end(output)]
    if broken:
        yield (
            f"{len(broken)} of {len(outputs)} calculations did not come to their end: {listed(broken)}. What they "
            "completed is read."
        )
    parts = {match[1][:3].lower(): output.name for output in outputs if (match := _PART.search(output.name))}
    if len(parts) > 1:
        yield (
            f"{', '.join(parts.values())} are read together and split anew, which may train on what was meant for "
            "tests: to keep them apart, give the file to train on, and the others to mdpot evaluate."
        )
    if want_labels:
        yield from settings_notes(outputs)
        labeled = {frame.file.split(", frame ")[0] for frame in raw.frames if frame.labels}
        bare = [output.name for output in outputs if output.name not in labeled]
        if bare and labeled:
            yield f"{len(bare)} of {len(outputs)} outputs have no labels: {listed(bare)}."


def listed(names: Sequence[str]) -> str:
    """The first names of many, and how many there are besides."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", and {more:,} more" if more > 0 else "")


def _gathered(said: Mapping[str, Sequence[str]]) -> list[str]:
    """The notes on many files, those that differ in numbers alone once."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, notes in said.items():
        for note in notes:
            alike.setdefault(re.sub(r"\d+", "0", note), []).append((name, note))
    return [
        f"{found[0][0]}" + (f" and {len(found) - 1:,} others" if len(found) > 1 else "") + f": {found[0][1]}"
        for found in alike.values()
    ]
