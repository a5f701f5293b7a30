"""VASP's ML_AB, the training file of its machine-learned force fields: eV, eV/Å, kbar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.structures import decode, read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import LABELS, Raw
from mdpot.training.data.units import VASP, Units

UNITS = replace(VASP, source="of the format")
_RULER = re.compile(r"^\s*([*=-])\1{9,}\s*$")
_BEGIN = "configuration num."


def is_ml_ab(head: bytes) -> bool:
    """Whether a file starts as an ML_AB does: its version, then a line of asterisks."""
    lines = head.splitlines()
    return len(lines) > 1 and lines[0].strip().lower().endswith(b"version") and lines[1].startswith(b"*****")


def parse_ml_ab(path: Path, units: Units = UNITS) -> Raw:
    """What an ML_AB file holds. Its stress is positive under compression, as all of VASP's. Labels may be left out.

    Args:
        path: the file, plain or packed.
        units: of the file.

    Raises:
        MdpotError: no such file, truncated, or a configuration that lacks a part or has too few numbers.
    """
    lines = decode(read_bytes(path)).splitlines()
    starts = [n for n, line in enumerate(lines) if line.strip().lower().startswith(_BEGIN)]
    if not starts:
        raise MdpotError(f"{path}: an ML_AB file has parts that begin with 'Configuration num.'; this one has none.")
    bounds = zip(starts, [*starts[1:], len(lines)], strict=True)
    frames = [_frame(path, lines[start:end], start, index) for index, (start, end) in enumerate(bounds)]
    n_said = _said(lines[: starts[0]])
    if n_said is not None and len(frames) < n_said:
        raise MdpotError(f"{path}: truncated: it says it holds {n_said} configurations, and {len(frames)} are there.")
    energy, forces, stress = (
        kind if any(getattr(frame, kind) is not None for frame in frames) else None for kind in LABELS
    )
    return Raw(frames, Keys(energy, forces, stress), units)


def _said(lines: Sequence[str]) -> int | None:
    """The number of configurations in the head of the file; None where that says none."""
    for name, content in _sections(lines):
        if name == "the number of configurations" and content and content[0].isdecimal():
            return int(content[0])
    return None


def _sections(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Name, in lower case, and words of each part: a line, a ruler, and what stands before the next ruler of another
    kind."""
    for n, line in enumerate(lines[:-2]):
        if _RULER.match(line) or not _RULER.match(lines[n + 1]) or lines[n + 1].strip()[0] != "-":
            continue
        words: list[str] = []
        for content in lines[n + 2 :]:
            if _RULER.match(content):
                break
            words += content.split()
        yield " ".join(line.lower().split()), words


def _frame(path: Path, lines: Sequence[str], start: int, index: int) -> Frame:
    parts = {re.sub(r"\s*\(.*", "", name): words for name, words in _sections(lines)}
    where = f"{path}, configuration {index + 1} (line {start + 1})"
    kinds = _words(parts, "atom types and atom numbers", where)
    try:
        counts = [int(x) for x in kinds[1::2]]
        numbers = np.repeat([atomic_numbers[symbol] for symbol in kinds[::2]], counts)
        n = len(numbers)
        if (n_there := len(parts.get("atomic positions", [])) // 3) not in (0, n):
            raise MdpotError(_miscounted(where, kinds[::2], counts, n_there))
        cell = _array(parts, "primitive lattice vectors", 9, where).reshape(3, 3)
        positions = _array(parts, "atomic positions", 3 * n, where).reshape(n, 3)
        energy = float(_array(parts, "total energy", 1, where)[0]) if parts.get("total energy") else None
        forces = _array(parts, "forces", 3 * n, where).reshape(n, 3) if parts.get("forces") else None
        diagonal, off = parts.get("xx yy zz", []), parts.get("xy yz zx", [])
        stress = None
        if len(diagonal) == len(off) == 3:
            (xx, yy, zz), (xy, yz, zx) = (np.array(part, dtype=np.float64) for part in (diagonal, off))
            stress = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
    except (ValueError, KeyError) as error:
        if isinstance(error, MdpotError):
            raise
        raise MdpotError(f"{where}: it cannot be read ({error}).") from None
    return Frame(
        numbers=numbers.astype(np.int64),
        positions=positions,
        cell=cell,
        pbc=np.ones(3, dtype=bool),
        energy=energy,
        forces=forces,
        stress=stress,
        group=" ".join(parts.get("system name", [])),
        index=index,
    )


def _miscounted(where: str, symbols: Sequence[str], counts: Sequence[int], n_positions: int) -> str:
    """Counts of atoms that do not add up to the positions, and which one of them, changed, would."""
    said = ", ".join(f"{symbol} {count}" for symbol, count in zip(symbols, counts, strict=True))
    fits = [
        f"{symbol} {count + n_positions - sum(counts)}"
        for symbol, count in zip(symbols, counts, strict=True)
        if count + n_positions - sum(counts) > 0
    ]
    return (
        f"{where}: its 'Atom types and atom numbers' ({said}) add up to {sum(counts)} atoms, but it has {n_positions} "
        f"positions. One of these would fit: {', '.join(fits) or 'none'}. Mend the counts in the file."
    )


def _words(parts: dict[str, list[str]], name: str, where: str) -> list[str]:
    if not parts.get(name):
        raise MdpotError(f"{where}: it has no {name!r}. Is the file truncated?")
    return parts[name]


def _array(parts: dict[str, list[str]], name: str, size: int, where: str) -> np.ndarray:
    words = _words(parts, name, where)
    if len(words) != size:
        raise MdpotError(f"{where}: {name!r} must be {size} numbers; got {len(words)}. Is the file truncated?")
    return np.array(words, dtype=np.float64)
