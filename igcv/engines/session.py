"""Interface of a session: a network in an inference engine, which classifies arrays of images."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from igcv.errors import InputError

INPUT, OUTPUT = "images", "logits"  # names in exported files

Inference = Callable[[], np.ndarray]
"""Function that returns the logits, float32 (N, num_classes), of the images given to `Session.bind`."""


class Session(Protocol):
    """Network in an inference engine.

    A session takes float32 images (N, 3, S, S), or uint8 images (N, S, S, 3) if the file includes the preprocessing.
    """

    card: str
    """The igcv card in the metadata of the file; empty if the file has none."""

    def bind(self, images: np.ndarray) -> Inference:
        """Return a function that classifies `images`. Binding converts them to the layout of the engine."""
        ...


def check_images(images: np.ndarray, shape: tuple[int, ...], pixels: bool) -> None:
    """Raise InputError unless an array has the type and the shape that a file takes.

    Some engines crash or compute wrong numbers on other arrays.

    Args:
        images: the array.
        shape: shape of one image.
        pixels: whether the file takes uint8 images, not float32.
    """
    type = np.dtype(np.uint8 if pixels else np.float32)
    if images.dtype != type or images.shape[1:] != shape or not len(images):
        expected = f"{type} (N, {', '.join(map(str, shape))})"
        raise InputError(f"images: got {images.dtype} {images.shape}, expected {expected} with N >= 1")


def in_batches(images: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return images in contiguous batches of a fixed size. The last image fills the last batch.

    >>> [part.tolist() for part in in_batches(np.arange(5), 2)]
    [[0, 1], [2, 3], [4, 4]]
    """
    index = np.arange(0, len(images), batch)[:, None] + np.arange(batch)
    return [np.ascontiguousarray(images[row]) for row in index.clip(max=len(images) - 1)]
