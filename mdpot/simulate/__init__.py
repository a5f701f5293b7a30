"""Running molecular dynamics and analyzing it."""

from mdpot.simulate.box import water_box
from mdpot.simulate.engine import Dynamics, State
from mdpot.simulate.rdf import Radial, radial_distributions
from mdpot.simulate.run import resume_md, run_md
from mdpot.simulate.settings import Settings
from mdpot.simulate.summary import Summary
from mdpot.simulate.trajectory import read_trajectory
from mdpot.simulate.watch import Limits

__all__ = [
    "Dynamics",
    "Limits",
    "Radial",
    "Settings",
    "State",
    "Summary",
    "radial_distributions",
    "read_trajectory",
    "resume_md",
    "run_md",
    "water_box",
]
