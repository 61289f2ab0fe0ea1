"""What happens to an image between the file and the network, as data: it travels with the weights.

Shapes: an image goes in as a PIL RGB image of any size and comes out as a tensor (3, S, S), where S is the network's
input size in pixels: uint8 for loaders, whose batches become input on the device (see igcv.data.finish), float32
where one image is looked at.
"""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import v2

from igcv.data.crops import RandomResizedCrop, RandomScaledCrop, ShortSide
from igcv.errors import InputError, unknown

MAX_SIDE, MIN_CROP = 8192, 0.1  # what comes with the weights of a stranger must not fill the memory
Transform = Callable[[Image.Image], torch.Tensor]
_INTERPOLATIONS = {name: v2.InterpolationMode(name) for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_RAND_NOTATION = re.compile(r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)*")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _three_numbers(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input that a network was trained on.

    The image's shorter side is resized to `input_size / crop` and a central square of `input_size` is kept.
    With crop 1 an image that is already such a square stays as it is.

    Raises:
        InputError: a value is of the wrong type or outside its range.
    """

    input_size: int
    """Side S of the network's input, pixels."""
    mean: tuple[float, ...]
    """Subtracted from each of red, green and blue, on the scale 0..1."""
    std: tuple[float, ...]
    """Divides each channel after that, on the scale 0..1."""
    crop: float
    """The part of the resized shorter side that the centre crop keeps, from 0.1 to 1."""
    interpolation: str
    """The filter for resizing: nearest, bilinear, bicubic or lanczos."""

    def __post_init__(self) -> None:
        rules = (
            (
                "input_size",
                type(self.input_size) is int and 1 <= self.input_size <= MAX_SIDE,
                f"a whole number of pixels from 1 to {MAX_SIDE}",
            ),
            ("mean", _three_numbers(self.mean), "three numbers, for pixels from 0 to 1"),
            ("std", _three_numbers(self.std) and min(self.std) > 0, "three numbers above 0"),
            ("crop", _is_number(self.crop) and MIN_CROP <= self.crop <= 1, f"a number from {MIN_CROP} to 1"),
        )
        for name, holds, expected in rules:
            if not holds:
                raise InputError(f"preprocessing: {name} is {getattr(self, name)!r}, expected {expected}")
        if self.interpolation not in _INTERPOLATIONS:
            raise unknown("interpolation", str(self.interpolation), _INTERPOLATIONS)

    def to_dict(self) -> dict[str, object]:
        """The same as plain numbers, strings and lists, ready for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> "Preprocessing":
        """The inverse of `to_dict`.

        Raises:
            InputError: a key is missing, unknown, or has a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise InputError(f"preprocessing is {values!r}, expected a table of {', '.join(known)}")
        for key in values:
            if key not in known:
                raise unknown("preprocessing key", str(key), known)
        missing = [name for name in known if name not in values]
        if missing:
            raise InputError(f"preprocessing lacks {', '.join(missing)}; expected {', '.join(known)}")
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**given)


IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic")
CIFAR = Preprocessing(32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 1.0, "bicubic")
# The networks released for MXNet take red, green, blue from 0 to 255, less their means and not divided. Their
# validation images were packed with a shorter side of 256 pixels and cropped to 224.
MXNET = Preprocessing(
    224, (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, 224 / 256, "bilinear"
)


def eval_transform(pre: Preprocessing) -> Transform:
    """PIL RGB image -> float32 tensor (3, S, S), without chance: resize, centre crop, normalize."""
    to_float = v2.ToDtype(torch.float32, scale=True)  # 0..255 -> 0..1
    return v2.Compose(
        [*_plain(pre), v2.ToImage(), to_float, v2.Normalize(pre.mean, pre.std), v2.ToPureTensor()]
    )


def plain_transform(pre: Preprocessing) -> Transform:
    """PIL RGB image -> uint8 tensor (3, S, S): `eval_transform` before it normalizes."""
    return v2.Compose([*_plain(pre), *_PIXELS])


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
    return v2.Compose([*AUGMENTS[augment](pre), *_rand_augment(pre, randaugment), *_PIXELS])


class Moves(NamedTuple):
    """The batched form of an augmentation that does no more than move and mirror an image."""

    eighths: int  # of the side, the farthest that an image is moved each way
    mirror: bool

    def reach(self, side: int) -> int:
        """The farthest in whole pixels, for an image of `side` pixels."""
        return self.eighths * side // 8


def _plain(pre: Preprocessing) -> list[Callable]:
    resize = v2.Resize(short_side(pre), _INTERPOLATIONS[pre.interpolation], antialias=True)
    return [resize, v2.CenterCrop(pre.input_size)]


def _shift(pre: Preprocessing) -> list[Callable]:
    return [
        ShortSide(short_side(pre), _resample(pre)),
        v2.CenterCrop(pre.input_size),
        v2.RandomCrop(pre.input_size, padding=BATCHED["shift"].reach(pre.input_size)),
    ]


def _flip_crop(pre: Preprocessing) -> list[Callable]:
    return [*_shift(pre), v2.RandomHorizontalFlip()]


def _inception(pre: Preprocessing) -> list[Callable]:
    crop = RandomResizedCrop(pre.input_size, _resample(pre))
    return [crop, v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)]


def _mxnet(pre: Preprocessing) -> list[Callable]:
    """The pipeline that the networks of the papers were trained with (MXNet's ImageRecordIter).

    MXNet adds to hue (+-36 of 180), lightness and saturation (+-50 of 255 each) of the HLS colour space and
    clamps each. Here hue turns by the same angle but wraps around, brightness and saturation are multiplied
    by up to 1 +- 50/255, and their order is random. MXNet resizes without antialiasing.
    The smallest scale takes images packed with a shorter side of 480 pixels to 256.
    """
    crop = RandomScaledCrop(0.533, 1.0, pre.input_size, _resample(pre))
    colour = v2.ColorJitter(brightness=50 / 255, saturation=50 / 255, hue=36 / 180)
    return [crop, v2.RandomHorizontalFlip(), colour]


BATCHED = {"none": Moves(0, False), "shift": Moves(1, False), "flip_crop": Moves(1, True)}
_PIXELS = [v2.ToImage(), v2.ToPureTensor()]

AUGMENTS: dict[str, Callable[[Preprocessing], list[Callable]]] = {
    "none": _plain,  # the geometry of evaluation
    "shift": _shift,  # for digits: a mirrored 2 is no 2
    "flip_crop": _flip_crop,  # CIFAR's usual: zeros of 1/8 of the side around, random crop, mirror
    "inception": _inception,  # ImageNet's usual: crop of 8..100 % of the area, mirror, colour
    "mxnet": _mxnet,
}


def short_side(pre: Preprocessing) -> int:
    """What the shorter side of an image is resized to, pixels; at least `input_size`."""
    return round(pre.input_size / pre.crop)


def _resample(pre: Preprocessing) -> Image.Resampling:
    return Image.Resampling[pre.interpolation.upper()]


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
    return [rand_augment_transform(config, settings)]
