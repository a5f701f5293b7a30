"""Why there is no kernel, or no number."""

from __future__ import annotations

from mdpot.errors import MdpotError


class NoKernel(MdpotError):
    """This potential has no fused kernel here: of another architecture or size, or without the compiled library."""


class NotFinite(MdpotError):
    """Positions, a cell, weights or atoms too near each other make numbers that are none."""
