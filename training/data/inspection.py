"""What the program understands of a file, before an hour of training is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mdpot.electrons import NOTHING_SAID
from mdpot.errors import MdpotError
from mdpot.neighbors import neighbor_list, pair_vectors
from mdpot.training.data.checks import LARGEST, validate_frames
from mdpot.training.data.frames import Frame, elements_of
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import parse_file
from mdpot.training.data.readers.pyg import Unopened
from mdpot.training.data.reading import ENERGY_AND_FORCES, LABELS, Reading, about_numbers, about_texts, finish, left_out
from mdpot.training.data.reference import fit_reference, wild_frames

#: Distances are looked for out to this many sums of covalent radii, in at most so many frames.
REACH, MOST_FRAMES = 1.6, 5000
#: More than this share of the frames are no outliers.
MOST_ODD = 0.05
#: Å; more than this between neighboring planes of atoms is a vacuum.
GAP = 7.0
#: So many frames say nothing of which of them is odd.
FEW = 10
#: Odd frames named in a warning, the oddest first.
NAMED = 8


def inspect_file(path: Path | str, asked: Asked) -> dict[str, Any]:
    """What a file holds, how it is understood, what looks wrong in it, and what to do.

    Args:
        path: the file or folder, or a data set of PyG.
        asked: what the user says of its labels.

    Returns:
        files: of a folder, which were read; frames: structures in the file; labeled: those with energy and forces (with
        one of them, where no frame has both, with a property, where none has either), isolated atoms aside; unlabeled:
        the rest of them; stressed: labeled ones with a stress; n_atoms: smallest and largest; elements: symbols;
        periodic: frames by periodic directions; charges: frames by the charge that they state, where any does;
        energy_key, forces_key, stress_key, and other_keys that were seen; properties: the range of each, in the unit of
        the file; numbers: those of other keys that may be properties; units; isolated_atoms {symbol: eV};
        energy_per_atom, force, volume_per_atom: ranges in eV, eV/Å and Å^3; vacuum: frames with a gap along a periodic
        direction; distances: the smallest in Å by pair; outliers: frames by what is odd in them; first: energy (eV),
        forces_rms (eV/Å) and stress (eV/Å^3, tension positive) of the first labeled frame with finite labels;
        warnings: sentences.

    Raises:
        MdpotError: a file that cannot be read at all.
    """
    path = Path(path)
    warnings: list[str] = []
    try:
        raw = parse_file(path, asked, True)
    except Unopened:
        raise
    except MdpotError as error:
        # The structures are worth a look even where nothing says which labels are meant.
        raw = parse_file(path, Asked(units=asked.units), False)
        warnings.append(str(error))
    reading = finish(raw, (), path)
    labeled, need = _labeled(reading)
    warnings += _faults(reading, path, asked)
    if not labeled and reading.keys.properties:
        labeled = [frame for frame in reading.frames if frame.properties]
        warnings += about_texts(reading, reading.keys.properties)
        warnings += about_numbers(reading.frames, reading.keys.properties)
    elif not labeled and reading.texts:
        warnings += about_texts(reading, reading.texts)
    elif not labeled and not warnings:
        warnings.append(finish(raw, ENERGY_AND_FORCES, path).refusal)
    elif not labeled:
        warnings.append("no frame has labels.")
    elif len(labeled) < len(reading.frames):
        warnings.append(left_out(len(reading.frames) - len(labeled), reading.n_frames, need, reading.keys))
    if labeled and need == {"energy"}:
        warnings.append("no forces: energies alone are trained on with --set finetune.force_weight=0.")
    if labeled and need == {"forces"}:
        warnings.append(
            "no energies: forces alone are trained on with --set finetune.energy_weight=0 "
            "--set finetune.second_energy_weight=none."
        )
    warnings += _about_electrons(labeled, asked)
    warnings += [note for note in reading.notes if "isolated atoms" not in note]
    outliers = _outliers([frame for frame in labeled if _is_finite(frame)])
    files = {frame.index: f" ({frame.file})" for frame in labeled if frame.file}
    for what, places in outliers.items():
        rest = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
        named = ", ".join(f"{n}{files.get(n, '')}" for n in places[:NAMED])
        warnings.append(f"{what}: frame {named}{rest}.")
    return _summary(reading, labeled, outliers, warnings)


def _labeled(reading: Reading) -> tuple[list[Frame], set[str]]:
    """The frames that training takes, and the labels it needs of them."""
    for need in ({"energy", "forces"}, {"energy"}, {"forces"}):
        found = [f for f in reading.frames if all(getattr(f, label) is not None for label in need)]
        if found:
            return found, need
    return [], set()


def _faults(reading: Reading, path: Path, asked: Asked) -> list[str]:
    """Why training would refuse the frames."""
    try:
        validate_frames(reading.frames, str(path), ())
    except MdpotError as error:
        return [str(error)]
    return reading.doubts() if asked.check else []


def _is_finite(frame: Frame) -> bool:
    labels = [getattr(frame, kind) for kind in LABELS]
    return all(value is None or bool((np.abs(value) < LARGEST).all()) for value in labels)


def _outliers(frames: Sequence[Frame]) -> dict[str, list[int]]:
    """Places in the file of frames that are far from the others, by what is; the oddest first."""
    found: dict[str, list[int]] = {}
    if sum(frame.energy is not None for frame in frames) > FEW:
        wild = wild_frames(frames, *fit_reference(frames))
        found["energies far from those of the other frames"] = [frame.index for frame, _ in wild]
    largest = {frame.index: float(np.abs(frame.forces).max()) for frame in frames if frame.forces is not None}
    if len(largest) > FEW:
        limit = max(20 * float(np.median([*largest.values()])), 30.0)
        found["forces far larger than in the other frames"] = [
            n for n, size in sorted(largest.items(), key=lambda item: -item[1]) if size > limit
        ]
    return {what: places for what, places in found.items() if 0 < len(places) <= max(MOST_ODD * len(frames), 3)}


def _summary(
    reading: Reading,
    labeled: Sequence[Frame],
    outliers: dict[str, list[int]],
    warnings: Sequence[str],
) -> dict[str, Any]:
    keys, frames = reading.keys, reading.frames
    sizes = [len(frame) for frame in frames] or [0]
    numbers = sorted({*elements_of(frames), *reading.isolated})
    directions: dict[str, int] = {}
    for frame in frames:
        name = "".join(axis if periodic else "-" for axis, periodic in zip("abc", frame.pbc, strict=True))
        directions[name] = directions.get(name, 0) + 1
    sound = [frame for frame in labeled if _is_finite(frame)]
    first = sound[0] if sound else None
    return {
        "file": str(reading.path),
        "files": reading.files,
        "frames": reading.n_frames,
        "labeled": len(labeled),
        "unlabeled": reading.n_frames - reading.n_isolated - len(labeled),
        "stressed": sum(frame.stress is not None for frame in labeled),
        "n_atoms": [min(sizes), max(sizes)],
        "elements": [chemical_symbols[z] for z in numbers],
        "periodic": directions,
        "charges": _charges(frames),
        **{f"{kind}_key": getattr(keys, kind) for kind in LABELS},
        "other_keys": [*keys.others, *reading.ignored],
        "properties": {
            name: _range([f.properties[name] for f in frames if name in f.properties]) for name in keys.properties
        },
        "numbers": {name: list(limits) for name, limits in reading.numbers.items()},
        "units": reading.units.as_dict(),
        "isolated_atoms": {chemical_symbols[z]: energy for z, energy in sorted(reading.isolated.items())},
        "energy_per_atom": _range([f.energy / len(f) for f in sound if f.energy is not None]),
        "force": _range([float(np.abs(f.forces).max()) for f in sound if f.forces is not None]),
        "volume_per_atom": _range([abs(np.linalg.det(f.cell)) / len(f) for f in frames if f.pbc.all()]),
        "vacuum": _vacuum(frames),
        "distances": _smallest_distances(frames),
        "outliers": outliers,
        "first": {
            "energy": None if first is None else first.energy,
            "forces_rms": None
            if first is None or first.forces is None
            else float(np.sqrt(np.square(first.forces).mean())),
            "stress": None if first is None or first.stress is None else first.stress.tolist(),
        },
        "warnings": list(warnings),
    }


def _about_electrons(frames: Sequence[Frame], asked: Asked) -> list[str]:
    """What GFN2-xTB would refuse: of periodic frames, which may be metals, only what they state themselves."""
    refused: list[str] = []
    for frame in frames:
        if not frame.pbc.any() or frame.electrons != NOTHING_SAID:
            try:
                asked.electrons(frame).settled(frame.numbers)
            except MdpotError as error:
                refused.append(str(error))
    return [f"presets xtb and delta refuse {len(refused):,} frames. {refused[0]}"] if refused else []


def _charges(frames: Sequence[Frame]) -> dict[str, int]:
    """How many frames state which charge; empty where none does."""
    stated = [frame.electrons.charge for frame in frames]
    names = ["not stated" if charge is None else f"{charge:+d}" if charge else "0" for charge in stated]
    return {name: names.count(name) for name in sorted(set(names))} if any(c is not None for c in stated) else {}


def _range(values: Sequence[float]) -> list[float] | None:
    return [float(min(values)), float(max(values))] if values else None


def _vacuum(frames: Sequence[Frame]) -> dict[str, int]:
    """How many frames have a gap wider than `GAP` along each of their periodic directions."""
    found: dict[str, int] = {}
    for frame in frames:
        if not frame.pbc.all() or abs(np.linalg.det(frame.cell)) < 1e-6:
            continue
        inverse = np.linalg.inv(frame.cell)
        places = np.sort(frame.positions @ inverse % 1.0, axis=0)
        gaps = np.max(np.diff(places, axis=0, append=places[:1] + 1.0), axis=0)
        for axis in np.flatnonzero(gaps / np.linalg.norm(inverse, axis=0) > GAP):
            found["abc"[axis]] = found.get("abc"[axis], 0) + 1
    return found


def _smallest_distances(frames: Sequence[Frame]) -> dict[str, float]:
    """The smallest distance, Å, of each pair of elements that come near each other, in evenly spread frames."""
    smallest: dict[tuple[int, int], float] = {}
    step = max(1, -(-len(frames) // MOST_FRAMES))
    for frame in frames[::step]:
        try:
            pairs, shifts = neighbor_list(
                frame.positions, frame.cell, frame.pbc, REACH * 2 * float(covalent_radii[frame.numbers].max())
            )
        except MdpotError:
            continue
        vectors = pair_vectors(frame.positions, frame.cell, pairs, shifts)
        lengths = np.linalg.norm(vectors, axis=1)
        kinds = np.sort(frame.numbers[pairs], axis=0)
        near = lengths < REACH * covalent_radii[kinds].sum(0)
        order = np.argsort(lengths[near], kind="stable")
        names, at = np.unique(kinds[:, near][:, order], axis=1, return_index=True)
        for (a, b), length in zip(names.T.tolist(), lengths[near][order][at], strict=True):
            smallest[a, b] = min(smallest.get((a, b), np.inf), float(length))
    return {f"{chemical_symbols[a]}-{chemical_symbols[b]}": round(d, 4) for (a, b), d in sorted(smallest.items())}
