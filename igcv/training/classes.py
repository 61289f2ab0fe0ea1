"""Checks of the classes: at least two, each with training images, at least one of them readable."""

from collections.abc import Collection

import numpy as np

from igcv.data import DataSource, StreamImages
from igcv.errors import InputError, some
from igcv.training.recipe import Recipe


def check_classes(recipe: Recipe, source: DataSource) -> None:
    """Raise InputError for a single class, or for a class without training images in a split list."""
    if len(source.class_names) < 2:
        raise InputError(
            f"'{source.spec}' has one class ({', '.join(source.class_names)}), expected two or more. Give a folder "
            "with one folder per class, or a list with the labels of two classes"
        )
    if recipe.split and (untrained := untrained_classes(source)):
        raise InputError(
            f"{recipe.split}: class{'es' * (len(untrained) > 1)} without training images: {some(untrained)}, expected "
            "at least one each. Give some of their images the split train, or remove their lines"
        )


def untrained_classes(source: DataSource) -> list[str]:
    """Return the classes without training images; empty for streams, whose labels are unknown in advance."""
    if source.train is None or isinstance(source.train, StreamImages):
        return []
    counts = np.bincount(source.train.labels, minlength=len(source.class_names))
    return [name for name, count in zip(source.class_names, counts, strict=True) if not count]


def check_readable(source: DataSource, bad: Collection[str]) -> None:
    """Raise InputError if all training images of a class are unreadable.

    Args:
        source: the data.
        bad: the names of the unreadable images.
    """
    images = source.train
    if not bad or images is None or isinstance(images, StreamImages):
        return
    order = np.argsort(images.labels, kind="stable")
    bounds = np.searchsorted(images.labels[order], np.arange(len(source.class_names) + 1))
    for name, start, end in zip(source.class_names, bounds[:-1], bounds[1:], strict=True):
        if end > start and all(images.name(int(i)) in bad for i in order[start:end]):
            raise InputError(
                f"all {end - start} training images of the class '{name}' are unreadable, expected at least one "
                f"readable image; the first: {images.name(int(order[start]))}. Replace them, or remove the class"
            )
