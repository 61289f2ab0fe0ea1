"""Resizing and random crops for training, chosen from the size of an image before its pixels are decoded.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in less time and memory. That is done where the crop still has
at least as many pixels as the network takes; what is left is resized as ever. Evaluation decodes everything.
"""

from math import ceil, floor

import torch
import torch.nn.functional as F
from PIL import Image


def reduce(image: Image.Image, factor: float) -> int:
    """Ask for a JPEG that is not decoded yet at 1/2, 1/4 or 1/8, the smallest that is not below 1/`factor`.

    Returns:
        The divisor s: what was at (x, y) in the image is at (x / s, y / s) now; 1 for any other image.
    """
    divisor = next((s for s in (8, 4, 2) if s <= factor), 1)
    drafted = divisor > 1 and image.draft(None, (image.width // divisor, image.height // divisor))
    return divisor if drafted else 1


_KERNELS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def resize(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """An RGB image at `side` x `side` pixels, by one of torch's vectorized kernels where there is one.

    They take half of Pillow's time. Their weights have 16 bits and Pillow's 22, so that of photos one value in 30
    differs by 1 of 255, and where the size hardly changes one in 7000 by more.
    """
    if resample not in _KERNELS:
        return image.resize((side, side), resample)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2)  # (1, 3, H, W)
    resized = F.interpolate(pixels, (side, side), mode=_KERNELS[resample], antialias=True)
    return Image.fromarray(resized[0].permute(1, 2, 0).numpy())


class ShortSide:
    """The image resized to a shorter side of `side` pixels (torchvision's Resize)."""

    def __init__(self, side: int, resample: Image.Resampling) -> None:
        self.side, self.resample = side, resample

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short = min(width, height)
        s = reduce(image, short / self.side)
        size = (int(self.side * width / short), int(self.side * height / short))
        return image.resize(size, self.resample, (0, 0, width / s, height / s))


class RandomResizedCrop:
    """8..100 % of the area, its sides 3:4 to 4:3, resized to `side` x `side` pixels (torchvision's crop)."""

    def __init__(self, side: int, resample: Image.Resampling) -> None:
        self.side, self.resample = side, resample
        from torchvision.transforms import v2  # slow to import, needed for training only

        self.draw = v2.RandomResizedCrop(side).make_params

    def __call__(self, image: Image.Image) -> Image.Image:
        drawn = self.draw([image])
        left, top, width, height = (drawn[key] for key in ("left", "top", "width", "height"))
        s = reduce(image, min(width, height) / self.side)
        if s == 1:
            return resize(image.crop((left, top, left + width, top + height)), self.side, self.resample)
        x, y = floor(left / s), floor(top / s)
        part = image.crop((x, y, ceil((left + width) / s), ceil((top + height) / s)))
        box = (left / s - x, top / s - y, (left + width) / s - x, (top + height) / s - y)
        return part.resize((self.side, self.side), self.resample, box)


class RandomScaledCrop:
    """A square of `side` pixels from the image resized by a factor drawn evenly from `low`..`high`.

    No side of the resized image is below `side`. Of it the square alone is computed.
    """

    def __init__(self, low: float, high: float, side: int, resample: Image.Resampling) -> None:
        self.low, self.high, self.side, self.resample = low, high, side, resample

    def __call__(self, image: Image.Image) -> Image.Image:
        short = min(image.size)
        drawn = self.low + (self.high - self.low) * torch.rand(()).item()
        resized = max(self.side, round(short * drawn))
        left, right = self._span(image.width, int(resized * image.width / short))
        top, bottom = self._span(image.height, int(resized * image.height / short))
        return image.resize((self.side, self.side), self.resample, (left, top, right, bottom))

    def _span(self, length: int, resized: int) -> tuple[float, float]:
        """Where `side` of `resized` pixels lie among the `length` pixels that they are made from."""
        start = int(torch.randint(resized - self.side + 1, ()))
        return start * length / resized, (start + self.side) * length / resized
