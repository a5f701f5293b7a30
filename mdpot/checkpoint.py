"""The potential file: weights and all that is needed to use and to trust them, in one safetensors file, no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mdpot.errors import MdpotError
from mdpot.files import atomic
from mdpot.models import Potential, build_potential
from mdpot.zoo import find_potential

FORMAT_VERSION = 2
UNITS = {"energy": "eV", "length": "Å", "time": "fs"}


def _without_pair_energy(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Version 1 knew no pair energy."""
    n = len(header["elements"])
    tensors["pair"] = torch.zeros([1, n, n])
    return header


# From a version to the function that makes its header, and its tensors in place, those of the next version.
UPGRADERS: dict[int, Callable[[dict[str, Any], dict[str, torch.Tensor]], dict[str, Any]]] = {1: _without_pair_energy}


def save_potential(path: Path | str, potential: Potential, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a potential to one self-describing file, atomically.

    The header holds, as JSON: format_version, model, hyperparameters, elements, cutoff (Å), scale (eV), reference
    energies (eV per atom), conservative, dtype, units, and `metadata`.

    Args:
        path: file to write, `*.safetensors` by custom.
        potential: made by `build_potential`.
        metadata: JSON-like; what the trainer knows of its provenance, and `caution`, a sentence for whoever runs it,
            where there is one to say.
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
    with atomic(path) as temporary:
        save_file(tensors, str(temporary), metadata={"mdpot": json.dumps(header)})


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The header of a potential file, upgraded to the current format version.

    Raises:
        MdpotError: no such file, not a potential file, damaged, or written by a newer mdpot.
    """
    return _upgrade(_read_header(find_potential(path)), {})


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


def _read_header(path: Path) -> dict[str, Any]:
    """The header as it was written; errors as `read_metadata`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            raw = (file.metadata() or {}).get("mdpot")
    except (SafetensorError, OSError) as error:
        raise MdpotError(f"potential file {str(path)!r} is damaged or of another format: {error}.") from None
    if raw is None:
        raise MdpotError(f"{str(path)!r} is a safetensors file, but not one that mdpot wrote.")
    try:
        header = json.loads(raw)
        version = header["format_version"]
    except (ValueError, TypeError, KeyError):
        header, version = {}, None
    if not isinstance(version, int) or version < 1:
        raise MdpotError(f"potential file {str(path)!r} is damaged: its header is not one that mdpot wrote.")
    if version > FORMAT_VERSION:
        raise MdpotError(
            f"potential file {str(path)!r} has format version {version}; this mdpot reads up to {FORMAT_VERSION}. "
            "Upgrade mdpot: pip install --upgrade mdpot."
        )
    return header


def _upgrade(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The header in the current format version; the tensors are changed in place."""
    for old in range(header["format_version"], FORMAT_VERSION):
        header = UPGRADERS[old](header, tensors)
    return header


def load_potential(
    path: Path | str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[Potential, dict[str, Any]]:
    """The potential of a file, in evaluation mode, and its header.

    Args:
        path: a file of `save_potential`, the folder of a run, or a name in `mdpot.zoo.ZOO`.
        device: where to; None is the CPU.
        dtype: of the network; None is the dtype it was saved in.

    Returns:
        The potential and the header, see `save_potential`.

    Raises:
        MdpotError: as `read_metadata`, or weights that do not fit the architecture.
    """
    path = find_potential(path)
    header = _read_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = _upgrade(header, tensors)
        potential = build_potential(
            header["model"],
            header["hyperparameters"],
            header["elements"],
            tensors["shift"].tolist(),
            header["scale"],
            tensors["wall"].tolist(),
            tensors["pair"].tolist(),
        )
        potential.to(getattr(torch, header["dtype"]))
        potential.load_state_dict(tensors)
    except MdpotError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise MdpotError(f"potential file {str(path)!r} is damaged: {reason}.") from None
    potential.to(device=device, dtype=dtype)
    return potential.eval().requires_grad_(False), header
