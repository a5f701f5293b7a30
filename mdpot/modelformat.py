"""The bytes of a model file: safetensors with a JSON header, no pickle; its checksum, upgraders and checks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from mdpot.errors import MdpotError, unknown
from mdpot.heads.property import POOLINGS

FORMAT_VERSION = 4
FIRST_WITH_CHECKSUM = 3
POTENTIAL, PROPERTY, ENSEMBLE = KINDS = ("potential", "property", "ensemble")
UNITS = {"energy": "eV", "length": "Å", "time": "fs"}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""What a network may compute in: in half precision forces are rounded to about 1 %."""

Header = dict[str, Any]
Tensors = dict[str, torch.Tensor]


def _without_pair_energy(header: Header, tensors: Tensors) -> Header:
    """Version 1 knew no pair energy."""
    n = len(header["elements"])
    tensors["pair"] = torch.zeros([1, n, n])
    return header


def _embedding_in_the_backbone(header: Header, tensors: Tensors) -> Header:
    """Version 2 knew potentials only, every backbone held the embedding that all now share, and had no checksum."""
    for old, new in (("backbone.embedding.weight", "embedding.element.weight"), ("backbone.mark", "embedding.mark")):
        tensors[new] = tensors.pop(old)
    return {**header, "kind": POTENTIAL}


def _without_baseline(header: Header, tensors: Tensors) -> Header:
    """Version 3 knew no `baseline`, the force field that a potential corrects, and would run such a one without it."""
    return header


# From a version to the function that makes its header, and its tensors in place, those of the next version.
UPGRADERS: dict[int, Callable[[Header, Tensors], Header]] = {
    1: _without_pair_energy,
    2: _embedding_in_the_backbone,
    3: _without_baseline,
}


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name or a dtype that a network may compute in.

    Raises:
        MdpotError: any other.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]


def checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of the content of a model file: its header without the checksum, and its tensors by name."""
    content = {key: value for key, value in header.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pack(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The content of a model file.

    Raises:
        MdpotError: weights that are not finite or in half precision.
    """
    as_dtype(header["dtype"])
    _require_finite(tensors)
    written = json.loads(json.dumps(header))  # as it will be read: JSON makes texts of all keys
    written["format_version"] = FORMAT_VERSION
    written["checksum"] = checksum(written, tensors)
    return save(dict(tensors), metadata={"mdpot": json.dumps(written)})


def unpack(content: bytes, name: str) -> tuple[Header, Tensors]:
    """Header and tensors of a model file, upgraded to the current format version.

    Args:
        content: what `pack` made, now or in an older version.
        name: of the file, for errors.

    Raises:
        MdpotError: not a model file, damaged, or written by a newer mdpot.
    """
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        raw = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("mdpot")
    except (SafetensorError, ValueError, KeyError) as error:
        raise MdpotError(f"model file {name!r} is damaged or of another format: {error}.") from None
    if raw is None:
        raise MdpotError(f"{name!r} is a safetensors file, but not one that mdpot wrote.")
    try:
        header = json.loads(raw)
        version = header["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        header, version = {}, None
    if type(version) is not int or version < 1:
        raise MdpotError(f"model file {name!r} is damaged: its header is not one that mdpot wrote.")
    if version > FORMAT_VERSION:
        raise MdpotError(
            f"model file {name!r} has format version {version}; this mdpot reads up to {FORMAT_VERSION}. "
            "Upgrade mdpot: pip install --upgrade mdpot."
        )
    expected = header.get("checksum")
    if (version >= FIRST_WITH_CHECKSUM or expected is not None) and expected != checksum(header, tensors):
        raise MdpotError(
            f"model file {name!r} is damaged: it was changed since it was written, for its checksum does not "
            "fit its content. Take another copy of it."
        )
    try:
        header = _upgrade(header, tensors, version)
        _check(header, tensors)
    except MdpotError as error:
        raise MdpotError(f"model file {name!r} is damaged: {error}") from None
    except KeyError as error:
        raise MdpotError(f"model file {name!r} is damaged: it lacks {error}.") from None
    return header, tensors


def member(index: int, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors of one member of an ensemble, by the names they have in a file of its own."""
    prefix = f"members.{index}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _upgrade(header: Header, tensors: Tensors, version: int) -> Header:
    """The header in the current version; the tensors are brought there in place. Members of an ensemble each."""
    if header.get("kind") != ENSEMBLE:
        for old in range(version, FORMAT_VERSION):
            header = UPGRADERS[old](header, tensors)
        return header
    members = []
    for index, part in enumerate(header["members"]):
        own = member(index, tensors)
        for name in own:
            del tensors[f"members.{index}.{name}"]
        members.append(_upgrade(part, own, version))
        tensors.update({f"members.{index}.{name}": value for name, value in own.items()})
    return {**header, "members": members}


def _check(header: Header, tensors: Tensors) -> None:
    """Refuses a header that no model has, whatever wrote it.

    Raises:
        MdpotError: with what is wrong.
        KeyError: the header or the tensors lack one that all files have.
    """
    kind = header["kind"]
    if kind not in KINDS:
        raise unknown("kind", str(kind), KINDS)
    if kind == ENSEMBLE:
        _check_ensemble(header, tensors)
        return
    elements = header["elements"]
    if not isinstance(elements, list) or not elements or not all(type(z) is int and 0 < z < 119 for z in elements):
        raise MdpotError(f"elements must be atomic numbers; got {elements!r}.")
    if any(a >= b for a, b in pairwise(elements)):
        raise MdpotError(f"elements must be in ascending order, each once; got {elements!r}.")
    _check_number("scale", header["scale"])
    if not isinstance(header["hyperparameters"], dict):
        raise MdpotError(f"hyperparameters must be a table; got {header['hyperparameters']!r}.")
    if header.get("units", UNITS) != UNITS:
        raise MdpotError(f"its units are {header['units']!r}, not {UNITS!r}.")
    if not isinstance(header["model"], str):
        raise MdpotError(f"model must be a name; got {header['model']!r}.")
    as_dtype(header["dtype"])
    (_check_potential if kind == POTENTIAL else _check_property)(header, tensors)
    _require_finite(tensors)


def _check_potential(header: Header, tensors: Tensors) -> None:
    elements, energies = header["elements"], tensors["shift"].tolist()
    for name, shape in (("shift", "n"), ("wall", "n n"), ("pair", "k n n")):
        if list(tensors[name].shape)[-shape.count("n") :] != shape.count("n") * [len(elements)]:
            raise MdpotError(f"{name} must be for {len(elements)} elements; its shape is {list(tensors[name].shape)}.")
    stated = header.get("reference_energies", dict(zip(map(str, elements), energies, strict=True)))
    if stated != dict(zip(map(str, elements), energies, strict=True)):
        raise MdpotError("its reference energies are not those of its elements.")


def _check_property(header: Header, tensors: Tensors) -> None:
    _check_number("mean", header["mean"])
    if header["pooling"] not in POOLINGS:
        raise unknown("pooling", str(header["pooling"]), POOLINGS)
    if not isinstance(header["property"], str) or not isinstance(header["unit"], str):
        raise MdpotError(f"property and unit must be names; got {header['property']!r} and {header['unit']!r}.")


def _check_ensemble(header: Header, tensors: Tensors) -> None:
    members = header["members"]
    if not isinstance(members, list) or len(members) < 2 or not all(isinstance(part, dict) for part in members):
        raise MdpotError("members must be two headers or more.")
    for index, part in enumerate(members):
        _check(part, member(index, tensors))
    kinds = {part["kind"] for part in members}
    if len(kinds) > 1 or ENSEMBLE in kinds:
        raise MdpotError(f"members must all be potentials or all properties; got {', '.join(sorted(kinds))}.")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise MdpotError(f"{name} must be a finite number; got {value!r}.")


def _require_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise MdpotError(f"its weights {', '.join(wrong[:3])} are not finite numbers.")
