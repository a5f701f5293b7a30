"""The experiments of the masked-pretraining paper, and some it lacks: grids of runs, tables and figures."""

from mdpot.training.reproduce.driver import Work, reproduce
from mdpot.training.reproduce.papers.masked.experiments import EXPERIMENTS, Settings

__all__ = ["EXPERIMENTS", "Settings", "Work", "reproduce"]
