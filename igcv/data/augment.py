"""Training augmentations by name.

torchvision and timm are imported where they are used: imports take seconds, and evaluation needs neither.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from igcv.data.crops import RandomResizedCrop, RandomScaledCrop
from igcv.data.preprocessing import (
    Preprocessing,
    Transform,
    as_tensor,
    central_part,
    resample,
)
from igcv.errors import InputError, unknown

_RAND_NOTATION = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*")


def train_transform(pre: Preprocessing, augment: str, randaugment: str = "") -> Transform:
    """Return the random transform of an augmentation: PIL RGB image -> uint8 tensor (3, S, S).

    Args:
        pre: preprocessing of the network.
        augment: a name in `AUGMENTS`.
        randaugment: timm's RandAugment string with magnitude, number of operations and standard deviation of the
            magnitude, e.g. "rand-m9-n2-mstd0.5"; empty to disable RandAugment.

    Raises:
        InputError: the name is unknown, or the RandAugment string is invalid.
    """
    if augment not in AUGMENTS:
        raise unknown("augmentation", augment, AUGMENTS)
    from torchvision.transforms import v2

    return v2.Compose([*AUGMENTS[augment](pre), *_rand_augment(pre, randaugment), as_tensor])


class Moves(NamedTuple):
    """Parameters of an augmentation by random shift and horizontal flip, for use in batches."""

    eighths: int  # maximum shift in each direction, in eighths of the side
    mirror: bool  # random horizontal flip

    def reach(self, side: int) -> int:
        """Return the maximum shift in pixels for an image of `side` pixels."""
        return self.eighths * side // 8


def _shift(pre: Preprocessing) -> list[Callable]:
    from torchvision.transforms import v2

    return [
        partial(central_part, pre=pre, shrink=True),
        v2.RandomCrop(pre.input_size, padding=BATCHED["shift"].reach(pre.input_size)),
    ]


def _flip_crop(pre: Preprocessing) -> list[Callable]:
    from torchvision.transforms import v2

    return [*_shift(pre), v2.RandomHorizontalFlip()]


def _inception(pre: Preprocessing) -> list[Callable]:
    from torchvision.transforms import v2

    crop = RandomResizedCrop(pre.input_size, resample(pre))
    return [crop, v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)]


def _mxnet(pre: Preprocessing) -> list[Callable]:
    """Return the training augmentation of the papers (MXNet's ImageRecordIter).

    MXNet adds to hue (+-36 of 180), lightness and saturation (+-50 of 255 each) in the HLS color space and clamps each.
    Here, hue shifts by the same angle but wraps around. Brightness and saturation are multiplied by a factor of
    1 +- 50/255, in random order. MXNet resizes without antialiasing.
    The smallest scale reduces images packed with a shorter side of 480 pixels to 256.
    """
    from torchvision.transforms import v2

    crop = RandomScaledCrop(0.533, 1.0, pre.input_size, resample(pre))
    color = v2.ColorJitter(brightness=50 / 255, saturation=50 / 255, hue=36 / 180)
    return [crop, v2.RandomHorizontalFlip(), color]


BATCHED = {"none": Moves(0, False), "shift": Moves(1, False), "flip_crop": Moves(1, True)}

AUGMENTS: dict[str, Callable[[Preprocessing], list[Callable]]] = {
    "none": lambda pre: [partial(central_part, pre=pre)],  # the geometry of evaluation
    "shift": _shift,  # for digits: a flipped 2 is not a 2
    "flip_crop": _flip_crop,  # standard for CIFAR: zero padding of 1/8 of the side, random crop, horizontal flip
    "inception": _inception,  # standard for ImageNet: crop of 8..100 % of the area, horizontal flip, color jitter
    "mxnet": _mxnet,
}


def _rand_augment(pre: Preprocessing, config: str) -> list[Callable]:
    if not config:
        return []
    if not _RAND_NOTATION.fullmatch(config):  # timm skips invalid parts silently
        raise InputError(
            f"randaugment: got '{config}', expected 'rand' and any of -m9 -n2 -p0.5 -mstd0.5 "
            "-mmax10 -inc1, such as 'rand-m9-n2-mstd0.5'. Leave it empty to disable RandAugment"
        )
    fill = tuple(round(255 * m) for m in pre.mean)
    settings = {"translate_const": int(0.45 * pre.input_size), "img_mean": fill}
    from timm.data.auto_augment import rand_augment_transform

    return [rand_augment_transform(config, settings)]
