"""Training augmentation: what chance does to an image, by name.

torchvision and timm are imported where they are used: they take seconds, and evaluation does without.
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
    """PIL RGB image -> uint8 tensor (3, S, S), different at each call.

    Args:
        pre: size and normalization of the result.
        augment: a name in `AUGMENTS`.
        randaugment: timm's RandAugment string of magnitude, number and spread, e.g. "rand-m9-n2-mstd0.5";
            empty for none.

    Raises:
        InputError: an unknown name or an unreadable RandAugment string.
    """
    if augment not in AUGMENTS:
        raise unknown("augmentation", augment, AUGMENTS)
    from torchvision.transforms import v2

    return v2.Compose([*AUGMENTS[augment](pre), *_rand_augment(pre, randaugment), as_tensor])


class Moves(NamedTuple):
    """The batched form of an augmentation that does no more than move and mirror an image."""

    eighths: int  # of the side, the farthest that an image is moved each way
    mirror: bool

    def reach(self, side: int) -> int:
        """The farthest in whole pixels, for an image of `side` pixels."""
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
    """The pipeline that the networks of the papers were trained with (MXNet's ImageRecordIter).

    MXNet adds to hue (+-36 of 180), lightness and saturation (+-50 of 255 each) of the HLS color space and
    clamps each. Here hue turns by the same angle but wraps around, brightness and saturation are multiplied
    by up to 1 +- 50/255, and their order is random. MXNet resizes without antialiasing.
    The smallest scale takes images packed with a shorter side of 480 pixels to 256.
    """
    from torchvision.transforms import v2

    crop = RandomScaledCrop(0.533, 1.0, pre.input_size, resample(pre))
    color = v2.ColorJitter(brightness=50 / 255, saturation=50 / 255, hue=36 / 180)
    return [crop, v2.RandomHorizontalFlip(), color]


BATCHED = {"none": Moves(0, False), "shift": Moves(1, False), "flip_crop": Moves(1, True)}

AUGMENTS: dict[str, Callable[[Preprocessing], list[Callable]]] = {
    "none": lambda pre: [partial(central_part, pre=pre)],  # the geometry of evaluation
    "shift": _shift,  # for digits: a mirrored 2 is no 2
    "flip_crop": _flip_crop,  # CIFAR's usual: zeros of 1/8 of the side around, random crop, mirror
    "inception": _inception,  # ImageNet's usual: crop of 8..100 % of the area, mirror, color
    "mxnet": _mxnet,
}


def _rand_augment(pre: Preprocessing, config: str) -> list[Callable]:
    if not config:
        return []
    if not _RAND_NOTATION.fullmatch(config):  # timm passes over parts that it cannot read
        raise InputError(
            f"randaugment is '{config}', expected 'rand' and any of -m9 -n2 -p0.5 -mstd0.5 "
            "-mmax10 -inc1, such as 'rand-m9-n2-mstd0.5'; leave it empty for none"
        )
    fill = tuple(round(255 * m) for m in pre.mean)
    settings = {"translate_const": int(0.45 * pre.input_size), "img_mean": fill}
    from timm.data.auto_augment import rand_augment_transform

    return [rand_augment_transform(config, settings)]
