"""One door for files: what a file is, is told by its content."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mdpot.errors import MdpotError, unknown
from mdpot.packed import has_ending, head, packing_of, unpacked_name
from mdpot.structures import read_bytes
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import IGNORE, Asked
from mdpot.training.data.readers.ase_io import parse_ase
from mdpot.training.data.readers.csv_tables import parse_csv, table_in
from mdpot.training.data.readers.deepmd import UNITS as DEEPMD_UNITS
from mdpot.training.data.readers.deepmd import is_deepmd, parse_deepmd
from mdpot.training.data.readers.folders import parse_folder
from mdpot.training.data.readers.foreign import refuse_foreign
from mdpot.training.data.readers.hdf5 import SIGNATURE, parse_hdf5
from mdpot.training.data.readers.ml_ab import UNITS, is_ml_ab, parse_ml_ab
from mdpot.training.data.readers.mtp import UNITS as MTP_UNITS
from mdpot.training.data.readers.mtp import is_mtp, parse_mtp
from mdpot.training.data.readers.npz import parse_npz
from mdpot.training.data.readers.pyg import NOTHING_ASKED, is_pyg, parse_pyg
from mdpot.training.data.readers.pymatgen import parse_pymatgen
from mdpot.training.data.readers.qcschema import is_qcschema
from mdpot.training.data.readers.runner import parse_runner
from mdpot.training.data.readers.search import is_folder
from mdpot.training.data.readers.tables import is_pymatgen, is_table, parse_json
from mdpot.training.data.reading import LABELS, Raw, Reading, finish
from mdpot.training.data.unit_statements import parse_units
from mdpot.training.data.units import ATOMIC

_ZIP = b"PK\x03\x04"
_MARK = b"\xef\xbb\xbf"


def read_file(path: Path | str, asked: Asked = NOTHING_ASKED, need: Collection[str] | None = None) -> Reading:
    """What can be used of a file: RuNNer `input.data`, VASP's ML_AB, MTP's cfg, npz, HDF5, a folder of DeePMD-kit,
    a table of structures with properties (MatBench's or JARVIS's json, CSV, CGCNN's folder), structures of pymatgen in
    json, QCSchema, or whatever ASE reads; any file may be packed by gzip, bzip2 or xz. Of a folder of calculations, see
    `mdpot.training.data.readers.folders`.

    Args:
        path: the file, a folder, a pattern of files as `runs/*/OUTCAR`, or a data set of PyG as in
            `mdpot.training.data.readers.pyg`.
        asked: what the user says of its labels.
        need: the labels that a frame must have, else it is left out; empty for pretraining, which reads none; None for
            any label at all.

    Raises:
        MdpotError: no such file, empty, truncated, damaged, in a format that nobody here knows; labels that are asked
            for and not there, or that contradict each other.
    """
    path = Path(path)
    raw = parse_file(path, asked, need is None or not set(LABELS).isdisjoint(need))
    return finish(raw, need, path)


def read_frames(path: Path | str) -> list[Frame]:
    """All frames of a file but isolated atoms, labeled or not, in eV and Å; errors as `read_file`."""
    path = Path(path)
    return finish(parse_file(path, NOTHING_ASKED, True), (), path).frames


def is_runner(path: Path) -> bool:
    """Whether a file, plain or packed, starts with the `begin` of a RuNNer frame, or its name says so."""
    words = head(path).removeprefix(_MARK).split(None, 2)
    begins = bool(words) and words[0].lower() == b"begin" and words[1:2] != [b"header"]  # as CASTEP's trajectories have
    return unpacked_name(path) == "input.data" or begins


def parse_file(path: Path, asked: Asked, want_labels: bool) -> Raw:
    """What a file holds, in its own units; arguments and errors as `read_file`."""
    if is_pyg(path):
        return parse_pyg(str(path), asked, want_labels)
    if is_deepmd(path):
        return _named(parse_deepmd(path, parse_units(asked.units, DEEPMD_UNITS)), asked)
    path = table_in(path)
    if is_folder(path):
        return parse_folder(path, asked, want_labels, lambda file: parse_file(file, asked, want_labels))
    if not path.is_file() or path.stat().st_size == 0:
        read_bytes(path)  # says what is wrong
    if is_pymatgen(path):
        return parse_pymatgen(path, asked, want_labels)
    if is_qcschema(path):
        return parse_ase(path, asked, want_labels)
    start = head(path)
    refuse_foreign(path, start)
    _refuse_packed(path, start)
    if path.suffix == ".npz" or start.startswith(_ZIP):
        return _named(parse_npz(path, asked.units), asked)
    if start.startswith(SIGNATURE):
        return parse_hdf5(path, asked, want_labels)
    if is_runner(path):
        return _named(parse_runner(path, parse_units(asked.units, replace(ATOMIC, source="of the format"))), asked)
    if is_ml_ab(start.removeprefix(_MARK)):
        return _named(parse_ml_ab(path, parse_units(asked.units, UNITS)), asked)
    if is_mtp(start.removeprefix(_MARK)):
        return _named(parse_mtp(path, parse_units(asked.units, MTP_UNITS)), asked)
    return _parse_table(path) or parse_ase(path, asked, want_labels)


def _refuse_packed(path: Path, start: bytes) -> None:
    """Refuses a packed file of a format that is read where it lies."""
    formats = {"an archive of NumPy": _ZIP, "HDF5": SIGNATURE, "a database of ASE": b"SQLite format 3\0"}
    kind = next((name for name, begin in formats.items() if start.startswith(begin)), None)
    if kind is not None and (packing := packing_of(path)):
        raise MdpotError(f"{path}: {kind}, which is not read while it is packed by {packing}: unpack it.")


def _parse_table(path: Path) -> Raw | None:
    """What a table of structures with properties holds, CSV or json; None for a file that is none.

    Raises:
        MdpotError: one that cannot be read.
    """
    if has_ending(path, ".csv"):
        return parse_csv(path)
    if has_ending(path, ".json") and is_table(head(path).removeprefix(_MARK)):
        return parse_json(path)
    return None


def _named(raw: Raw, asked: Asked) -> Raw:
    """What a format holds whose keys are fixed: the labels that the user does not want are taken off."""
    for kind, key in asked.keys.items():
        there = getattr(raw.keys, kind)
        if key == IGNORE:
            for frame in raw.frames:
                setattr(frame, kind, None)
            raw.keys = replace(raw.keys, **{kind: None})
        elif key != there:
            raise unknown(f"key of {kind} in this format", key, [str(there or "none")])
    return raw
