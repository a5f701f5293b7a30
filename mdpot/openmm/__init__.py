"""Potentials as forces for OpenMM. Importing this needs no OpenMM; using it does."""

from mdpot.openmm.backends import BACKENDS, choose_backend
from mdpot.openmm.forces import create_force, create_system

__all__ = ["BACKENDS", "choose_backend", "create_force", "create_system"]
