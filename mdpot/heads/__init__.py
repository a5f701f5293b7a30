"""What is made of a backbone's features."""

from mdpot.heads.build import build_potential
from mdpot.heads.potential import Potential

__all__ = ["Potential", "build_potential"]
