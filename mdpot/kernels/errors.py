"""Why there is no kernel."""

from __future__ import annotations

from mdpot.errors import MdpotError


class NoKernel(MdpotError):
    """This potential has no fused kernel here: of another architecture or size, or without the compiled library."""
