"""What a caller gives as an image, opened: a path, a PIL image, an array of pixels, bytes, or an open file."""

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
# Each is one image, though some can be iterated.
_SINGLE = (*PATHS, Image.Image, np.ndarray, bytes, bytearray, memoryview, IOBase)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")  # as a Path, it has lost its second slash
_KINDS = "a path, a PIL image, an array uint8 (H, W, 3), bytes of an image file, or an open file"


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Return images as a list of images that `open_image` can open, one image as a list of it.

    Raises:
        InputError: one of them is of another kind, is a URL, or is an array of another shape or type.
    """
    single = isinstance(images, (*_SINGLE, Tensor)) or hasattr(images, "read")
    if not single and (isinstance(images, dict) or not isinstance(images, Iterable)):
        raise InputError(f"images: got {_described(images)}, expected {_KINDS}, or a list of them")
    given: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    for number, image in enumerate(given):
        _check(image, name_of(image, number))
    return given


def name_of(image: ImageLike, number: int) -> str:
    """Return what messages call an image: its path, or its place among those that were given."""
    return os.fspath(image) if isinstance(image, PATHS) else f"images[{number}]"


def open_image(image: ImageLike, name: str) -> Image.Image:
    """Return an image as upright PIL RGB (see `igcv.data.decoding`).

    Args:
        image: one of those that `as_list` returns.
        name: what messages call it.

    Raises:
        BadImageError: it cannot be read.
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
        raise InputError(f"'{name}' is a URL, expected a path. Download the image and give its file")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"{name}: got {_described(image)}, expected an array uint8 (H, W, 3) of red, green and blue from 0 to "
                f"255. {_hint(image)}"
            )
    elif not isinstance(image, _SINGLE) and not hasattr(image, "read"):
        raise InputError(f"{name}: got {_described(image)}, expected {_KINDS}")


def _described(value: Any) -> str:
    """Return a value's kind in words, with the type and shape of what holds pixels."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return f"{kind} {value.dtype} {tuple(value.shape)}"
    return f"a {type(value).__name__}" if value is not None else "None"


def _hint(image: np.ndarray) -> str:
    """Return the line of code that makes of a wrong array what is expected."""
    if image.ndim == 4 or image.dtype.kind in "OSU":  # a batch, or text
        return "Give list(array)"
    if image.dtype != np.uint8:
        return "Scale it to 0..255 and convert it with array.astype('uint8')"
    if image.ndim == 3 and image.shape[0] == 3:
        return "Give array.transpose(1, 2, 0)"
    if image.ndim == 2 or image.shape[-1] in (1, 2, 4):
        return "Give PIL.Image.fromarray(array), which knows gray and transparent images"
    return "Change it"


def _bytes_of(file: Any, name: str) -> bytes:
    """Return the content of an open file, or of a bytearray."""
    try:
        content = file.read() if hasattr(file, "read") else bytes(file)
    except (OSError, ValueError) as error:  # ValueError of a closed file, and of text that is none
        raise BadImageError(f"{name}: the file cannot be read ({error}). Open it again") from None
    if isinstance(content, bytes):
        return content
    raise InputError(
        f"{name}: got a file opened as text, expected one of bytes. Open it with open(path, 'rb')"
    )
