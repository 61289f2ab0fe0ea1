"""Interface of a session: a network in an inference engine, which classifies arrays of images."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

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
