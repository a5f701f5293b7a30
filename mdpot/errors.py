"""The errors a user can cause, in one shape: what was given, the rule, the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MdpotError(ValueError):
    """Bad input. The command line prints its message in one line and exits with code 2."""


def name_elements(numbers: Iterable[int]) -> str:
    """Elements by their symbols, "H, O"; what is no atomic number, by its number."""
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in numbers)


def unknown(what: str, name: object, options: Iterable[str]) -> MdpotError:
    """The error for a name that is not among `options`, with the closest one suggested.

    Args:
        what: what the name stands for, e.g. "recipe".
        name: what came, of any type.
        options: the names there are.

    Returns:
        The error, to be raised by the caller.
    """
    known = sorted(set(options))
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return MdpotError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}.")
