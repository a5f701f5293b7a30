"""The papers whose experiments are run again: a folder each, and one entry here."""

from mdpot.training.reproduce.experiments import Experiment
from mdpot.training.reproduce.papers import derivative, masked

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (*masked.EXPERIMENTS, *derivative.EXPERIMENTS)
}
"""Those of all papers, by the names that the command line takes."""
