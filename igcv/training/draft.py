"""Settings without a recipe, and what a caller may give as a recipe."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from igcv.training.recipe import Recipe
from igcv.training.recipe_file import PLACES, convert, find_recipe, load_recipe


class Draft:
    """Settings without a recipe; those that are not given follow from data and machine (see igcv.training.auto).

    Args:
        given: values by key.

    Raises:
        InputError: for an unknown key or a value of the wrong type or range.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = {key: convert(key, value) for key, value in given.items() if value is not None}
        self.recipe = replace(Recipe(), **self.given)

    def filled(self, chosen: Mapping[str, Any]) -> Recipe:
        """Return the recipe of what is given and what was chosen."""
        return replace(Recipe(), **{**chosen, **self.given})


def resolve_recipe(recipe: Recipe | Draft | str | Path | None, settings: Mapping[str, Any]) -> Recipe | Draft:
    """Return a recipe, or the one in a file, with changes by key; without any a draft.

    Raises:
        InputError: as `find_recipe` and `load_recipe`.
    """
    if recipe is None:
        return Draft(settings)
    if isinstance(recipe, Draft):
        return Draft({**recipe.given, **settings})
    if isinstance(recipe, Recipe):
        settings = {key: getattr(recipe, key) for key in PLACES} | dict(settings)
        return replace(recipe, **{key: convert(key, value) for key, value in settings.items()})
    return load_recipe(find_recipe(str(recipe)), **settings)
