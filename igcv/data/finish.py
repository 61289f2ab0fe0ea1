"""Last preprocessing steps in batches on the device: from uint8 images to the network's input."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from igcv.data.chance import NOISE, RECTANGLES, generator, seed_from
from igcv.data.erasing import draw_rectangles, erase
from igcv.data.preprocessing import Preprocessing
from igcv.errors import InputError

FinishBatch = Callable[[int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Finish:
    """Conversion of uint8 images (N, 3, S, S) on any device to normalized float32 on `device`.

    Raises:
        InputError: `random_erasing` is not a probability.
    """

    preprocessing: Preprocessing
    device: torch.device = torch.device("cpu")
    channels_last: bool = True
    """Memory layout of the result: (N, S, S, 3) if True, else (N, 3, S, S)."""
    random_erasing: float = 0.0
    """Probability from 0 to 1 that a rectangle of an image is replaced by noise."""

    def __post_init__(self) -> None:
        if not 0 <= self.random_erasing <= 1:
            raise InputError(
                f"random_erasing: got {self.random_erasing!r}, expected a probability from 0 to 1"
            )

    @cached_property
    def _mean_std(self) -> Tensor:
        # Cached on the device: torchvision's normalize copies the values with every batch, and waits.
        pre = self.preprocessing
        return torch.tensor([pre.mean, pre.std], device=self.device).view(2, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalize images without erasing, bitwise identical to `eval_transform`."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = images.to(self.device, non_blocking=True)
        mean, std = self._mean_std
        return images.to(torch.float32, memory_format=layout).mul_(1 / 255).sub_(mean).div_(std)

    def for_epoch(self, count: int, seed: int, epoch: int, rank: int) -> FinishBatch:
        """Return a function for the batches of one epoch: normalization and random erasing.

        The function takes a batch's number in the epoch, its images, and their numbers, int64 (N,) below `count`.
        Erased rectangles depend on (seed, epoch, image), their noise on (seed, epoch, rank, batch).
        """
        if not self.random_erasing:
            return lambda batch, images, numbers: self(images)
        side = self.preprocessing.input_size
        where = draw_rectangles(count, side, self.random_erasing, generator(RECTANGLES, seed, epoch))
        noise = torch.Generator(self.device)

        def finish(batch: int, images: Tensor, numbers: Tensor) -> Tensor:
            images = self(images)
            noise.manual_seed(seed_from(NOISE, seed, epoch, rank, batch))
            erase(images, where[numbers], noise)
            return images

        return finish


def as_pixels(images: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """Invert the normalization and round: float (N, 3, S, S) -> uint8 (N, S, S, 3)."""
    scaled = images.transpose(0, 2, 3, 1) * np.array(pre.std) + np.array(pre.mean)
    return (255 * scaled).round().clip(0, 255).astype(np.uint8)
