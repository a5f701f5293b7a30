"""Denoising pretraining on a batch: noise on the positions, and the neighbor lists that belong to them."""

from __future__ import annotations

import torch
from torch import Tensor

from mdpot.graph import Graph
from mdpot.training.data.store import Batch
from mdpot.training.objectives.objective import VECTORS, Prediction, Score, cosine_similarity, sum_of
from mdpot.training.schema import PretrainConfig


def add_noise(batch: Batch, sigma: float, cutoff: float, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Moves every atom by Gaussian noise (masked pretraining paper, section 2.3).

    The edges are those of the moved atoms, found anew on the CPU: the noise has no largest value, so no list made
    before would be sure to hold them, and a far longer one would cost more than the search.

    Args:
        batch: structures.
        sigma: standard deviation of the noise on each coordinate, Å.
        cutoff: of the neighbor lists, Å.
        generator: source of randomness, on the device of the batch.

    Returns:
        The batch with its atoms moved by sigma · noise and with new neighbor lists; its labels, which belong to the old
        positions, are left as they were. And the noise [n_atoms, 3], in units of sigma.
    """
    graph = batch.graph
    noise = torch.randn(
        graph.positions.shape, generator=generator, dtype=graph.positions.dtype, device=graph.positions.device
    )
    moved = graph.replace(positions=graph.positions + sigma * noise)
    return batch.replace(graph=find_edges(moved, cutoff), whole=batch.whole + sigma * noise), noise


def find_edges(graph: Graph, cutoff: float) -> Graph:
    """The same structures with the neighbor lists, out to `cutoff` (Å), of where their atoms are now."""
    found = Graph.from_atoms(graph.to_atoms(), cutoff, graph.positions.dtype)
    device = graph.positions.device
    return graph.replace(edge_index=found.edge_index.to(device), shifts=found.shifts.to(device))


class Denoising:
    """Predict the noise ξ that was added to the positions (eqs. 7, 8 of the paper).

    The network predicts the way back, -ξ, in units of σ: a force points against the noise, as -∂E/∂x of the energy
    E = -log p, of which the best prediction is the gradient, is -ξ/σ² (Vincent, Neural Computation 23, 1661, 2011); and
    so does the vector of a network that predicts forces directly. In these units the target has unit variance whatever
    σ is, and a prediction of zero costs 1: the loss is the mean squared error over all components, in σ². The mean of
    the noise over a structure, which no network can see, stays in it. `gamma` is the γ of eq. 5 of the paper on
    derivative-based pretraining, -γ ∂U/∂x, whose public code has the sign of the noise the other way; its loss is the
    norm of the error, here its square.

    Args:
        config: sigma, gamma and vector of the recipe's pretraining stage.
        cutoff: of the network, Å.
    """

    def __init__(self, config: PretrainConfig, cutoff: float) -> None:
        self.sigma, self.gamma, self.cutoff = config.sigma, config.gamma, cutoff
        self.vector = VECTORS[config.vector]
        self.outputs = ["interaction", self.vector]

    def at(self, done: float) -> Denoising:
        return self

    def prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor]:
        noisy, noise = add_noise(batch, self.sigma, self.cutoff, generator)
        return noisy, -noise

    def score(self, prediction: Prediction, target: Tensor) -> Score:
        vector = self.gamma * prediction[self.vector]
        total, count = sum_of((vector - target).square())
        # Eq. 8 of the masked-pretraining paper, eq. 5 of the derivative-based one; the second term gives it a gradient
        # where no atom has a neighbor.
        terms = {"noise": (total + 0.0 * prediction["interaction"].sum(), count)}
        return Score(terms, {"cosine": sum_of(cosine_similarity(vector, target).detach().double())})
