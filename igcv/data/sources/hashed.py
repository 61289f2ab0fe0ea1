"""Validation split by the hash of each image's name, independent of the other images."""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHARE = 0.2  # expected fraction of names in the validation part
TRAIN, VAL, FREE = 0, 1, -1  # the first two as in `igcv.data.sources.listed.PARTS`


class HeldOut(NamedTuple):
    """Result of `hold_out`.

    Attributes:
        parts: TRAIN or VAL for each image, or its fixed part; int64 of shape (n,).
        helped: labels of the classes without a hash below `SHARE`, which got a validation image by their lowest hash.
    """

    parts: np.ndarray
    helped: list[int]


def place(name: str, salt: str = "") -> float:
    """Return the hash of a name as a fraction from 0 to 1: the first 8 bytes of its SHA-256.

    Args:
        name: the image's name relative to its source, with '/', hashed in UTF-8 with composed characters (NFC).
        salt: prefix of the name, for another split.

    >>> round(place("cat/1.jpg"), 4)
    0.3878
    """
    text = salt + unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(
    units: Sequence[str], labels: np.ndarray, salt: str = "", fixed: np.ndarray | None = None
) -> HeldOut:
    """Assign images with a hash below `SHARE` to validation, and the others to training.

    A class without a validation image holds out the image with its lowest hash. A class without a training image keeps
    the image with its highest hash for training. The only image of a class is used for training.

    Args:
        units: the hashed name of each image: its own name, or the name of its group, whose images stay together.
        labels: the class of each image, shape (n,).
        salt: see `place`.
        fixed: the part of each image that already has one, else FREE; None: all images are free.
    """
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    ids = np.fromiter((numbers[unit] for unit in units), np.int64, len(units))
    places = np.array([place(unit, salt) for unit in numbers])[ids] if numbers else np.empty(0)
    parts = np.full(len(units), FREE) if fixed is None else fixed.copy()
    free = parts == FREE
    parts[free] = places[free] < SHARE
    members = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
    for images in members.values():
        if TRAIN not in parts[images] and free[images].any():
            own = images[free[images]]
            parts[ids == ids[own[places[own].argmax()]]] = TRAIN
    helped = []
    for label, images in members.items():
        own = images[free[images] & (parts[images] == TRAIN)]
        if VAL in parts[images]:
            continue
        for image in own[places[own].argsort()]:
            unit = ids == ids[image]
            parts[unit] = VAL
            if all(TRAIN in parts[members[int(touched)]] for touched in np.unique(labels[unit])):
                helped.append(label)
                break
            parts[unit] = TRAIN
    return HeldOut(parts, helped)
