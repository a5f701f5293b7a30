"""Energies and forces in full precision, whatever modes of torch the caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

AUTOCAST_DEVICES = ("cpu", "cuda")


@contextmanager
def exact_gradients() -> Iterator[None]:
    """While the block, or the decorated function, runs: gradients, without which there are no forces, and no autocast,
    which would round them; also where the caller is inside `torch.no_grad`, `inference_mode` or `autocast`."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
