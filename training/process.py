"""What a process knows of those that it trains together with; so far it is alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Process:
    """One of the processes that train a network together.

    Each scores its share of a batch. Where the counts in `Score.loss` are those of the whole batch, the gradients add
    up to those of one process with the whole batch, however ragged the shares are.

    Attributes:
        rank: from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this one writes the files of the run."""
        return self.rank == 0

    def seed(self, seed: int, step: int) -> int:
        """The seed of what a step draws at random, another one for each process."""
        return seed * 1_000_003 + step + (self.rank << 53)

    def share(self, frames: torch.Tensor) -> torch.Tensor:
        """The frames [n] of a batch that this process scores."""
        return frames[self.rank :: self.size]


ALONE = Process()
