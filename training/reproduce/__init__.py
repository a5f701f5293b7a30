"""Experiments of papers, run again: grids of runs, tables, figures and pages; `papers` says which."""

from mdpot.training.reproduce.driver import Work, reproduce
from mdpot.training.reproduce.experiments import Selection
from mdpot.training.reproduce.papers import EXPERIMENTS

__all__ = ["EXPERIMENTS", "Selection", "Work", "reproduce"]
