"""Images given by a caller: a path, a PIL image, an array of pixels, bytes, or an open file."""

import os
import re
from collections.abc import Iterable
from io import IOBase
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from igcv.data.decoding import BadImageError, as_rgb, decode, read_image
from igcv.errors import InputError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | bytes | bytearray | memoryview | BinaryIO
PATHS = (str, os.PathLike)
# Each of these types is one image, even if it can be iterated.
_SINGLE = (*PATHS, Image.Image, np.ndarray, bytes, bytearray, memoryview, IOBase)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")  # a Path drops the second slash
_KINDS = "a path, a PIL image, a uint8 array (H, W, 3), the bytes of an image file, or an open file"


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Return one or more images as a list of images for `open_image`.

    Raises:
        InputError: an image has an unsupported type, is a URL, or is an array of the wrong shape or type.
    """
    single = isinstance(images, (*_SINGLE, Tensor)) or hasattr(images, "read")
    if not single and (isinstance(images, dict) or not isinstance(images, Iterable)):
        raise InputError(f"images: got {_described(images)}, expected {_KINDS}, or a list of them")
    given: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    for number, image in enumerate(given):
        _check(image, name_of(image, number))
    return given


def name_of(image: ImageLike, number: int) -> str:
    """Return the name of an image in messages: its path, or its position among the given images."""
    return os.fspath(image) if isinstance(image, PATHS) else f"images[{number}]"


def open_image(image: ImageLike, name: str) -> Image.Image:
    """Return an image as upright PIL RGB (see `igcv.data.decoding`).

    Args:
        image: an image that `as_list` returns.
        name: name of the image in messages.

    Raises:
        BadImageError: the image cannot be read.
    """
    if isinstance(image, PATHS):
        return read_image(os.fspath(image))
    if isinstance(image, Image.Image):
        return as_rgb(image, name)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return decode(image if isinstance(image, bytes | memoryview) else _bytes_of(image, name), name)


def _check(image: Any, name: str) -> None:
    if isinstance(image, PATHS) and _URL.match(name) and not os.path.exists(image):
        raise InputError(f"'{name}' is a URL, expected a path. Download the image and give its path")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"{name}: got {_described(image)}, expected a uint8 array (H, W, 3) of red, green and blue from 0 to "
                f"255. {_hint(image)}"
            )
    elif not isinstance(image, _SINGLE) and not hasattr(image, "read"):
        raise InputError(f"{name}: got {_described(image)}, expected {_KINDS}")


def _described(value: Any) -> str:
    """Return a value's type in words, with dtype and shape for arrays and tensors."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return f"{kind} {value.dtype} {tuple(value.shape)}"
    return f"a {type(value).__name__}" if value is not None else "None"


def _hint(image: np.ndarray) -> str:
    """Return a hint that says how to convert a wrong array to the expected one."""
    if image.ndim == 4 or image.dtype.kind in "OSU":  # a batch, or text
        return "Give list(array)"
    if image.dtype != np.uint8:
        return "Scale it to 0..255 and convert it with array.astype('uint8')"
    if image.ndim == 3 and image.shape[0] == 3:
        return "Give array.transpose(1, 2, 0)"
    if image.ndim == 2 or image.shape[-1] in (1, 2, 4):
        return "Give PIL.Image.fromarray(array), which handles gray and transparent images"
    return "Give an array of this shape"


def _bytes_of(file: Any, name: str) -> bytes:
    """Return the content of an open file or a bytearray."""
    try:
        content = file.read() if hasattr(file, "read") else bytes(file)
    except (OSError, ValueError) as error:  # ValueError for a closed file and undecodable text
        raise BadImageError(f"{name}: the file cannot be read ({error}). Open the file again") from None
    if isinstance(content, bytes):
        return content
    raise InputError(
        f"{name}: got a file in text mode, expected binary mode. Open the file with open(path, 'rb')"
    )
