"""The potential file: weights and all that is needed to use and to trust them, in one safetensors file, no pickle."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mdpot.autograd import exact_gradients
from mdpot.errors import MdpotError, unknown
from mdpot.files import write_bytes
from mdpot.heads import Potential, build_potential
from mdpot.zoo import find_potential

FORMAT_VERSION = 3
FIRST_WITH_CHECKSUM = 3
UNITS = {"energy": "eV", "length": "Å", "time": "fs"}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""What a network may compute in: in half precision forces are rounded to about 1 %."""


def _without_pair_energy(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Version 1 knew no pair energy."""
    n = len(header["elements"])
    tensors["pair"] = torch.zeros([1, n, n])
    return header


def _without_checksum(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Version 2 had no checksum; what else it holds is the same."""
    return header


# From a version to the function that makes its header, and its tensors in place, those of the next version.
UPGRADERS: dict[int, Callable[[dict[str, Any], dict[str, torch.Tensor]], dict[str, Any]]] = {
    1: _without_pair_energy,
    2: _without_checksum,
}


def save_potential(path: Path | str, potential: Potential, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a potential to one self-describing file, atomically.

    The header holds, as JSON: format_version, model, hyperparameters, elements, cutoff (Å), scale (eV), reference
    energies (eV per atom), conservative, dtype, units, checksum (see there), and `metadata`.

    Args:
        path: file to write, `*.safetensors` by custom.
        potential: made by `build_potential`.
        metadata: JSON-like; what the trainer knows of its provenance, and `caution`, a sentence for whoever runs it,
            where there is one to say.

    Raises:
        MdpotError: weights that are not finite or in half precision, or a file that cannot be written.
    """
    dtype = str(next(potential.parameters()).dtype).removeprefix("torch.")
    header = {
        **(metadata or {}),
        "format_version": FORMAT_VERSION,
        "model": potential.model,
        "hyperparameters": potential.hyperparameters,
        "elements": potential.elements,
        "cutoff": potential.cutoff,
        "conservative": potential.conservative,
        "scale": potential.scale,
        "reference_energies": dict(zip(map(str, potential.elements), potential.shift.tolist(), strict=True)),
        "dtype": dtype,
        "units": UNITS,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in potential.state_dict().items()}
    as_dtype(dtype)
    _require_finite(tensors)
    header = json.loads(json.dumps(header))  # as it will be read: JSON makes texts of all keys
    header["checksum"] = checksum(header, tensors)
    write_bytes(path, save(tensors, metadata={"mdpot": json.dumps(header)}))


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
    """The SHA-256 of the content of a potential file: its header without the checksum, and its tensors by name."""
    content = {key: value for key, value in header.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The header of a potential file, upgraded to the current format version.

    Raises:
        MdpotError: no such file, not a potential file, damaged, or written by a newer mdpot.
    """
    return _read(find_potential(path))[0]


def cautions(header: Mapping[str, Any]) -> list[str]:
    """What a user should know before dynamics with a potential, a sentence each.

    Args:
        header: of a potential file or an exported one; its `caution` is what the trainer had to say.
    """
    found = []
    if not header["conservative"]:
        found.append(
            "the forces of this potential are predicted directly, not the gradient of its energy. Energy is not "
            "conserved in dynamics, there is no stress, and a Monte Carlo barostat does not give the right volume."
        )
    if header.get("caution"):
        found.append(header["caution"])
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file, upgraded to the current format version; errors as `read_metadata`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            raw = (file.metadata() or {}).get("mdpot")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged or of another format: {error}.") from None
    if raw is None:
        raise MdpotError(f"{str(path)!r} is a safetensors file, but not one that mdpot wrote.")
    try:
        header = json.loads(raw)
        version = header["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        header, version = {}, None
    if type(version) is not int or version < 1:
        raise MdpotError(f"potential file {str(path)!r} is damaged: its header is not one that mdpot wrote.")
    if version > FORMAT_VERSION:
        raise MdpotError(
            f"potential file {str(path)!r} has format version {version}; this mdpot reads up to {FORMAT_VERSION}. "
            "Upgrade mdpot: pip install --upgrade mdpot."
        )
    expected = header.get("checksum")
    if (version >= FIRST_WITH_CHECKSUM or expected is not None) and expected != checksum(header, tensors):
        raise MdpotError(
            f"potential file {str(path)!r} is damaged: it was changed since it was written, for its checksum does not "
            "fit its content. Take another copy of it."
        )
    try:
        for old in range(version, FORMAT_VERSION):
            header = UPGRADERS[old](header, tensors)
        _check(header, tensors)
    except MdpotError as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged: {error}") from None
    except KeyError as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged: it lacks {error}.") from None
    return header, tensors


def _check(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses a header that no potential has, whatever wrote it.

    Raises:
        MdpotError: with what is wrong.
        KeyError: the header or the tensors lack one that all files have.
    """
    elements, scale, energies = header["elements"], header["scale"], tensors["shift"].tolist()
    if not isinstance(elements, list) or not elements or not all(type(z) is int and 0 < z < 119 for z in elements):
        raise MdpotError(f"elements must be atomic numbers; got {elements!r}.")
    if any(a >= b for a, b in pairwise(elements)):
        raise MdpotError(f"elements must be in ascending order, each once; got {elements!r}.")
    for name, shape in (("shift", "n"), ("wall", "n n"), ("pair", "k n n")):
        if list(tensors[name].shape)[-shape.count("n") :] != shape.count("n") * [len(elements)]:
            raise MdpotError(f"{name} must be for {len(elements)} elements; its shape is {list(tensors[name].shape)}.")
    stated = header.get("reference_energies", dict(zip(map(str, elements), energies, strict=True)))
    if stated != dict(zip(map(str, elements), energies, strict=True)):
        raise MdpotError("its reference energies are not those of its elements.")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise MdpotError(f"scale must be a finite number; got {scale!r}.")
    if not isinstance(header["hyperparameters"], dict):
        raise MdpotError(f"hyperparameters must be a table; got {header['hyperparameters']!r}.")
    if header.get("units", UNITS) != UNITS:
        raise MdpotError(f"its units are {header['units']!r}, not {UNITS!r}.")
    if not isinstance(header["model"], str):
        raise MdpotError(f"model must be a name; got {header['model']!r}.")
    as_dtype(header["dtype"])
    _require_finite(tensors)


def _require_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    wrong = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise MdpotError(f"its weights {', '.join(wrong[:3])} are not finite numbers.")


@exact_gradients()
def load_potential(
    path: Path | str, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
) -> tuple[Potential, dict[str, Any]]:
    """The potential of a file, in evaluation mode, and its header.

    Args:
        path: a file of `save_potential`, the folder of a run, or a name in `mdpot.zoo.ZOO`.
        device: where to; None is the CPU.
        dtype: of the network, float32 or float64; None is the dtype it was saved in.

    Returns:
        The potential and the header, see `save_potential`.

    Raises:
        MdpotError: as `read_metadata`, weights that do not fit the architecture, or another dtype.
    """
    path = find_potential(path)
    header, tensors = _read(path)
    try:
        potential = build_potential(
            header["model"],
            header["hyperparameters"],
            header["elements"],
            tensors["shift"].tolist(),
            header["scale"],
            tensors["wall"].tolist(),
            tensors["pair"].tolist(),
        )
        potential.to(as_dtype(header["dtype"]))
        potential.load_state_dict(tensors)
    except MdpotError as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged: {error}") from None
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged: {' '.join(str(error).split())}.") from None
    for key, own in (("cutoff", potential.cutoff), ("conservative", potential.conservative)):
        if header.get(key, own) != own:
            raise MdpotError(f"potential file {str(path)!r} is damaged: it states another {key} than its network has.")
    potential.to(device=device, dtype=None if dtype is None else as_dtype(dtype))
    return potential.eval().requires_grad_(False), header
