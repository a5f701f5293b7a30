"""What a budget is: a preset of the recipes, and what it changes by recipe and model."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

Rule = tuple[str, str, tuple[str, ...]]
"""A pattern of recipes, a pattern of models, and what they override; later rules win."""


@dataclass(frozen=True)
class Budget:
    """How long the runs of a paper's experiments train, and with which sizes.

    Attributes:
        preset: of every recipe.
        rules: overrides by recipe and model.
    """

    preset: str
    rules: tuple[Rule, ...]

    def overrides(self, recipe: str, model: str) -> list[str]:
        """The "key=value" that hold for a recipe with a model, in the order in which they apply."""
        found = [keys for recipes, models, keys in self.rules if fnmatch(recipe, recipes) and fnmatch(model, models)]
        return [key for keys in found for key in keys]
