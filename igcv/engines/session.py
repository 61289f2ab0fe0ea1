"""What a session is: a network in an inference engine, ready to classify arrays of images."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

Inference = Callable[[], np.ndarray]
"""A bound call: logits (N, num_classes) float32 of the images that it was made for."""


class Session(Protocol):
    """A network, ready to run in an engine.

    It takes images (N, 3, S, S) float32, or uint8 (N, S, S, 3) where preprocessing is inside.
    """

    card: str
    """The igcv card in the metadata of the file that was opened; empty where there is none."""

    def bind(self, images: np.ndarray) -> Inference:
        """A function that classifies `images`, which are in the engine's own layout already."""
        ...
