"""Drafts (settings without a recipe) and the resolution of recipe arguments."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from igcv.training.recipe import Recipe
from igcv.training.recipe_file import PLACES, convert, find_recipe, load_recipe


class Draft:
    """Settings without a recipe; `igcv.training.auto` chooses the missing ones from data and machine.

    Args:
        given: values by key.

    Raises:
        InputError: a key is unknown, or a value has the wrong type or range.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = {key: convert(key, value) for key, value in given.items() if value is not None}
        self.recipe = replace(Recipe(), **self.given)

    def filled(self, chosen: Mapping[str, Any]) -> Recipe:
        """Return the recipe of the given and the chosen settings; given settings take precedence."""
        return replace(Recipe(), **{**chosen, **self.given})


def resolve_recipe(recipe: Recipe | Draft | str | Path | None, settings: Mapping[str, Any]) -> Recipe | Draft:
    """Return a recipe with changed settings; without a recipe, return a draft.

    Args:
        recipe: a recipe, a draft, a recipe file or its name; None: a new draft.
        settings: changes, by key.

    Raises:
        InputError: see `find_recipe` and `load_recipe`.
    """
    if recipe is None:
        return Draft(settings)
    if isinstance(recipe, Draft):
        return Draft({**recipe.given, **settings})
    if isinstance(recipe, Recipe):
        settings = {key: getattr(recipe, key) for key in PLACES} | dict(settings)
        return replace(recipe, **{key: convert(key, value) for key, value in settings.items()})
    return load_recipe(find_recipe(str(recipe)), **settings)
