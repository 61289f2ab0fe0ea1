"""Class imbalance: class weights, the weighted loss, and the check of the settings."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igcv.data import DataSource, StreamImages
from igcv.errors import InputError
from igcv.training.recipe import Recipe


def check_balance(recipe: Recipe, source: DataSource) -> None:
    """Raise InputError if class_weights or sampling contradict each other or do not suit the data."""
    given = [
        f"{key} = balanced" for key in ("class_weights", "sampling") if getattr(recipe, key) == "balanced"
    ]
    if len(given) == 2:
        raise InputError(
            f"got {' and '.join(given)}, expected only one of them: each alone balances the classes. Remove one"
        )
    if given and isinstance(source.train, StreamImages):
        raise InputError(
            f"{given[0]} needs the labels in advance, but '{source.spec}' can only be read as a stream. "
            "Give the images as folder: or rec:, or omit the setting"
        )


def class_weights(recipe: Recipe, source: DataSource, device: torch.device) -> Tensor | None:
    """Return the weight of each class in the loss, shape (classes,); None if all images have equal weight.

    The weight of class c is w_c = N / (C n_c) for N training images, n_c of them in class c, and C classes with images.
    The mean weight of all images is 1. A class without images has weight 0.
    """
    if recipe.class_weights == "none":
        return None
    assert source.train is not None and not isinstance(source.train, StreamImages)
    counts = np.bincount(source.train.labels, minlength=len(source.class_names))
    found = counts > 0
    weights = np.where(found, counts.sum() / (found.sum() * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights).to(device, torch.float32)


def cross_entropy(
    logits: Tensor, targets: Tensor, smoothing: float, weights: Tensor | None, mixed: bool
) -> Tensor:
    """Return the class-weighted mean cross-entropy of a batch, in nats.

    The mean is over the number of images, not their weights: micro-batches and processes then add up to the whole
    batch. An image that mixes classes a and b in the shares s and 1 - s has the loss s w_a L_a + (1 - s) w_b L_b. Label
    smoothing has the weight of the image; with the weight of each class, it would favor the rare classes everywhere.

    Args:
        logits: shape (N, classes).
        targets: labels (N,), or the smoothed class shares of mixed images (N, classes).
        smoothing: share of the target spread over all classes.
        weights: weight of each class, shape (classes,); None: all 1.
        mixed: whether `targets` holds class shares.
    """
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=0.0 if mixed else smoothing)
    classes = logits.shape[1]
    even = smoothing / classes
    shares = (targets - even) / (1 - smoothing) if mixed else F.one_hot(targets, classes)
    weighted = shares * weights.to(logits.dtype)
    return F.cross_entropy(logits, (1 - smoothing) * weighted + even * weighted.sum(1, keepdim=True))
