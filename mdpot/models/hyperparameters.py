"""What the hyperparameters of the architectures may be: a type and a range each, beside its name in `__init__`."""

from __future__ import annotations

import inspect
import json
import math
import re
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
SentOrder = Annotated[int, Range(1, 2)]
"""Largest angular momentum of what neighbors send."""
Neighbors = Annotated[float, Range(0.0, 1e6)]
"""Average number of neighbors; counts as 1 below 1."""
Cutoff = Annotated[float, Range(0.1, 100.0)]
"""Å."""

NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
MEASURED = "avg_neighbors"
"""The hyperparameter that a training measures on its frames where the recipe leaves it out."""
NOT_GIVEN = ("self", "n_elements")


@dataclass(frozen=True)
class Hyperparameter:
    """What an architecture takes: an argument of its `__init__`, with what its docstring says of it.

    Attributes:
        kind: its type, with a `Range` or without.
        default: its own value where none is given.
        required: whether one must be given.
        meaning: from the lines under "Args:" in the docstring of the class.
    """

    kind: Any
    default: Any
    required: bool
    meaning: str

    def describe(self, name: str) -> str:
        """Its meaning, what it may be, and what it is where a recipe leaves it out, in a line."""
        kind, limits = _kind_and_range(self.kind)
        if get_origin(kind) is Literal:
            allowed = "one of " + ", ".join(json.dumps(option) for option in get_args(kind))
        else:
            allowed = NOUNS.get(kind, "")
        if limits is not None:
            allowed += f" from {limits.low:g} to {limits.high:g}"
        if name == MEASURED:
            otherwise = "; if left out, it is measured on the training frames"
        elif self.default is None:
            otherwise = "" if self.required else "; if left out, it follows from the others"
        else:
            otherwise = f"; {json.dumps(self.default)} if left out"
        meaning = f"{self.meaning[:1].upper()}{self.meaning[1:]}"
        return f"{meaning} {allowed[:1].upper()}{allowed[1:]}{otherwise}."


def hyperparameters_of(architecture: type) -> dict[str, Hyperparameter]:
    """What an architecture takes, by name, in the order of its `__init__`."""
    init = architecture.__init__
    hints, meanings = get_type_hints(init, include_extras=True), _documented(architecture)
    return {
        name: Hyperparameter(
            hints.get(name, Any),
            None if parameter.default is parameter.empty else parameter.default,
            parameter.default is parameter.empty,
            meanings.get(name, ""),
        )
        for name, parameter in inspect.signature(init).parameters.items()
        if name not in NOT_GIVEN
    }


def complete(architecture: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters with the architecture's own where none is given; those that must be given may be missing."""
    own = {name: one.default for name, one in hyperparameters_of(architecture).items() if not one.required}
    return {**own, **values}


def _documented(architecture: type) -> dict[str, str]:
    """The lines under "Args:" in the docstring of a class, by argument."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in inspect.cleandoc(architecture.__doc__ or "").splitlines():
        if not line.startswith(" "):
            inside = line == "Args:" or (inside and not line)
        elif inside and (start := re.match(r" {4}(\w+): (.+)", line)):
            name = start[1]
            found[name] = start[2]
        elif inside and name:
            found[name] += f" {line.strip()}"
    return found


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
    takes = hyperparameters_of(architecture)
    missing = [name for name, one in takes.items() if one.required and name not in values]
    if missing:
        raise MdpotError(f"model.hyperparameters of {model} lacks {', '.join(missing)}")
    checked = {}
    for name, value in values.items():
        if name not in takes:
            raise unknown(f"hyperparameter of {model}", str(name), takes)
        checked[name] = _checked(name, value, takes[name].kind)
    return checked


def _options(hint: Any) -> tuple[Any, ...]:
    """The types that a type hint joins by |."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _kind_and_range(hint: Any) -> tuple[Any, Range | None]:
    """The type of a hint, None left aside, and its range, if any."""
    kind = next(option for option in _options(hint) if option is not type(None))
    return (get_args(kind)[0], kind.__metadata__[0]) if hasattr(kind, "__metadata__") else (kind, None)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """A value that a type hint allows: int, float or str, with a `Range` or without, or one of some texts; or None."""
    if value is None and type(None) in _options(hint):
        return None
    kind, limits = _kind_and_range(hint)
    if kind is Any:
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(name, str(value), get_args(kind))
        return value
    allowed = (int, float) if kind is float else kind
    noun = NOUNS.get(kind, kind.__name__)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise MdpotError(f"hyperparameter {name} must be {noun}; got {_short(value)}.")
    # Compared as they are: a whole number of many digits has no float.
    if limits is not None and not limits.low <= value <= limits.high:  # type: ignore[operator]
        raise MdpotError(f"hyperparameter {name} must be from {limits.low:g} to {limits.high:g}; got {_short(value)}.")
    return float(value) if kind is float else value  # type: ignore[arg-type]


def _short(value: Any) -> str:
    """A value for a message; Python refuses to write out whole numbers of thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
