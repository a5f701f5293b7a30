"""Files that are packed by gzip, bzip2 or xz, told by their first bytes, whatever their names end with."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mdpot.errors import MdpotError


class _Packing(NamedTuple):
    name: str
    ending: str
    mark: bytes
    unpack: Callable[[bytes], bytes]
    begin: Callable[[], Any]  # gives what unpacks piece by piece


_PACKINGS = (
    _Packing("gzip", ".gz", b"\x1f\x8b", gzip.decompress, lambda: zlib.decompressobj(wbits=31)),
    _Packing("bzip2", ".bz2", b"BZh", bz2.decompress, bz2.BZ2Decompressor),
    _Packing("xz", ".xz", b"\xfd7zXZ\0", lzma.decompress, lzma.LZMADecompressor),
)
_DAMAGED = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
PIECE = 1 << 18


def unpacked(path: Path, data: bytes) -> bytes:
    """The content of a file, unpacked where it is packed.

    Args:
        path: for the message.
        data: the bytes of the file.

    Raises:
        MdpotError: it is damaged or truncated.
    """
    for packing in _PACKINGS:
        if data.startswith(packing.mark):
            try:
                return packing.unpack(data)
            except _DAMAGED as error:
                raise MdpotError(
                    f"{path}: the {packing.name} file is truncated or damaged ({error}). Copy it again."
                ) from None
    return data


def packing_of(path: Path) -> str:
    """By what a file is packed; "" for one that is not."""
    with path.open("rb") as file:
        raw = file.read(8)
    return next((packing.name for packing in _PACKINGS if raw.startswith(packing.mark)), "")


def head(path: Path, n_bytes: int = 4096) -> bytes:
    """The first bytes of a file, unpacked where it is packed; b"" where they cannot be."""
    with path.open("rb") as file:
        raw = file.read(n_bytes)
        for packing in _PACKINGS:
            if raw.startswith(packing.mark):
                unpacker = packing.begin()
                try:  # A truncated file still tells what it began with.
                    found = unpacker.decompress(raw, n_bytes)
                    while not found and (raw := file.read(PIECE)):  # bzip2 gives nothing before the end of a block
                        found = unpacker.decompress(raw, n_bytes)
                    return found
                except _DAMAGED:
                    return b""
    return raw


def unpacked_name(path: Path) -> str:
    """The name of a file without the ending that says how it is packed."""
    for packing in _PACKINGS:
        if path.name.lower().endswith(packing.ending):
            return path.name[: -len(packing.ending)]
    return path.name


def has_ending(path: Path, *endings: str) -> bool:
    """Whether the name of a file ends so, in any case, packed or not; the endings are in lower case."""
    return unpacked_name(path).lower().endswith(endings)
