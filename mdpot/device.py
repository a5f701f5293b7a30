"""Where to compute."""

from __future__ import annotations

import torch

from mdpot.errors import MdpotError


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; without a name a CUDA GPU where there is one, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def check_device(name: str | torch.device | None, label: str = "device") -> None:
    """Refuses a device that torch does not know or does not have, before any work.

    Args:
        name: as torch has it, e.g. "cpu" or "cuda:1"; None passes.
        label: how the error calls it.

    Raises:
        MdpotError: no such device here.
    """
    if name is None:
        return
    try:
        torch.zeros(1, device=name).tolist()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MdpotError(f"{label} {str(name)!r} cannot be used here: {reason}") from error
