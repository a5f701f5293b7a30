"""What pydantic complains of in a recipe, said in one line."""

from __future__ import annotations

from pydantic import ValidationError

from mdpot.training.schema import Recipe, Section, section_of


def one_line(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line; all of them of a key that may hold one thing or another."""
    first, *others = error.errors()
    place = _place_of(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "value_error":
        return f"in [{place}]: {message}" if place else message
    or_else = [other["msg"].removeprefix("Input should be") for other in others if _place_of(other["loc"]) == place]
    return f"{place}: {' or'.join([message[0].lower() + message[1:], *or_else])}, got {first['input']!r}"


def _place_of(location: tuple[int | str, ...]) -> str:
    """The key that a complaint of pydantic is about, without what it calls the kinds of values that this may hold."""
    section: type[Section] | None = Recipe
    parts = []
    for part in location:
        if section is None and not isinstance(part, int):
            break
        parts.append(str(part))
        field = section.model_fields.get(str(part)) if section is not None else None
        section = None if field is None else section_of(field.annotation)
    return ".".join(parts)
