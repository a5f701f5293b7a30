"""Why there is no kernel, or no number."""

from __future__ import annotations

from mdpot.errors import MdpotError


class NoKernel(MdpotError):
    """This potential has no fused kernel here: of another architecture or size, or without the compiled library."""


class NotFinite(MdpotError):
    """Positions or a cell that hold NaN or infinity."""


class Clash(MdpotError):
    """Forces that are not finite: atoms on top of each other, or weights that have diverged."""
