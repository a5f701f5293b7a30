"""A Gaussian process whose kernel weighs each descriptor, the weights found by the likelihood of the training data."""

import numpy as np
import torch
from torch import Tensor

STEPS = 70
RATE = 0.08
SPARSITY = 0.05
"""Penalty of weights that are larger than exp(-3), so that few descriptors matter."""


def fit_predict(
    known: np.ndarray, shares: np.ndarray, targets: np.ndarray, new: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """The means [n_new] of the process for some structures.

    Args:
        known: [n, n_descriptors] of the training structures.
        shares: [n, n_elements], of the elements in them; they are weighed by one number together.
        targets: [n].
        new, others: descriptors and shares of the structures to predict, [n_new, ...].
    """
    inputs = [torch.tensor(part) for part in (spread(known, known), shares, spread(known, new), others)]
    mean, scale = targets.mean(), targets.std()
    y = torch.tensor((targets - mean) / scale)
    kernel = _Kernel(known.shape[1])
    optimizer = torch.optim.Adam(kernel.parameters(), RATE)
    for _ in range(STEPS):
        loss = kernel.unlikelihood(inputs[0], inputs[1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        factor = kernel.factor(inputs[0], inputs[1])
        between = kernel(inputs[2], inputs[3], inputs[0], inputs[1])
        found = between @ torch.cholesky_solve(y[:, None], factor)
    return mean + scale * found.squeeze(1).numpy()


def spread(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each column by its rank among the known ones, from -1.7 to 1.7."""
    found = np.zeros(values.shape)
    for column in range(values.shape[1]):
        ordered = np.sort(known[:, column])
        sides = [np.searchsorted(ordered, values[:, column], side) for side in ("left", "right")]
        found[:, column] = (sides[0] + sides[1]) / (2 * len(ordered))
    return (found - 0.5) * 3.4


class _Kernel(torch.nn.Module):
    """a ((1 + √3 r) exp(-√3 r) + b exp(-r)) with r² = Σ_k w_k² (x_k - x'_k)² + c² |s - s'|², plus noise."""

    def __init__(self, n_descriptors: int) -> None:
        super().__init__()
        begin = torch.full([n_descriptors], -0.5 * np.log(n_descriptors) - 0.7, dtype=torch.float64)
        self.weights = torch.nn.Parameter(begin)
        # log of c, of the noise, of a and of b
        self.others = torch.nn.Parameter(torch.tensor([0.0, -2.0, 0.0, -1.0], dtype=torch.float64))

    def forward(self, x: Tensor, shares: Tensor, x2: Tensor, shares2: Tensor) -> Tensor:
        a, b = (
            torch.cat([part * self.weights.exp(), s * self.others[0].exp()], 1)
            for part, s in ((x, shares), (x2, shares2))
        )
        square = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
        r = square.clamp(min=1e-10).sqrt()
        smooth = (1 + 3**0.5 * r) * torch.exp(-(3**0.5) * r)
        return self.others[2].exp() * (smooth + self.others[3].exp() * torch.exp(-r))

    def factor(self, x: Tensor, shares: Tensor) -> Tensor:
        noise = self.others[1].exp() * torch.eye(len(x), dtype=x.dtype)
        return torch.linalg.cholesky(self(x, shares, x, shares) + noise)

    def unlikelihood(self, x: Tensor, shares: Tensor, y: Tensor) -> Tensor:
        """The negative logarithm of the likelihood, less a constant, with the penalty of large weights."""
        factor = self.factor(x, shares)
        fit = y @ torch.cholesky_solve(y[:, None], factor).squeeze(1)
        return fit / 2 + factor.diagonal().log().sum() + SPARSITY * (self.weights + 3).relu().sum()
