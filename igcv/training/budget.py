"""How long a training goes on: epochs, minutes, and patience with what brings no new best."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

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
    pixel_s = median(row["epoch_time_s"] / pixels(recipe, row["epoch"] - 1) for row in history)
    epochs = epochs_within(recipe, 60 * recipe.max_minutes - spent_s, pixel_s, done)
    epochs = max(epochs, fewest_epochs(vars(recipe)))
    if 2 * done > recipe.epochs and done > 1:
        epochs = max(min(epochs, recipe.epochs), done)
    return replace(recipe, epochs=epochs, warmup_epochs=min(recipe.warmup_epochs, epochs / 4))


def epochs_within(recipe: Recipe, seconds: float, pixel_s: float, done: int = 0) -> int:
    """Return how many epochs are done after so many seconds more.

    Args:
        recipe: of the training, with the sizes of its images.
        seconds: that are left.
        pixel_s: seconds of an epoch on images of one pixel; its time grows with the pixels.
        done: epochs that are done before.
    """
    while (seconds := seconds - pixel_s * pixels(recipe, done)) >= 0:
        done += 1
    return done


def fewest_epochs(settings: Mapping[str, Any]) -> int:
    """Return how many epochs some settings of a recipe need for image sizes and for frozen layers."""
    return max(sum(settings.get("progressive_epochs", ())), settings.get("freeze", 0)) + 1


def pixels(recipe: Recipe, epoch: int) -> int:
    """Return the pixels of an image in `epoch`, counted from 0."""
    return max(recipe.size_at(epoch), 1) ** 2


def time_left_s(recipe: Recipe, history: Sequence[Metrics]) -> float:
    """Return the seconds that the epochs after `history` will take, by the pixels of their images."""
    time_s = sum(row["epoch_time_s"] for row in history)
    seen = sum(pixels(recipe, row["epoch"] - 1) for row in history)
    return time_s / seen * sum(pixels(recipe, epoch) for epoch in range(history[-1]["epoch"], recipe.epochs))
