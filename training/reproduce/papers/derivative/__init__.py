"""Jia, Parthasarathy, Feng, Cong, Zhang, Fung, "Derivative-based pre-training of graph neural networks"."""

from mdpot.training.reproduce.papers.derivative.experiments import EXPERIMENTS

__all__ = ["EXPERIMENTS"]
