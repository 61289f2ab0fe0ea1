"""Labelled images by number, wherever they are kept, and how a set of them is split in two."""

import os
import stat
import threading
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from igcv.data.recordio import RecordFile
from igcv.errors import InputError

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")  # of the others EPS would run a program
MAX_PIXELS = 89_478_485  # where Pillow begins to suspect a small file that is made to fill the memory
MAX_BYTES = 2**28  # of an image file
_OPENING = threading.Lock()  # which warnings are shown is the same for all threads


class BadImageError(InputError):
    """One image cannot be read; the message starts with its name."""


class Images(Protocol):
    """Labelled images by number; can be pickled to loader processes."""

    labels: np.ndarray
    """The class of each image, int64 of shape (len,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        """Image `i` as PIL RGB, and its label; raises BadImageError, of a JPEG when its pixels are first needed."""
        ...

    def name(self, i: int) -> str:
        """What messages call image `i`: its file, or its number in a file."""
        ...

    def key(self, i: int) -> str:
        """The name of image `i` in its source, wherever that is kept: a relative file name with '/', or a number."""
        ...


def split_indices(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split image numbers in two, class by class, the same way for the same seed.

    Args:
        labels: the class of each image, shape (n,).
        fraction: the part of each class that goes to the second set, between 0 and 1; of a class with two or
            more images at least one goes to each set, and a single image stays in the first.
        seed: decides which images.

    Returns:
        The numbers of the first and of the second set, each sorted, int64.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction is {fraction}, expected a number between 0 and 1")
    rng = np.random.default_rng(seed)
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        chosen.append(members[:count])
    second = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), second), second


def decode(encoded: bytes | memoryview, name: str) -> Image.Image:
    """Decode the bytes of one image file to PIL RGB; a JPEG in colour only when its pixels are first needed.

    Until then `Image.draft` can have that JPEG decoded at a smaller size. Of several frames the first is taken.

    Raises:
        BadImageError: it is no image, is cut short, has more than 8 bits a channel or more than `MAX_PIXELS`.
    """
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            image = Image.open(BytesIO(encoded), formats=IMAGE_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,} in all")
        if image.format == "JPEG" and image.mode == "RGB":
            return _Jpeg(BytesIO(encoded), name)
        if image.mode[0] not in "IF":  # Pillow would clip 16-bit and float pixels to white
            return image.convert("RGB")
    except Exception as error:  # noqa: BLE001 - on damaged bytes Pillow's decoders raise nearly anything
        raise _no_image(name, error) from None
    raise BadImageError(f"{name}: its pixels are not 8-bit ({image.mode}); convert it to 8-bit RGB or grey")


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


class _Jpeg(JpegImageFile):
    """A JPEG of which only the header was read; names itself when its pixels turn out to be unreadable."""

    def load(self) -> Any:
        try:
            return super().load()
        except Exception as error:  # noqa: BLE001 - as in decode
            raise _no_image(self.filename, error) from None


def _no_image(name: object, error: Exception) -> BadImageError:
    why = "its content is of no known format" if isinstance(error, UnidentifiedImageError) else error
    return BadImageError(
        f"{name}: no readable image ({why}); expected a JPEG, PNG or similar file; replace or remove it"
    )


class ArrayImages:
    """Images held in memory: pixels uint8 (N, H, W, 3)."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, kind: str) -> None:
        self.pixels, self.labels, self.kind = pixels, np.asarray(labels, np.int64), kind

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[i]), int(self.labels[i])

    def name(self, i: int) -> str:
        return f"{self.kind} image {i}"

    def key(self, i: int) -> str:
        return str(i)


class FileImages:
    """Images in files of their own, in the folder `root` and below."""

    def __init__(self, files: Sequence[str], labels: Sequence[int], root: str | Path = "") -> None:
        self.files, self.labels, self.root = files, np.asarray(labels, np.int64), root

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return read_image(self.files[i]), int(self.labels[i])

    def name(self, i: int) -> str:
        return self.files[i]

    def key(self, i: int) -> str:
        return Path(self.files[i]).relative_to(self.root).as_posix()


class RecordImages:
    """Images in a RecordIO file."""

    def __init__(self, path: str | Path) -> None:
        self.records = RecordFile(path)
        self.labels = self.records.labels()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        label, encoded = self.records[i]
        return decode(encoded, self.name(i)), label

    def name(self, i: int) -> str:
        return f"{self.records.path} record {i}"

    def key(self, i: int) -> str:
        return str(self.records.keys[i])


class SubsetImages:
    """Some images of a larger set, by their numbers there."""

    def __init__(self, images: Images, indices: np.ndarray) -> None:
        self.images, self.indices, self.labels = images, indices, images.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.images[int(self.indices[i])]

    def name(self, i: int) -> str:
        return self.images.name(int(self.indices[i]))

    def key(self, i: int) -> str:
        return self.images.key(int(self.indices[i]))


def unreadable(name: str, error: OSError) -> BadImageError:
    """The error for an image whose file cannot be read."""
    return BadImageError(f"{name}: cannot be read ({error.strerror}); replace or remove it")
