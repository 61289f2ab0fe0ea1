"""Whether two ways to compute a network agree: what is shown, and demanded, before a file counts as written."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from igcv.engines.session import Session
from igcv.errors import InputError

TIMES_FLOAT32 = 20  # an engine may be off by so many times PyTorch's own float32 error, and at least by LEAST
LEAST = 1e-4  # relative to the largest logit


@dataclass(frozen=True)
class Comparison:
    """An engine's logits beside those of the trained network in float64.

    Attributes:
        images: how many were compared.
        error: largest difference, as a share of the largest logit.
        float32_error: the same for the trained network in PyTorch's float32.
        agreement: share of images with the same most probable class, 0 to 1.
    """

    images: int
    error: float
    float32_error: float
    agreement: float

    @property
    def limit(self) -> float:
        """The largest `error` of a correct float32 network; one that amplifies rounding is allowed for."""
        return max(LEAST, TIMES_FLOAT32 * self.float32_error)


@torch.inference_mode()
def compare(
    network: nn.Module, session: Session, images: np.ndarray, given: np.ndarray | None = None
) -> Comparison:
    """Compare an engine with the trained network.

    Args:
        network: the trained network.
        session: the engine.
        images: float32 (N, 3, S, S), the network's input.
        given: what the session takes for the same images, where that is not `images`.
    """
    inputs = torch.from_numpy(images)
    exact = deepcopy(network).double()(inputs.double()).numpy()
    plain = network(inputs).numpy()
    found = session.bind(images if given is None else given)()
    if found.shape != exact.shape:
        raise InputError(f"the engine gives logits of {found.shape} where the network gives {exact.shape}")
    scale = max(float(np.abs(exact).max()), 1e-12)
    return Comparison(
        len(images),
        _largest(found - exact) / scale,
        _largest(plain - exact) / scale,
        float((found.argmax(1) == exact.argmax(1)).mean()),
    )


def _largest(differences: np.ndarray) -> float:
    """The largest absolute value; infinity where one is no number."""
    largest = float(np.abs(differences).max())
    return largest if np.isfinite(largest) else float("inf")
