"""Random erasing in batches, with the distribution of timm's RandomErasing and noise in every pixel.

Zhong et al., Random Erasing Data Augmentation, arXiv:1708.04896. The rectangles are drawn for all images of an epoch
at once, on the CPU. The noise that fills them is drawn on the device.
"""

import math

import torch
from torch import Tensor

_AREA = (0.02, 1 / 3)  # fraction of the image
_LOG_ASPECT = math.log(0.3)  # height / width is log-uniform between 0.3 and 1 / 0.3
_ATTEMPTS = 10  # draws of a rectangle smaller than the image; if all fail, nothing is erased


def draw_rectangles(count: int, side: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw one rectangle for each of `count` square images.

    Args:
        count: number of images.
        side: side of each image, pixels.
        probability: probability from 0 to 1 that an image gets a rectangle.
        generator: a CPU generator.

    Returns:
        Top, left, height and width in pixels, int64 (count, 4); four zeros for an image without a rectangle.
    """
    rectangles = torch.zeros(count, 4, dtype=torch.int64)
    waiting = (torch.rand(count, generator=generator) < probability).nonzero().squeeze(1)
    for _ in range(_ATTEMPTS):
        drawn = torch.rand(4, len(waiting), dtype=torch.float64, generator=generator)
        area = side**2 * (_AREA[0] + (_AREA[1] - _AREA[0]) * drawn[0])
        aspect = (_LOG_ASPECT * (2 * drawn[1] - 1)).exp()
        sizes = torch.stack([area * aspect, area / aspect]).sqrt().round()  # (2, waiting)
        corners = (drawn[2:] * (side - sizes + 1)).floor()
        fits = (sizes < side).all(dim=0)
        rectangles[waiting[fits]] = torch.cat([corners, sizes]).T[fits].long()
        waiting = waiting[~fits]
    return rectangles


def erase(images: Tensor, rectangles: Tensor, generator: torch.Generator) -> None:
    """Fill rectangles with normally distributed noise, in place.

    Args:
        images: normalized images, float (N, C, S, S).
        rectangles: top, left, height and width for each image, int64 (N, 4) on the CPU, to avoid a wait for the device.
        generator: a generator on the images' device.
    """
    chosen = rectangles[:, 2].nonzero().squeeze(1)
    device, side = images.device, images.shape[-1]
    corner, size = rectangles[chosen].to(device, non_blocking=True).view(-1, 2, 2, 1).unbind(1)  # (n, 2, 1)
    pixel = torch.arange(side, device=device)
    rows, columns = ((pixel >= corner) & (pixel < corner + size)).unbind(1)  # (n, S) each
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    noise = torch.randn(len(chosen), *images.shape[1:], device=device, generator=generator)
    index = chosen.to(device, non_blocking=True)
    images[index] = torch.where(inside, noise, images[index])
