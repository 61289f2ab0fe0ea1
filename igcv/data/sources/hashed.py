"""Which images validate, by the hash of their names: no other image has a say in it."""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHARE = 0.2  # of the names, in the long run, validate
TRAIN, VAL, FREE = 0, 1, -1  # the first two as in `igcv.data.sources.listed.PARTS`


class HeldOut(NamedTuple):
    """What hashes decide.

    Attributes:
        parts: TRAIN or VAL for each image, or what was fixed before; int64 of shape (n,).
        helped: labels of the classes that no hash gave a validation image, so that they give one.
    """

    parts: np.ndarray
    helped: list[int]


def place(name: str, salt: str = "") -> float:
    """Return where a name stands from 0 to 1: the first 8 bytes of its SHA-256 as a fraction.

    Args:
        name: the image's name relative to its source, with '/', hashed in UTF-8 with composed characters (NFC).
        salt: text in front of it, for another split.

    >>> round(place("cat/1.jpg"), 4)
    0.3878
    """
    text = salt + unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(
    units: Sequence[str], labels: np.ndarray, salt: str = "", fixed: np.ndarray | None = None
) -> HeldOut:
    """Give every image a part by its hash: it validates where that lies below `SHARE`.

    A class without a validation image gives the image of its lowest hash, a class without a training image takes back
    that of its highest. A class's only image trains.

    Args:
        units: what is hashed for each image: its name, or the name of its group, whose images stay together.
        labels: the class of each image, shape (n,).
        salt: see `place`.
        fixed: the part of each image that has one already, else FREE; None: all are free.
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
