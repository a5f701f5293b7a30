"""Zhang, Li, Barati Farimani, "Masked pretraining strategy for neural potentials"; and experiments it lacks."""

from mdpot.training.reproduce.papers.masked.experiments import EXPERIMENTS

__all__ = ["EXPERIMENTS"]
