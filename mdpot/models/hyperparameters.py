"""What the hyperparameters of the architectures may be: a type and a range each, beside its name in `__init__`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mdpot.errors import MdpotError, unknown


@dataclass(frozen=True)
class Range:
    """The values that a number may take, both ends included."""

    low: float
    high: float


Width = Annotated[int, Range(1, 4096)]
"""Features, channels, hidden units."""
Count = Annotated[int, Range(1, 256)]
"""Layers, radial functions, basis functions."""
Order = Annotated[int, Range(1, 3)]
"""Largest angular momentum."""
Neighbors = Annotated[float, Range(0.0, 1e6)]
"""Average number of neighbors; counts as 1 below 1."""
Cutoff = Annotated[float, Range(0.1, 100.0)]
"""Å."""

NOT_GIVEN = ("self", "n_elements")


def check_hyperparameters(model: str, architecture: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of an architecture, checked by name, type and range against its `__init__`.

    Args:
        model: its name.
        architecture: its class.
        values: by name; what is left out keeps the architecture's own.

    Returns:
        The values, whole numbers that stand for others as float.

    Raises:
        MdpotError: an unknown name or one that is missing, a value of another type or out of range.
    """
    init = architecture.__init__
    hints = get_type_hints(init, include_extras=True)
    takes = {name: p for name, p in inspect.signature(init).parameters.items() if name not in NOT_GIVEN}
    missing = [name for name, parameter in takes.items() if parameter.default is parameter.empty and name not in values]
    if missing:
        raise MdpotError(f"model.hyperparameters of {model} lacks {', '.join(missing)}")
    checked = {}
    for name, value in values.items():
        if name not in takes:
            raise unknown(f"hyperparameter of {model}", str(name), takes)
        checked[name] = _checked(name, value, hints.get(name, Any))
    return checked


def _checked(name: str, value: Any, hint: Any) -> Any:
    """A value that a type hint allows: int, float or str, with a `Range` or without, or one of some texts; or None."""
    is_union = get_origin(hint) in (Union, UnionType)
    options = get_args(hint) if is_union else (hint,)
    if value is None and type(None) in options:
        return None
    kind, limits = next(option for option in options if option is not type(None)), None
    if hasattr(kind, "__metadata__"):
        kind, limits = get_args(kind)[0], kind.__metadata__[0]
    if kind is Any:
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(name, str(value), get_args(kind))
        return value
    allowed = (int, float) if kind is float else kind
    noun = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(kind, kind.__name__)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise MdpotError(f"hyperparameter {name} must be {noun}; got {_short(value)}.")
    # Compared as they are: a whole number of many digits has no float.
    if limits is not None and not limits.low <= value <= limits.high:
        raise MdpotError(f"hyperparameter {name} must be from {limits.low:g} to {limits.high:g}; got {_short(value)}.")
    return float(value) if kind is float else value  # type: ignore[arg-type]


def _short(value: Any) -> str:
    """A value for a message; Python refuses to write out whole numbers of thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
