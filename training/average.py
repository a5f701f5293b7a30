"""The moving average of a network's weights, which is what is validated and kept."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """An exponential moving average of the weights whose decay grows to `decay`, so that it forgets the start.

    torch's own class finds and sorts the weights anew in every step, which takes as long as a small network's loss.

    Args:
        network: whose weights are averaged; what is no weight is copied.
        decay: what a step leaves of the average, in the end.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay
        self._tensors = [
            (list(average), list(current))
            for average, current in (
                (self.module.parameters(), network.parameters()),
                (self.module.buffers(), network.buffers()),
            )
        ]
        self._versions: list[int] = []

    @torch.no_grad()
    def update_parameters(self, model: torch.nn.Module) -> None:
        """Takes in the present weights of the network that it was made of."""
        (averages, weights), (kept, buffers) = self._tensors
        done = int(self.n_averaged)
        forget = 1.0 - min(self._decay, (1.0 + done) / (10.0 + done)) if done else 1.0
        torch._foreach_lerp_(averages, weights, forget)  # pyright: ignore[reportPrivateImportUsage]
        versions = [buffer._version for buffer in buffers]
        if versions != self._versions:  # most networks have constants alone; statistics change in place
            self._versions = versions
            torch._foreach_copy_(kept, buffers)  # pyright: ignore[reportPrivateImportUsage]
        self.n_averaged += 1
