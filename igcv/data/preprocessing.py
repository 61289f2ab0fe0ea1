"""How an image becomes the input of a network, as data: it travels with the weights.

Shapes: an image goes in as a PIL image of any size and mode (see igcv.data.decoding) and comes out as a tensor
(3, S, S), where S is the network's input size in pixels: uint8 for loaders, whose batches become input on the device
(see igcv.data.finish), float32 where one image is looked at.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from igcv.data.crops import central_square
from igcv.data.decoding import as_rgb
from igcv.errors import InputError, unknown

MAX_SIDE, MIN_CROP = 8192, 0.1  # what comes with weights from an untrusted source must not fill the memory
Transform = Callable[[Image.Image], torch.Tensor]
PIXELS, AS_STORED = "upright on white", "as stored"
RULES = {
    PIXELS: "turned by their EXIF orientation, and composited over white where they are transparent",
    AS_STORED: "neither turned nor composited: weights of 0.1.0 and of other frameworks",
}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


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
    """The part of the resized shorter side that the center crop keeps, from 0.1 to 1."""
    interpolation: str
    """The filter for resizing: nearest, bilinear, bicubic or lanczos."""
    pixels: str = PIXELS
    """How the images that the network was trained on became pixels: "upright on white" or "as stored" (see `RULES`).

    Images are read upright and on white for every network: what else a network was trained on is a thing to know.
    """

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
        if self.pixels not in tuple(RULES):  # a tuple, as what cannot be hashed is wrong as well
            raise unknown("rule for pixels", str(self.pixels), RULES, "update igcv")
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
        values = {"pixels": AS_STORED, **values}  # the rule of the versions that did not record it
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

PRESETS = {"imagenet": IMAGENET, "cifar": CIFAR, "mxnet": MXNET}  # by their names in recipes


def eval_transform(pre: Preprocessing) -> Transform:
    """PIL image -> float32 tensor (3, S, S), without chance: resize, center crop, normalize."""
    return _Eval(pre)


def plain_transform(pre: Preprocessing) -> Transform:
    """PIL image -> uint8 tensor (3, S, S): `eval_transform` before it normalizes."""
    return _Plain(pre)


@dataclass(frozen=True)
class _Plain:
    """The transform of `plain_transform`; can be pickled to loader processes."""

    pre: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        return as_tensor(central_part(as_rgb(image, "the image"), self.pre))


@dataclass(frozen=True)
class _Eval(_Plain):
    """The transform of `eval_transform`."""

    def __call__(self, image: Image.Image) -> Tensor:
        mean, std = torch.tensor([self.pre.mean, self.pre.std]).view(2, 3, 1, 1)
        return super().__call__(image).float().mul_(1 / 255).sub_(mean).div_(std)


def short_side(pre: Preprocessing) -> int:
    """What the shorter side of an image is resized to, pixels; at least `input_size`."""
    return round(pre.input_size / pre.crop)


def resample(pre: Preprocessing) -> Image.Resampling:
    """Pillow's name of the filter for resizing."""
    return Image.Resampling[pre.interpolation.upper()]


def central_part(image: Image.Image, pre: Preprocessing, shrink: bool = False) -> Image.Image:
    """The part of an RGB image that the network sees, at its size; `shrink` as for `central_square`."""
    return central_square(image, short_side(pre), pre.input_size, resample(pre), shrink)


def as_tensor(image: Image.Image) -> Tensor:
    """PIL RGB image -> uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
