"""Length of a training: epochs, time limit and early stopping."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from igcv.report.run import comparable, score
from igcv.training.recipe import Recipe
from igcv.training.run import Metrics
from igcv.training.state import State


def ended(state: State, recipe: Recipe, history: Sequence[Metrics]) -> bool:
    """Return whether a run has all its epochs, or its last `patience` epochs brought no new best."""
    if state.epoch >= recipe.epochs or not recipe.patience or not history:
        return state.epoch >= recipe.epochs
    scores = [found for row in comparable(history) if (found := score(row, recipe.best_by)) is not None]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= recipe.patience


def fitted(recipe: Recipe, history: Sequence[Metrics]) -> Recipe:
    """Return the recipe with the number of epochs that fits into its max_minutes, from the time of finished epochs.

    In the first half of a run, the number can grow or shrink. Later it only shrinks, because the learning rate has
    already decayed.
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
    """Return the total number of epochs that are finished after `seconds` more.

    Args:
        recipe: the recipe, with resolved image sizes.
        seconds: the remaining seconds.
        pixel_s: seconds per epoch and pixel of an image; the time of an epoch is proportional to the pixels.
        done: epochs finished so far.
    """
    while (seconds := seconds - pixel_s * pixels(recipe, done)) >= 0:
        done += 1
    return done


def fewest_epochs(settings: Mapping[str, Any]) -> int:
    """Return the fewest epochs that progressive_epochs and freeze allow."""
    return max(sum(settings.get("progressive_epochs", ())), settings.get("freeze", 0)) + 1


def pixels(recipe: Recipe, epoch: int) -> int:
    """Return the pixels per image in `epoch` (from 0)."""
    return max(recipe.size_at(epoch), 1) ** 2


def time_left_s(recipe: Recipe, history: Sequence[Metrics]) -> float:
    """Return the expected seconds of the epochs after `history`, in proportion to the pixels of their images."""
    time_s = sum(row["epoch_time_s"] for row in history)
    seen = sum(pixels(recipe, row["epoch"] - 1) for row in history)
    return time_s / seen * sum(pixels(recipe, epoch) for epoch in range(history[-1]["epoch"], recipe.epochs))
