"""One door for files: what a file is, is told by its content."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.training.data.ase_io import read_ase
from mdpot.training.data.frames import Frame
from mdpot.training.data.npz import read_npz
from mdpot.training.data.runner import read_runner

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"


def read_frames(path: Path | str) -> list[Frame]:
    """The frames of a file: RuNNer `input.data` (plain or gzipped), npz, or whatever ASE reads.

    Raises:
        MdpotError: no such file, empty, truncated, damaged, or in a format that nobody here knows.
    """
    path = Path(path)
    if path.is_dir():
        raise MdpotError(f"{path}: a folder; give the file with the frames.")
    if not path.is_file():
        raise MdpotError(f"{path}: no such file. Check the path.")
    if path.stat().st_size == 0:
        raise MdpotError(f"{path}: empty: it holds no frame.")
    if path.suffix == ".npz" or _head(path).startswith(_ZIP):
        return read_npz(path)
    return read_runner(path) if is_runner(path) else read_ase(path)


def is_runner(path: Path) -> bool:
    """Whether a file, plain or gzipped, starts with the `begin` of a RuNNer frame, or its name says so."""
    words = _head(path).split(None, 1)
    return path.name in ("input.data", "input.data.gz") or (bool(words) and words[0] == b"begin")


def _head(path: Path) -> bytes:
    """The first bytes of a file, unpacked where it is gzipped; b"" where they cannot be."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(_GZIP):
        return head
    try:
        with gzip.open(path) as packed:
            return packed.read(4096)
    except (EOFError, OSError, zlib.error):
        try:  # A truncated file still tells what it began with.
            return zlib.decompressobj(wbits=31).decompress(head)
        except zlib.error:
            return b""
