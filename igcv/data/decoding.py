"""Image decoding, shared by every data source.

The result is always 8-bit RGB, turned upright by its EXIF orientation and composited over white if transparent.
"""

import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from igcv.data.formats import IMAGE_FORMATS, UNREAD
from igcv.errors import InputError

BACKGROUND = "white"  # the background of transparent images in browsers and viewers
MAX_PIXELS = 89_478_485  # Pillow's decompression-bomb limit
MAX_PIXELS_VARIABLE = (
    "IGCV_MAX_PIXELS"  # an environment variable reaches every command, Python and all workers
)
MAX_BYTES = 2**28  # of an image file
_WARNINGS = threading.RLock()  # warning filters are shared by all threads
_TURNS = {  # EXIF orientation -> operation that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}  # operations that swap width and height


class BadImageError(InputError):
    """Error for one unreadable image; the message starts with the image's name."""


def max_pixels() -> int:
    """Return the maximum number of pixels of an image: `IGCV_MAX_PIXELS`, or 89,478,485.

    Raises:
        InputError: the variable is not an integer above 0.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not given:
        return MAX_PIXELS
    try:
        limit = int(given)
    except ValueError:
        limit = 0
    if limit < 1:
        raise InputError(
            f"{MAX_PIXELS_VARIABLE}: got '{given}', expected a whole number of pixels above 0. "
            f"Set it to 200000000, for example, or unset it for {MAX_PIXELS:,}"
        )
    return limit


def decode(encoded: bytes | memoryview, name: str) -> Image.Image:
    """Decode the bytes of one image file to upright PIL RGB.

    The pixels of an RGB JPEG are decoded at their first use. Until then, `Image.draft` can request a smaller size.
    A JPEG above `max_pixels()` is decoded at 1/2, 1/4 or 1/8. From a file with several frames, the first is decoded.

    Raises:
        BadImageError: the bytes are not an image, are truncated, or have more than 16 bits per channel or more than
            `max_pixels()` pixels.
    """
    limit = max_pixels()
    try:
        image = _opened(encoded, name, limit)
        _fit(image, limit)
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise nearly any exception on damaged bytes
        raise _no_image(name, error) from None
    return image if isinstance(image, Jpeg) and image.mode == "RGB" else as_rgb(image, name)


def _opened(encoded: bytes | memoryview, name: str, limit: int) -> Image.Image:
    """Read the header of an image file."""
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user raised the limit; Pillow checks it for crops, too
    try:
        with _no_warnings():  # about too many pixels, which are refused later, and about damaged metadata
            if bytes(encoded[:3]) == b"\xff\xd8\xff":
                return Jpeg(encoded, name)
            return Image.open(BytesIO(_without_texts(encoded)), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError:  # raised above twice the limit
        raise ValueError(_too_many("too many pixels", limit)) from None


def read_image(path: str | Path) -> Image.Image:
    """Decode an image file (see `decode`).

    Raises:
        BadImageError: the file cannot be read, is not a regular file or an image, or exceeds a size limit.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a named pipe would wait indefinitely
            raise BadImageError(f"{path}: not a regular file. Replace or remove it")
        if status.st_size > MAX_BYTES:
            raise BadImageError(
                f"{path}: got {status.st_size:,} bytes, expected at most {MAX_BYTES:,}. Scale the image down"
            )
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(str(path), error) from None
    return decode(encoded, str(path))


def stored_mode(encoded: bytes | memoryview) -> str:
    """Return Pillow's mode of the stored pixels, e.g. "CMYK", for bytes that `decode` can read."""
    return _opened(encoded, "", max_pixels()).mode


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert a PIL image of any mode to upright 8-bit RGB; the argument stays unchanged.

    Transparency is composited over white. 16-bit values v become v / 257, rounded: 65535 becomes 255.

    Raises:
        BadImageError: the pixels cannot be read, or have more than 16 bits per channel.
    """
    try:
        image.load()
        turn = _turn_of(image)  # after load: a PNG may store its EXIF data after the pixels
        image = _eight_bits(image, name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
        image = image if image.mode == "RGB" else image.convert("RGB")
        if turn is not None:
            image = image.transpose(turn)
            image.info.pop("exif", None)  # the image is upright now
    except BadImageError:
        raise
    except Exception as error:  # noqa: BLE001 - as in decode
        raise _no_image(name, error) from None
    return image


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Convert 16-bit gray to 8-bit gray; return any 8-bit image unchanged."""
    if image.mode[0] not in "IF":
        return image
    # Some or all Pillow versions open 16-bit files of these two formats with 32 bits per pixel.
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not is_16_bit:
        raise BadImageError(
            f"{name}: got 32-bit pixels (mode {image.mode}), expected 8 or 16 bits. Convert the image to 8-bit RGB or "
            "gray"
        )
    values = np.asarray(image).astype(np.uint32)
    gray = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:  # the gray value of transparent pixels
        gray.putalpha(
            Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        )
    gray.info |= {key: value for key, value in image.info.items() if key == "exif"}
    return gray


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the operation that turns an image upright; None if it is upright or its EXIF data is damaged.

    XMP data is ignored, as in browsers. Pillow turns TIFF files itself.
    """
    if not (stored := image.info.get("exif")):
        return None
    exif = Image.Exif()
    try:
        with _no_warnings():
            exif.load(stored)
            return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - as in decode
        return None


def _fit(image: Image.Image, limit: int) -> None:
    """Request a fraction of the size for a JPEG of more than `limit` pixels; raise ValueError for other such images.

    A progressive JPEG needs memory for all its pixels at any decoded size, so it counts as one of the others.
    """
    width, height = image.size
    if isinstance(image, Jpeg) and not image.info.get("progressive"):
        fraction = next((s for s in (1, 2, 4, 8) if -(-width // s) * -(-height // s) <= limit), 8)
        if fraction > 1:
            image.draft(None, (max(width // fraction, 1), max(height // fraction, 1)))
    if image.width * image.height > limit:
        raise ValueError(_too_many(f"{width} x {height} pixels", limit))


def _too_many(what: str, limit: int) -> str:
    return f"got {what}, expected at most {limit:,}, the {MAX_PIXELS_VARIABLE} limit"


class Jpeg(JpegImageFile):
    """An upright JPEG whose pixels are decoded at their first use; errors in the pixels name the image."""

    _turn: Image.Transpose | None = None

    @property
    def is_turned(self) -> bool:
        """Whether the stored pixels are turned upright after decoding."""
        return self._turn is not None

    def __init__(self, encoded: bytes | memoryview, name: str) -> None:
        super().__init__(BytesIO(encoded), name)
        self._turn = _turn_of(self)
        self.info.pop("exif", None)
        if self._turn is not None:
            self.getexif().pop(ExifTags.Base.Orientation, None)  # else other code would turn it again
        self._change_sides()

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> Any:
        with self._as_stored():
            drafted = super().draft(mode, size[::-1] if size and self._turn in _SIDEWAYS else size)
        if drafted is None or self._turn not in _SIDEWAYS:
            return drafted
        mode, (left, top, right, bottom) = drafted
        return mode, (top, left, bottom, right)

    def load(self) -> Any:
        is_encoded = bool(self.tile)
        try:
            with self._as_stored() if is_encoded else nullcontext():
                pixels = super().load()
            if is_encoded and self._turn is not None:
                self.im = self.im.transpose(self._turn)
                pixels = super().load()
        except Exception as error:  # noqa: BLE001 - as in decode
            raise _no_image(self.filename, error) from None
        return pixels

    @contextmanager
    def _as_stored(self) -> Iterator[None]:
        """Set `size` to the size of the stored pixels within the context."""
        self._change_sides()
        try:
            yield
        finally:
            self._change_sides()

    def _change_sides(self) -> None:
        if self._turn in _SIDEWAYS:
            self._size = self._size[::-1]


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def _without_texts(encoded: bytes | memoryview) -> bytes | memoryview:
    """Return the bytes of a PNG without its texts and color profile; return any other bytes unchanged.

    These chunks do not affect the pixels, and Pillow refuses an image with more than 1 MB of text.
    """
    if bytes(encoded[:8]) != _PNG_SIGNATURE:
        return encoded
    view, start, kept = memoryview(encoded), 0, []
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + length + 12  # with length, kind and checksum
        if kind in _PNG_TEXTS:
            kept.append(view[start:at])
            start = end
        at = end
    return b"".join([*kept, view[start:]]) if kept else encoded


@contextmanager
def _no_warnings() -> Iterator[None]:
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def unreadable(name: str, error: OSError) -> BadImageError:
    """Return the error for an image whose file cannot be read."""
    return BadImageError(f"{name}: cannot be read ({error.strerror}). Replace or remove it")


def _no_image(name: object, error: Exception) -> BadImageError:
    why = "unknown format" if isinstance(error, UnidentifiedImageError) else error
    ending = Path(str(name)).suffix.lower()
    if ending in UNREAD and isinstance(error, UnidentifiedImageError):
        return BadImageError(f"{name}: {ending} images are not supported. Convert the image to JPEG or PNG")
    return BadImageError(
        f"{name}: not a readable image ({why}), expected a JPEG, PNG or similar file. Replace or remove it"
    )
