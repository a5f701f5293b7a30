"""The recipes that come along, one TOML file each."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

RECIPES = Path(__file__).resolve().parent


def shipped_recipes() -> dict[str, Path]:
    """The files by name. One that lists `members` is a recipe for each of them."""
    found = {}
    for path in sorted(RECIPES.glob("*.toml")):
        members = tomllib.loads(path.read_text(encoding="utf-8")).get("members")
        found |= {path.stem: path} if members is None else {f"{path.stem}-{member}": path for member in members}
    return dict(sorted(found.items()))
