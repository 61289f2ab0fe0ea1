"""The one decoder: what the pixels of an image mean, whichever way it comes in.

The result is always 8-bit RGB, upright as its EXIF data say, and composited over white where it is transparent.
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

BACKGROUND = "white"  # what browsers and viewers show behind a transparent image
MAX_PIXELS = 89_478_485  # where Pillow begins to suspect a small file that is made to fill the memory
MAX_PIXELS_VARIABLE = "IGCV_MAX_PIXELS"  # it reaches every command, Python and all loader processes alike
MAX_BYTES = 2**28  # of an image file
_WARNINGS = threading.RLock()  # which warnings are shown is the same for all threads
_TURNS = {  # from pixels as they are stored to the upright image, by the EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}  # width and height change places


class BadImageError(InputError):
    """One image cannot be read; the message starts with its name."""


def max_pixels() -> int:
    """Return the largest number of pixels that an image may have: `IGCV_MAX_PIXELS`, or 89,478,485.

    Raises:
        InputError: the variable is not a whole number above 0.
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
    """Decode the bytes of one image file to upright PIL RGB; an RGB JPEG only when its pixels are first needed.

    Until then `Image.draft` can have that JPEG decoded at a smaller size. A JPEG above `max_pixels()` is decoded at
    1/2, 1/4 or 1/8. Of several frames the first is taken.

    Raises:
        BadImageError: it is no image, is cut short, has more than 16 bits a channel or more than `max_pixels()`.
    """
    limit = max_pixels()
    try:
        image = _opened(encoded, name, limit)
        _fit(image, limit)
    except Exception as error:  # noqa: BLE001 - on damaged bytes Pillow's decoders raise nearly anything
        raise _no_image(name, error) from None
    return image if isinstance(image, Jpeg) and image.mode == "RGB" else as_rgb(image, name)


def _opened(encoded: bytes | memoryview, name: str, limit: int) -> Image.Image:
    """Read the header of an image file."""
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user asked for more, and Pillow looks at crops as well
    try:
        with _no_warnings():  # of too many pixels, which are refused after this, and of damaged metadata
            if bytes(encoded[:3]) == b"\xff\xd8\xff":
                return Jpeg(encoded, name)
            return Image.open(BytesIO(_without_texts(encoded)), formats=IMAGE_FORMATS)
    except Image.DecompressionBombError:  # of more than twice the limit
        raise ValueError(_too_many("the image has", limit)) from None


def read_image(path: str | Path) -> Image.Image:
    """Decode an image file (see `decode`).

    Raises:
        BadImageError: it cannot be read, is no plain file, or is no image of a size that fits the memory.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a named pipe would wait indefinitely
            raise BadImageError(f"{path}: not a file; replace or remove it")
        if status.st_size > MAX_BYTES:
            raise BadImageError(
                f"{path}: {status.st_size:,} bytes, expected at most {MAX_BYTES:,}; scale it down"
            )
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(str(path), error) from None
    return decode(encoded, str(path))


def stored_mode(encoded: bytes | memoryview) -> str:
    """Return how the bytes of an image file, which `decode` can read, store its pixels, by Pillow's names: "CMYK"."""
    return _opened(encoded, "", max_pixels()).mode


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return a PIL image of any mode as upright 8-bit RGB; the image itself is not changed.

    Transparency is composited over white. 16-bit values v become v / 257, rounded: 65535 becomes 255.

    Raises:
        BadImageError: its pixels cannot be read, or have more than 16 bits a channel.
    """
    try:
        image.load()
        turn = _turn_of(image)  # a PNG may have its EXIF data behind the pixels
        image = _eight_bits(image, name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
        image = image if image.mode == "RGB" else image.convert("RGB")
        if turn is not None:
            image = image.transpose(turn)
            image.info.pop("exif", None)  # it is upright now
    except BadImageError:
        raise
    except Exception as error:  # noqa: BLE001 - as in decode
        raise _no_image(name, error) from None
    return image


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return an image of 16-bit gray values as 8-bit gray, and any other 8-bit image as it is."""
    if image.mode[0] not in "IF":
        return image
    # Pillow opens 16-bit files of these two formats with 32 bits a pixel, in some versions or in all.
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not is_16_bit:
        raise BadImageError(
            f"{name}: its pixels have 32 bits (mode {image.mode}), expected 8 or 16; convert it to 8-bit RGB or gray"
        )
    values = np.asarray(image).astype(np.uint32)
    gray = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:  # the value that stands for a transparent pixel
        gray.putalpha(
            Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        )
    gray.info |= {key: value for key, value in image.info.items() if key == "exif"}
    return gray


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how an image is turned upright by its EXIF data; None if it is upright, or if they are damaged.

    XMP data are not asked, as browsers ignore them too. Pillow turns TIFF files itself.
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
    """Have a JPEG of more than `limit` pixels decoded at a fraction; ValueError for any other such image.

    A progressive JPEG needs memory for all its pixels at any size.
    """
    width, height = image.size
    if isinstance(image, Jpeg) and not image.info.get("progressive"):
        fraction = next((s for s in (1, 2, 4, 8) if -(-width // s) * -(-height // s) <= limit), 8)
        if fraction > 1:
            image.draft(None, (max(width // fraction, 1), max(height // fraction, 1)))
    if image.width * image.height > limit:
        raise ValueError(_too_many(f"{width} x {height} pixels:", limit))


def _too_many(what: str, limit: int) -> str:
    return f"{what} more than {limit:,} pixels, the limit that {MAX_PIXELS_VARIABLE} sets"


class Jpeg(JpegImageFile):
    """A JPEG of which only the header was read, upright; names itself when its pixels turn out to be unreadable."""

    _turn: Image.Transpose | None = None

    @property
    def is_turned(self) -> bool:
        """Whether the image is stored otherwise than upright."""
        return self._turn is not None

    def __init__(self, encoded: bytes | memoryview, name: str) -> None:
        super().__init__(BytesIO(encoded), name)
        self._turn = _turn_of(self)
        self.info.pop("exif", None)
        if self._turn is not None:
            self.getexif().pop(ExifTags.Base.Orientation, None)  # so that nobody turns it again
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
        """Let `size` be that of the pixels in the file meanwhile."""
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
    """Return the bytes of a PNG without its texts and color profile; anything else as it is.

    No pixel follows from them, and Pillow refuses a whole image whose texts are longer than 1 MB.
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
    """The error for an image whose file cannot be read."""
    return BadImageError(f"{name}: cannot be read ({error.strerror}); replace or remove it")


def _no_image(name: object, error: Exception) -> BadImageError:
    why = "its content is of no known format" if isinstance(error, UnidentifiedImageError) else error
    ending = Path(str(name)).suffix.lower()
    if ending in UNREAD and isinstance(error, UnidentifiedImageError):
        return BadImageError(f"{name}: no readable image ({ending} is not read); convert it to JPEG or PNG")
    return BadImageError(
        f"{name}: no readable image ({why}); expected a JPEG, PNG or similar file; replace or remove it"
    )
