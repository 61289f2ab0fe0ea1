"""Resizing and random crops, chosen from the size of an image before its pixels are decoded.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, in less time and memory. Training does so where the crop still
has at least as many pixels as the network's input, then resizes the crop. Evaluation decodes at full size.
"""

from math import ceil, floor

import torch
import torch.nn.functional as F
from PIL import Image

from igcv.data.decoding import Jpeg


def reduce(image: Image.Image, factor: float) -> int:
    """Request a smaller size of a JPEG not yet decoded: 1/2, 1/4 or 1/8, the smallest not below 1/`factor`.

    Returns:
        The divisor s: position (x, y) in the image moves to (x / s, y / s); 1 for any other image.
    """
    # The last pixels of a reduced image are incomplete; turning the image would make them the first.
    whole = isinstance(image, Jpeg) and image.is_turned
    fitting = (s for s in (8, 4, 2) if not whole or image.width % s == image.height % s == 0)
    divisor = next((s for s in fitting if s <= factor), 1)
    drafted = divisor > 1 and image.draft(None, (image.width // divisor, image.height // divisor))
    return divisor if drafted else 1


MOST_RESIZED = 2**26  # pixels; if a thin image would become larger, only its square is computed
_REACH = 4  # pixels, more than the support of every filter (Lanczos: 3)
_KERNELS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


def resize(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """Resize an RGB image to `side` x `side` pixels, with a vectorized torch kernel where there is one.

    The torch kernels take half of Pillow's time. Their weights have 16 bits, Pillow's have 22. In photos, one value in
    30 differs by 1 of 255. If the size hardly changes, one value in 7000 differs by more.
    """
    if resample not in _KERNELS:
        return image.resize((side, side), resample)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2)  # (1, 3, H, W)
    resized = F.interpolate(pixels, (side, side), mode=_KERNELS[resample], antialias=True)
    return Image.fromarray(resized[0].permute(1, 2, 0).numpy())


def resized_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return width and height after resizing the shorter side to `short_side` pixels, as torchvision's Resize does."""
    width, height = size
    return int(short_side * width / min(size)), int(short_side * height / min(size))


def central_square(
    image: Image.Image, short_side: int, side: int, resample: Image.Resampling, shrink: bool = False
) -> Image.Image:
    """Resize an image and return its central square (torchvision's Resize and CenterCrop).

    Args:
        image: an RGB image of any size; one that already equals the square stays unchanged.
        short_side: shorter side of the resized image, pixels.
        side: side of the square, pixels, at most `short_side`.
        resample: the resampling filter.
        shrink: whether a JPEG may be decoded at a smaller size.
    """
    width, height = image.size
    size = resized_size(image.size, short_side)
    left, top = (round((length - side) / 2) for length in size)
    if size[0] * size[1] > MOST_RESIZED:
        return part_of_resized(image, size, (left, top), side, resample)
    s = reduce(image, min(width, height) / short_side) if shrink else 1
    if size != image.size:
        image = image.resize(size, resample, (0, 0, width / s, height / s))
    return image.crop((left, top, left + side, top + side))


def part_of_resized(
    image: Image.Image, size: tuple[int, int], corner: tuple[int, int], side: int, resample: Image.Resampling
) -> Image.Image:
    """Return the square of `side` pixels at `corner` of the image resized to `size`, without resizing the whole image.

    The image is first cropped to the pixels that the filter reads. The result differs from a crop of the whole resized
    image only by the rounding of the corners.
    """
    crop, box = [], []
    for length, resized, start in zip(image.size, size, corner, strict=True):
        scale = length / resized
        margin = ceil(_REACH * max(scale, 1))
        low = max(floor(start * scale) - margin, 0)
        crop.append((low, min(ceil((start + side) * scale) + margin, length)))
        box.append((start * scale - low, (start + side) * scale - low))
    (left, right), (top, bottom) = crop
    (x0, x1), (y0, y1) = box
    return image.crop((left, top, right, bottom)).resize((side, side), resample, (x0, y0, x1, y1))


class RandomResizedCrop:
    """Random crop of 8 to 100 % of the area, aspect ratio 3:4 to 4:3, resized to `side` x `side` pixels.

    The parameters are drawn by torchvision's RandomResizedCrop.
    """

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
    """Random square of `side` pixels from the image resized by a factor drawn uniformly from `low`..`high`.

    No side of the resized image is below `side`. Only the square is computed.
    """

    def __init__(self, low: float, high: float, side: int, resample: Image.Resampling) -> None:
        self.low, self.high, self.side, self.resample = low, high, side, resample

    def __call__(self, image: Image.Image) -> Image.Image:
        short = min(image.size)
        drawn = self.low + (self.high - self.low) * torch.rand(()).item()
        size = resized_size(image.size, max(self.side, round(short * drawn)))
        left, top = (int(torch.randint(length - self.side + 1, ())) for length in size)
        return part_of_resized(image, size, (left, top), self.side, self.resample)
