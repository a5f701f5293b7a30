"""Where frames come from and how they become batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdpot.training.data.readers.pyg import from_pyg

__all__ = ["from_pyg"]


def __getattr__(name: str) -> Any:
    if name == "from_pyg":  # imported when it is used: a module of this package is often all that is wanted
        from mdpot.training.data.readers.pyg import from_pyg

        return from_pyg
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
