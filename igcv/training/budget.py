"""How long a training goes on: epochs, minutes, and patience with what brings no new best."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from igcv.report.run import comparable, score
from igcv.training.recipe import Recipe
from igcv.training.run import Metrics
from igcv.training.state import State


def ended(state: State, recipe: Recipe, history: Sequence[Metrics]) -> bool:
    """Return whether a run has all its epochs, or none of the last ones (`patience`) brought a new best."""
    if state.epoch >= recipe.epochs or not recipe.patience or not history:
        return state.epoch >= recipe.epochs
    scores = [found for row in comparable(history) if (found := score(row, recipe.best_by)) is not None]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= recipe.patience


def fitted(recipe: Recipe, history: Sequence[Metrics]) -> Recipe:
    """Return the recipe with as many epochs as its minutes allow, by the time of those that are done.

    In the first half of the epochs their number is fitted both ways, later only downwards: then the rate has followed.
    """
    if not recipe.max_minutes:
        return recipe
    done, spent_s = len(history), sum(row["epoch_time_s"] for row in history)
    usual_s = median(row["epoch_time_s"] for row in history)
    left = int((60 * recipe.max_minutes - spent_s) / usual_s)
    epochs = max(done + left, done, sum(recipe.progressive_epochs) + 1)
    if 2 * done > recipe.epochs and done > 1:
        epochs = min(epochs, recipe.epochs)
    return replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 4))


def time_left_s(recipe: Recipe, history: Sequence[Metrics]) -> float:
    """Return the seconds that the epochs after `history` will take, by the pixels of their images."""
    time_s = sum(row["epoch_time_s"] for row in history)
    pixels = sum(recipe.size_at(row["epoch"] - 1) ** 2 for row in history)
    return (
        time_s
        / pixels
        * sum(recipe.size_at(epoch) ** 2 for epoch in range(history[-1]["epoch"], recipe.epochs))
    )
