"""How training is stopped: see `mdpot.stopping`."""

from mdpot.stopping import Stopped, StopSignal

__all__ = ["StopSignal", "Stopped"]
