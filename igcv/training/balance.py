"""Unequal classes: the weight of each class in the loss, and which settings fit the data."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igcv.data import DataSource, StreamImages
from igcv.errors import InputError
from igcv.training.recipe import Recipe


def check_balance(recipe: Recipe, source: DataSource) -> None:
    """Raise InputError where class_weights or sampling do not fit each other or the data."""
    given = [
        f"{key} = balanced" for key in ("class_weights", "sampling") if getattr(recipe, key) == "balanced"
    ]
    if len(given) == 2:
        raise InputError(
            f"got {' and '.join(given)}, expected one of them: each alone makes all classes count equally. "
            "Leave one out"
        )
    if given and isinstance(source.train, StreamImages):
        raise InputError(
            f"{given[0]}, but {source.spec} can only be read as a stream, which does not tell its labels before. "
            "Give the images as folder: or rec:, or leave the setting out"
        )


def class_weights(recipe: Recipe, source: DataSource, device: torch.device) -> Tensor | None:
    """Return the weight of each class in the loss, (classes,); None where all images count equally.

    Of N training images n_c are of class c, and C classes have any: w_c = N / (C n_c), so that the weights of all
    images have the mean 1. A class without images has the weight 0.
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
    """Return the mean loss of some images, each with the weight of its class; nats.

    The mean is over the number of images, so that parts of a batch and processes add up to the whole batch. An image
    that mixes classes a and b in the shares s and 1 - s has the loss s w_a L_a + (1 - s) w_b L_b. The label smoothing
    of an image has the weight of the image: with that of each class it would teach the rare classes everywhere.

    Args:
        logits: (N, classes).
        targets: labels (N,), or of mixed images smoothed shares (N, classes).
        smoothing: share of the target that is spread over all classes.
        weights: of each class, (classes,); None for 1.
        mixed: whether the targets are shares.
    """
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=0.0 if mixed else smoothing)
    classes = logits.shape[1]
    even = smoothing / classes
    shares = (targets - even) / (1 - smoothing) if mixed else F.one_hot(targets, classes)
    weighted = shares * weights.to(logits.dtype)
    return F.cross_entropy(logits, (1 - smoothing) * weighted + even * weighted.sum(1, keepdim=True))
