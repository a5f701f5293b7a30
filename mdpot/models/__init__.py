"""The architectures by name."""

from mdpot.models.egnn import EGNN
from mdpot.models.forcenet import ForceNet
from mdpot.models.gns import GNS
from mdpot.models.tide import Tide

MODELS = {"tide": Tide, "egnn": EGNN, "gns": GNS, "forcenet": ForceNet}

__all__ = ["EGNN", "GNS", "MODELS", "ForceNet", "Tide"]
