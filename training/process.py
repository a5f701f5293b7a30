"""What a process knows of those that it trains a network together with, and what they tell each other."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mdpot.errors import MdpotError

T = TypeVar("T")


class ProcessLost(MdpotError):
    """Another of the processes is gone, or does not answer."""


@dataclass(frozen=True)
class Process:
    """One of the processes that train a network together; by itself the only one.

    Each scores its share of a batch, and the gradients of all are added up. As losses are divided by the counts of the
    whole batch, this is the gradient of one process with the whole batch, however ragged the shares are. All have the
    same weights at all times and see the same validation, so that they decide alike; the first alone touches files.

    Attributes:
        rank: from 0.
        size: how many there are.
        device: that this one computes on.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def writes(self) -> bool:
        """Whether this one reads and writes the files of the run."""
        return self.rank == 0

    def seed(self, seed: int, step: int) -> int:
        """The seed of what a step draws at random, another one for each process."""
        return seed * 1_000_003 + step + (self.rank << 53)

    def share(self, frames: torch.Tensor, work: torch.Tensor) -> torch.Tensor:
        """The frames of a batch that this process scores: all get about as much work.

        Args:
            frames: [n] int64, of the batch.
            work: [n] int64, how much each is.

        Returns:
            [n_share] int64; none where there are fewer frames than processes.
        """
        if self.size == 1:
            return frames
        loads, mine = [0] * self.size, []
        for n in work.argsort(descending=True, stable=True).tolist():
            least = loads.index(min(loads))
            loads[least] += int(work[n])
            if least == self.rank:
                mine.append(n)
        return frames[sorted(mine)]

    def total(self, counts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Counts [] by name, summed over the processes."""
        if self.size == 1:
            return dict(counts)
        sums = torch.stack([count.detach().double() for count in counts.values()])
        with _answered():
            dist.all_reduce(sums)
        return dict(zip(counts, sums.unbind(), strict=True))

    def sum_gradients(self, network: torch.nn.Module) -> None:
        """Adds up the gradients of a network by one reduction; a weight that nowhere has one keeps none."""
        if self.size == 1:
            return
        weights = [p for p in network.parameters() if p.requires_grad]
        there = weights[0].new_tensor([float(p.grad is not None) for p in weights])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        flat = torch.cat([there, *(part.flatten() for part in parts)])
        with _answered():
            dist.all_reduce(flat)
        sizes = [len(weights), *(part.numel() for part in parts)]
        there, *sums = flat.split(sizes)
        for weight, total, n in zip(weights, sums, there.tolist(), strict=True):
            weight.grad = total.view_as(weight).to(weight.dtype) if n else None

    def average_statistics(self, network: torch.nn.Module) -> None:
        """Averages what layers of batch normalization know of the batches, each of them of its own share."""
        if self.size == 1:
            return
        statistics = [b for name, b in network.named_buffers() if "running_" in name]
        if not statistics:
            return
        flat = torch.cat([values.flatten() for values in statistics])
        with _answered():
            dist.all_reduce(flat)
        for values, total in zip(statistics, flat.split([b.numel() for b in statistics]), strict=True):
            values.copy_(total.view_as(values) / self.size)

    def sums(self, own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Sums [...] float64 by name, added up over the processes in their order; not all need have every name."""
        if self.size == 1:
            return dict(own)
        gathered: list[dict[str, torch.Tensor]] = [{}] * self.size
        with _answered():
            dist.all_gather_object(gathered, {name: value.cpu() for name, value in own.items()})
        out: dict[str, torch.Tensor] = {}
        for part in gathered:
            out |= {name: out[name] + value if name in out else value for name, value in part.items()}
        return out

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any of the processes."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        with _answered():
            dist.all_reduce(flags)
        return bool(flags)

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them: there alone it is made. Tensors go to the process's device."""
        if self.size == 1:
            return make()
        buffer = io.BytesIO()
        made: Any = make() if self.rank == 0 else None
        if self.rank == 0:
            torch.save(made, buffer)
        length = torch.tensor([buffer.getbuffer().nbytes])
        with _answered():
            dist.broadcast(length, src=0)
        if self.rank == 0:
            content = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        else:
            content = torch.empty(int(length), dtype=torch.uint8)
        with _answered():
            dist.broadcast(content, src=0)
        if self.rank == 0:
            return made
        first = {"cuda:0": self.device}  # of the first process, where each has a GPU of its own
        # It comes from a process of the same run, which may as well be trusted with code.
        return torch.load(io.BytesIO(content.numpy().data), map_location=first, weights_only=False)


ALONE = Process()


@contextmanager
def _answered() -> Iterator[None]:
    """Turns what torch raises where another process does not answer into an error of one line."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ProcessLost(
            f"another process of this training ended: {reason}. The last validation's state is kept; --resume goes on."
        ) from error
