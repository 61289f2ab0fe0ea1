"""Whether two ways to compute a network agree: what is shown, and demanded, before a file counts as written."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from igcv.data import DataSource, Finish, Preprocessing, plain_transform
from igcv.deploy.engines import Images, Session
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
def compare(network: nn.Module, session: Session, images: Images, given: Images | None = None) -> Comparison:
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


def sample_pixels(source: DataSource | None, pre: Preprocessing, count: int, train: bool = False) -> Images:
    """Some images as bytes, uint8 (N, S, S, 3): of a data source, evenly spread, or cut from two photographs.

    Args:
        source: where to take them from; None: the photographs that come with scikit-learn.
        pre: how to resize and crop them.
        count: how many at most.
        train: from the training part, where the source has one.
    """
    transform = plain_transform(pre)
    images: Any = source and ((train and source.train) or source.val or source.train)
    if images is None:
        chosen: Sequence[Image.Image] = _views(count)
    elif not hasattr(images, "__getitem__"):
        raise InputError(
            f"{source and source.spec} is a stream; give images that can be read by number, e.g. folder:PATH"
        )
    else:
        chosen = [images[i][0] for i in evenly(count, len(images))]
    return np.stack([transform(image).permute(1, 2, 0).numpy() for image in chosen])


def evenly(count: int, total: int) -> list[int]:
    """At most `count` of the numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _views(count: int) -> list[Image.Image]:
    """Squares cut out of two photographs, from left to right."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    views = []
    for i in range(count):
        photo = photos[i % 2]
        left = (photo.width - photo.height) * i // max(count - 1, 1)
        views.append(photo.crop((left, 0, left + photo.height, photo.height)))
    return views


def normalized(pixels: Images, pre: Preprocessing) -> Images:
    """uint8 (N, S, S, 3) -> the network's input, float32 (N, 3, S, S)."""
    finish = Finish(pre, channels_last=False)
    return finish(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
