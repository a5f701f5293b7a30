"""The architectures by name."""

from mdpot.models.backbone import AtomEmbedding, Backbone
from mdpot.models.egnn import EGNN
from mdpot.models.forcenet import ForceNet
from mdpot.models.gns import GNS
from mdpot.models.tide import Tide

MODELS: dict[str, type[Backbone]] = {"tide": Tide, "egnn": EGNN, "gns": GNS, "forcenet": ForceNet}

__all__ = ["EGNN", "GNS", "MODELS", "AtomEmbedding", "Backbone", "ForceNet", "Tide"]
