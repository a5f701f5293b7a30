"""Reading the files of `mdpot export`: TorchScript, or a package of AOTInductor, with its metadata beside it."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mdpot.errors import MdpotError
from mdpot.files import unsealed

EXPORT_VERSION = 1
EXTRA_FILE = "mdpot.json"
TORCHSCRIPT, AOTI = "torchscript", "aoti"
TITLES = {TORCHSCRIPT: "TorchScript", AOTI: "AOTInductor"}


def is_exported(content: bytes) -> bool:
    """Whether the content of a file is that of an exported one rather than of a model file: a zip archive."""
    return content.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(content))


def read_exported(content: bytes, name: str) -> dict[str, Any]:
    """The metadata of an exported file, without loading its module.

    Args:
        content: of the file.
        name: of the file, for errors.

    Raises:
        MdpotError: not one that mdpot exported, changed, or written by a newer mdpot.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(unsealed(content, name))) as archive:
            members = archive.namelist()
            place = next((m for m in members if m.endswith(f"/extra/{EXTRA_FILE}")), None)
            text = b"" if place is None else archive.read(place)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise MdpotError(f"{name!r} is not an exported file, or is damaged: {_first_line(error)}") from None
    if not text:
        inside = [m.partition("/")[2] for m in members]
        for place, what in (("code/", "a TorchScript file"), ("data/aotinductor/", "a package of AOTInductor")):
            if any(m.startswith(place) for m in inside):
                raise MdpotError(f"{name!r} is {what}, but not one that mdpot exported.")
        raise MdpotError(f"model file {name!r} is damaged or of another format: a zip archive without code.")
    try:
        header = json.loads(text)
        version = header["export"]["format_version"]
        damaged = type(version) is not int or not isinstance(header["elements"], list)
    except (ValueError, TypeError, KeyError, RecursionError):
        header, version, damaged = {}, 0, True
    if damaged:
        raise MdpotError(f"exported file {name!r} is damaged: its header is not one that mdpot wrote.")
    if version > EXPORT_VERSION:
        raise MdpotError(
            f"exported file {name!r} has format version {version}; this mdpot reads up to "
            f"{EXPORT_VERSION}. Upgrade mdpot: pip install --upgrade mdpot."
        )
    return header


def format_of(header: dict[str, Any]) -> str:
    """`TORCHSCRIPT` or `AOTI`, by the metadata of an exported file."""
    return header["export"].get("format", TORCHSCRIPT)


def load_module(content: bytes, name: str, device: torch.device | str | None = None) -> torch.jit.ScriptModule:
    """The module of a TorchScript file.

    Args:
        content: of the file.
        name: of the file, for errors.
        device: where to; None is the CPU.

    Raises:
        MdpotError: torch cannot load it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch announces the end of TorchScript
            return torch.jit.load(io.BytesIO(unsealed(content, name)), map_location=device or "cpu")
    except (RuntimeError, ValueError) as error:
        raise MdpotError(f"{name!r} is not a TorchScript file, or is damaged: {_first_line(error)}") from None


@contextmanager
def plain_refusals() -> Iterator[None]:
    """Turns what a scripted module raises into a MdpotError: its sentence, without the traceback of TorchScript."""
    try:
        yield
    except torch.jit.Error as error:
        raise MdpotError(without_traceback(str(error))) from error


def without_traceback(text: str) -> str:
    """The sentence of an error in one line, of one that TorchScript put its traceback before."""
    if "Traceback of TorchScript" in text:
        text = re.split(r"^[\w.]*Error: ", text, flags=re.MULTILINE)[-1]
    return " ".join(text.split())


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
