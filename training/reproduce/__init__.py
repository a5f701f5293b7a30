"""The experiments of the masked-pretraining paper, and some it lacks: grids of runs, tables and figures."""

from mdpot.training.reproduce.experiments import EXPERIMENTS, Settings
from mdpot.training.reproduce.run import Work, reproduce

__all__ = ["EXPERIMENTS", "Settings", "Work", "reproduce"]
