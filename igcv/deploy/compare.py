"""Comparison of an exported file with the trained network, which the file must pass."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from igcv.engines.session import Session
from igcv.errors import InputError

TIMES_FLOAT32 = 20  # tolerance, as a multiple of PyTorch's own float32 error
LEAST = 1e-4  # smallest tolerance, relative to the largest logit


@dataclass(frozen=True)
class Comparison:
    """Comparison of an engine's logits with the logits of the trained network in float64.

    Attributes:
        images: number of images.
        error: largest difference, relative to the largest logit.
        float32_error: the same error for the trained network in PyTorch's float32.
        agreement: fraction of images with the same top-1 class, 0 to 1.
    """

    images: int
    error: float
    float32_error: float
    agreement: float

    @property
    def limit(self) -> float:
        """The largest allowed `error` of a float32 file; larger for networks that amplify rounding errors."""
        return max(LEAST, TIMES_FLOAT32 * self.float32_error)


@torch.inference_mode()
def compare(
    network: nn.Module, session: Session, images: np.ndarray, given: np.ndarray | None = None
) -> Comparison:
    """Compare the logits of a session with the logits of the trained network.

    Args:
        network: the trained network.
        session: the session of the exported file.
        images: input of the network, float32 (N, 3, S, S).
        given: the same images in the input format of the session; None: `images`.
    """
    inputs = torch.from_numpy(images)
    exact = deepcopy(network).double()(inputs.double()).numpy()
    plain = network(inputs).numpy()
    found = session.bind(images if given is None else given)()
    if found.shape != exact.shape:
        raise InputError(
            f"logits of the engine: got shape {found.shape}, expected {exact.shape}. Choose another form"
        )
    scale = max(float(np.abs(exact).max()), 1e-12)
    return Comparison(
        len(images),
        _largest(found - exact) / scale,
        _largest(plain - exact) / scale,
        float((found.argmax(1) == exact.argmax(1)).mean()),
    )


def _largest(differences: np.ndarray) -> float:
    """Return the largest absolute value, or infinity if a value is NaN or infinite."""
    largest = float(np.abs(differences).max())
    return largest if np.isfinite(largest) else float("inf")
