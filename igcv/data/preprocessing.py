"""Preprocessing of images for a network, stored with the weights.

Input: a PIL image of any size and mode (see igcv.data.decoding). Output: a tensor (3, S, S), where S is the network's
input size in pixels. The tensor is uint8 for loaders, which normalize batches on the device (see igcv.data.finish),
and float32 for single images.
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

MAX_SIDE, MIN_CROP = 8192, 0.1  # limits the memory that weights from an untrusted source can request
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
    """Preprocessing parameters of a network.

    The image is resized to a shorter side of `input_size / crop`, then cropped to a central square of `input_size`.
    With crop 1, an image that is already this square stays unchanged.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """

    input_size: int
    """Side S of the network's input, pixels."""
    mean: tuple[float, ...]
    """Mean of red, green and blue on the scale 0..1, subtracted first."""
    std: tuple[float, ...]
    """Standard deviation of red, green and blue on the scale 0..1, the divisor."""
    crop: float
    """Fraction of the resized shorter side that the center crop keeps, from 0.1 to 1."""
    interpolation: str
    """Filter for resizing: nearest, bilinear, bicubic or lanczos."""
    pixels: str = PIXELS
    """Decoding of the training images: "upright on white" or "as stored" (see `RULES`).

    For information only: igcv reads images upright and on white for every network.
    """

    def __post_init__(self) -> None:
        rules = (
            (
                "input_size",
                type(self.input_size) is int and 1 <= self.input_size <= MAX_SIDE,
                f"an integer from 1 to {MAX_SIDE}, in pixels",
            ),
            ("mean", _three_numbers(self.mean), "three numbers, for pixels from 0 to 1"),
            ("std", _three_numbers(self.std) and min(self.std) > 0, "three numbers above 0"),
            ("crop", _is_number(self.crop) and MIN_CROP <= self.crop <= 1, f"a number from {MIN_CROP} to 1"),
        )
        for name, holds, expected in rules:
            if not holds:
                raise InputError(f"preprocessing {name}: got {getattr(self, name)!r}, expected {expected}")
        if self.pixels not in tuple(RULES):  # a tuple, because the value may be unhashable
            raise unknown("rule for pixels", str(self.pixels), RULES, "update igcv")
        if self.interpolation not in _INTERPOLATIONS:
            raise unknown("interpolation", str(self.interpolation), _INTERPOLATIONS)

    def to_dict(self) -> dict[str, object]:
        """Return the parameters as numbers, strings and lists, ready for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> "Preprocessing":
        """Create preprocessing parameters from the result of `to_dict`.

        Raises:
            InputError: a key is missing or unknown, or its value is invalid.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise InputError(f"preprocessing: got {values!r}, expected a table of {', '.join(known)}")
        for key in values:
            if key not in known:
                raise unknown("preprocessing key", str(key), known)
        values = {"pixels": AS_STORED, **values}  # the rule of versions that did not record one
        missing = [name for name in known if name not in values]
        if missing:
            raise InputError(f"preprocessing: missing {', '.join(missing)}, expected {', '.join(known)}")
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**given)


IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic")
CIFAR = Preprocessing(32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 1.0, "bicubic")
# The networks released for MXNet take red, green, blue from 0 to 255, minus the means and not divided. Their
# validation images were packed with a shorter side of 256 pixels and cropped to 224.
MXNET = Preprocessing(
    224, (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, 224 / 256, "bilinear"
)

PRESETS = {"imagenet": IMAGENET, "cifar": CIFAR, "mxnet": MXNET}  # by their names in recipes


def eval_transform(pre: Preprocessing) -> Transform:
    """Return the evaluation transform: PIL image -> float32 tensor (3, S, S) by resize, center crop, normalization."""
    return _Eval(pre)


def plain_transform(pre: Preprocessing) -> Transform:
    """Return `eval_transform` without normalization: PIL image -> uint8 tensor (3, S, S)."""
    return _Plain(pre)


@dataclass(frozen=True)
class _Plain:
    """The transform of `plain_transform`; can be pickled to data-loading workers."""

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
    """Return the shorter side of the resized image in pixels, at least `input_size`."""
    return round(pre.input_size / pre.crop)


def resample(pre: Preprocessing) -> Image.Resampling:
    """Return Pillow's filter for resizing."""
    return Image.Resampling[pre.interpolation.upper()]


def central_part(image: Image.Image, pre: Preprocessing, shrink: bool = False) -> Image.Image:
    """Return the central square of an RGB image at the input size; for `shrink`, see `central_square`."""
    return central_square(image, short_side(pre), pre.input_size, resample(pre), shrink)


def as_tensor(image: Image.Image) -> Tensor:
    """Convert a PIL RGB image to a uint8 tensor (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
