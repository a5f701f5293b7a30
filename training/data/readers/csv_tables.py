"""CSV tables of structures with properties: names of their files, as in CGCNN's `id_prop.csv`, or CIFs in a column."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.packed import unpacked_name
from mdpot.structures import decode, parse_cif, read_bytes, read_structures
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.tables import TARGET, Texts, number, numbers_in, of_properties
from mdpot.training.data.reading import Raw

#: The table in a folder of structures, as CGCNN and ALIGNN have it.
ID_PROP = "id_prop.csv"
#: A number with a comma, decimal or of thousands; several with other distances make a list.
_COMMA = re.compile(r"[-+]?(?:\d*,\d+(?:[eE][-+]?\d+)?|\d{1,3}(?:[.,]\d{3})+(?:[.,]\d+)?)")
#: How files of structures end that a row may name without the ending; where several are there, the first is taken.
ENDINGS = (".cif", ".vasp", ".poscar", ".extxyz", ".xyz", ".xsf", ".json")


def table_in(path: Path) -> Path:
    """The table in a folder of structures, or the path itself where it is no such folder."""
    table = path / ID_PROP
    return table if path.is_dir() and table.is_file() else path


def parse_csv(path: Path) -> Raw:
    """The structures of a CSV table, each with the numbers of its row as properties.

    One column, found by its content, has the structures: CIFs as text, or names of files, of one structure each in any
    format that ASE reads. Names are relative to the table; one without its ending may also be that of a file in a
    folder beside the table. The others are properties where they hold numbers; an empty field is an absent one. A
    table without titles, as CGCNN's, has the properties "y", or "y0", "y1", ...

    Raises:
        MdpotError: no column of structures, a file that is not there, or one of several structures; a row that is
            longer than the first; a number with a comma.
    """
    rows = _rows(path)
    files = _Files(path.parent)
    first = rows[0] if rows else []
    # pandas may name columns by numbers, but the one in which it counts the rows not at all.
    counted = first[:1] == [""]
    titled = not any(map(files.has, first)) and (counted or all(number(field) is None for field in first))
    if titled and (twice := sorted({title for title in first if title and first.count(title) > 1})):
        raise MdpotError(f"{path}: titles of columns must differ; it has {', '.join(map(repr, twice))} more than once.")
    rows = rows[1:] if titled else rows
    place = _place_of_structures(first if titled else None, rows, files)
    if place is None:
        raise MdpotError(
            f"{path}: no column of its table names files of structures that are there, relative to "
            f"{str(path.parent)!r}, or holds CIFs; it holds {', '.join(first)[:200] or 'nothing'}."
        )
    others = [n for n in range(len(first)) if n != place and (first[n] or not titled)]
    names = [first[n] if titled else TARGET + (str(k) if len(others) > 1 else "") for k, n in enumerate(others)]
    frames, texts = [], Texts()
    for n, row in enumerate(rows):
        at = f"{path}, row {n}"
        atoms = files.structure(row[place], at)
        if comma := next((row[k] for k in others if _COMMA.fullmatch(row[k])), None):
            raise MdpotError(
                f"{at}: {comma!r} has a comma, decimal or of thousands, and nothing says which. Write points, and no "
                "commas, in numbers."
            )
        values = {name: row[k] for name, k in zip(names, others, strict=True)}
        frames.append(
            Frame(
                atoms.numbers.astype(np.int64),
                atoms.positions.astype(np.float64),
                np.array(atoms.cell.array, np.float64),
                np.array(atoms.pbc, bool),
                group=str(n) if is_cif(row[place]) else row[place],
                index=n,
                properties=numbers_in(values, texts),
            )
        )
    return of_properties(frames, texts)


def is_cif(text: str) -> bool:
    return "_cell_length_a" in text


def _rows(path: Path) -> list[list[str]]:
    """The fields of the rows that are not blank, as many in each as in the first.

    What separates them is what the first has most of.
    """
    text = decode(read_bytes(path))
    separator = max("\t;,", key=text.split("\n", 1)[0].count)
    try:
        rows = [[field.strip() for field in row] for row in csv.reader(io.StringIO(text), delimiter=separator)]
    except csv.Error as error:
        raise MdpotError(f"{path}: no CSV ({error}).") from None
    rows = [row for row in rows if any(row)]
    width = len(rows[0]) if rows else 0
    for n, row in enumerate(rows):
        if any(row[width:]):
            raise MdpotError(f"{path}: line {n + 1} of its table has {len(row)} fields, but the first has {width}.")
    return [row[:width] + [""] * (width - len(row)) for row in rows]


def _place_of_structures(titles: Sequence[str] | None, rows: Sequence[Sequence[str]], files: _Files) -> int | None:
    """The column that holds the most structures, None where there is none. Of several, CIFs go before names of files,
    these before names without endings, and those before ones that repeat, for classes of 0 and 1 may be names, too.
    The column without a title, in which pandas counts the rows, is none."""
    found: dict[int, tuple[int, ...]] = {}
    for n, column in enumerate(zip(*rows, strict=True)):
        if (titles is None or titles[n]) and (n_there := sum(map(files.has, column))):
            found[n] = (n_there, sum(map(is_cif, column)), sum(map(files.is_file, column)), len(set(column)))
    return max(found, key=found.__getitem__, default=None)


class _Files:
    """The files of structures beside a table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.named: dict[str, list[Path]] = {}
        for depth in ("*", "*/*"):
            deeper: dict[str, list[Path]] = {}
            for file in sorted(folder.glob(depth)):
                name, ending = os.path.splitext(unpacked_name(file))
                if ending.lower() in ENDINGS:
                    deeper.setdefault(name, []).append(file)
            self.named = deeper | self.named

    def has(self, field: str) -> bool:
        return is_cif(field) or field in self.named or self.is_file(field)

    def is_file(self, field: str) -> bool:
        return bool(field) and os.path.isfile(self.folder / field)

    def structure(self, field: str, at: str) -> Atoms:
        """The one structure of a row."""
        if is_cif(field):
            return parse_cif(field, at)
        if not self.has(field):
            raise MdpotError(f"{at}: no file of a structure has the name {field[:80]!r}, relative to the table.")
        file = self.folder / field if self.is_file(field) else self._of_name(field, at)
        structures = read_structures(file)
        if len(structures) != 1:
            raise MdpotError(f"{at}: a row is one structure; {str(file)!r} holds {len(structures)}.")
        return structures[0]

    def _of_name(self, name: str, at: str) -> Path:
        ranked = sorted(self.named[name], key=_rank)
        if len({_rank(file) for file in ranked[:2]}) < len(ranked[:2]):
            raise MdpotError(f"{at}: {name!r} may be {ranked[0]} or {ranked[1]}. Write the folder into the table.")
        return ranked[0]


def _rank(file: Path) -> int:
    return ENDINGS.index(os.path.splitext(unpacked_name(file))[1].lower())
