"""The architectures by name."""

from mdpot.models.backbone import AtomEmbedding, Backbone
from mdpot.models.cgcnn import CGCNN
from mdpot.models.egnn import EGNN
from mdpot.models.et import ET
from mdpot.models.forcenet import ForceNet
from mdpot.models.gns import GNS
from mdpot.models.tide import Tide

MODELS: dict[str, type[Backbone]] = {
    "tide": Tide,
    "egnn": EGNN,
    "gns": GNS,
    "forcenet": ForceNet,
    "cgcnn": CGCNN,
    "et": ET,
}

__all__ = ["CGCNN", "EGNN", "ET", "GNS", "MODELS", "AtomEmbedding", "Backbone", "ForceNet", "Tide"]
