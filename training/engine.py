"""Who computes a network while it is trained and scored: the fused kernels where they can, else the network itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mdpot.heads import Potential
from mdpot.kernels import NoKernel, TrainingKernel, library, self_test
from mdpot.kernels.training import OUTPUTS
from mdpot.models import Tide
from mdpot.threads import torch_in_one_thread

logger = logging.getLogger("mdpot.training")
_told: set[str] = set()

Engine = Callable[..., dict[str, Tensor]]
"""What is called as the network is, and gives the same."""


def choose_engine(network: nn.Module, outputs: Collection[str], asked: str = "auto") -> Engine:
    """The engine that computes a network on its device, with gradients to its weights.

    Args:
        network: that is trained or scored; the engine follows its weights.
        outputs: what is asked of it; empty for a head with one output.
        asked: "auto", the kernels where they can, else torch; or "kernels" or "torch".

    Returns:
        A `TrainingKernel`, or the network.

    Raises:
        NoKernel: `asked` is "kernels", and there are none for this.
    """
    if asked == "torch":
        return network
    try:
        return _kernels(network, outputs)
    except NoKernel as error:
        if asked == "kernels":
            raise NoKernel(f'engine: "kernels" is not possible: {error}') from None
        if str(error) not in _told:
            _told.add(str(error))
            expected = _could(network, outputs) and not library.is_off()
            logger.log(
                logging.WARNING if expected else logging.INFO, "torch computes this network, not the kernels: %s", error
            )
        return network


def small_operations(engine: Engine) -> AbstractContextManager[None]:
    """While the block runs, torch in one thread, where an engine of kernels leaves it only small operations."""
    return torch_in_one_thread() if isinstance(engine, TrainingKernel) else nullcontext()


def dtype_of(engine: Engine) -> torch.dtype:
    """That of the weights."""
    weights: Any = engine.weights if isinstance(engine, TrainingKernel) else engine.parameters()  # type: ignore[attr-defined]
    return next(iter(weights)).dtype


def _could(network: nn.Module, outputs: Collection[str]) -> bool:
    """Whether there are kernels for a network and what is asked of it, were they compiled."""
    if not isinstance(network, Potential) or not isinstance(network.backbone, Tide):
        return False
    return network.shift.device.type == "cpu" and set(outputs) <= set(OUTPUTS)


def _kernels(network: nn.Module, outputs: Collection[str]) -> TrainingKernel:
    if not isinstance(network, Potential):
        raise NoKernel(f"{type(network).__name__} has none.")
    if other := sorted(set(outputs) - set(OUTPUTS)):
        raise NoKernel(f"they do not compute what is learned here: {', '.join(other)}.")
    weight: Any = network.readout[0].weight
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        raise NoKernel(f"they are for float32 and float64 on a CPU; this network is {weight.dtype} on {weight.device}.")
    kernel = TrainingKernel(network)
    training = network.training
    self_test(kernel.kernel, network.eval())
    network.train(training)
    return kernel
