"""What is made of a backbone's features."""

from mdpot.heads.build import build_potential, build_property
from mdpot.heads.ensemble import AnyPotential, PotentialEnsemble, PropertyEnsemble, build_ensemble
from mdpot.heads.potential import Potential
from mdpot.heads.property import PropertyModel

__all__ = [
    "AnyPotential",
    "Potential",
    "PotentialEnsemble",
    "PropertyEnsemble",
    "PropertyModel",
    "build_ensemble",
    "build_potential",
    "build_property",
]
