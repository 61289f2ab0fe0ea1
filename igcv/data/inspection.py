"""What is to be known about the images of a set before training: sizes, kinds, unreadable ones, and equal ones.

Equal images are found by the bytes of their files. Nearly equal ones have perceptual hashes that differ in few bits
(ImageHash's phash, 64 bits), and thumbnails of like grey levels: images without much detail have like hashes by chance.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from igcv.data.decoding import stored_mode
from igcv.data.images import Images
from igcv.errors import InputError
from igcv.extras import installed

HASHES = "imagehash"  # the package; without it nearly equal images are not looked for
NEAR_BITS = 6  # of 64, in which the hashes of nearly equal images differ at most
NEAR_CORRELATION = 0.7  # of the grey levels of their thumbnails, at least
THUMBNAIL = 16  # pixels
DETAIL = 32  # pixels of the shorter side; smaller images are too coarse for a perceptual hash
DRAFT = 256  # pixels that a large JPEG need not be decoded beyond
COMPARED = 50_000  # files at most that are looked at for copies before a training
_END_BYTES = 4096
_ROWS = 256  # hashes compared at a time with all others


Member = TypeVar("Member")


@dataclass(frozen=True)
class Look:
    """What one image shows.

    Attributes:
        size: width and height in pixels; (0, 0) for an unreadable image.
        mode: how its file stores pixels, by Pillow's names, e.g. "RGB", "L", "CMYK".
        digest: of the bytes of its file, or of its pixels where it has none of its own.
        phash: perceptual hash; None for unreadable or small images, or without ImageHash.
        thumbnail: grey levels, uint8 (THUMBNAIL, THUMBNAIL).
        error: why it cannot be read; empty if it can.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    digest: bytes = b""
    phash: int | None = None
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL), np.uint8))
    error: str = ""


def look_at_all(
    images: Images, threads: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Look]:
    """Return what each image shows, in their order; `progress` is told how many are done, of how many."""
    looks = []
    with ThreadPoolExecutor(threads) as pool:
        for look in pool.map(lambda i: look_at(images, i), range(len(images))):
            looks.append(look)
            progress(len(looks), len(images))
    return looks


def look_at(images: Images, i: int) -> Look:
    """Return what image `i` of a set shows."""
    try:
        image, _ = images[i]
        size = image.size
        image.draft("RGB", (DRAFT, DRAFT))  # of a JPEG; other formats are decoded whole
        image.load()
    except InputError as error:  # of a damaged record, too
        return Look(error=str(error))
    mode, digest = _of_file(images.name(i), image)
    grey = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Look(size, mode, digest, _phash(image, min(size)), np.asarray(grey))


def _of_file(name: str, image: Image.Image) -> tuple[str, bytes]:
    """The mode and the digest of an image: of its own file, else of its pixels."""
    file = Path(name)
    if not file.is_file():
        return image.mode, hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    encoded = file.read_bytes()
    return stored_mode(encoded), hashlib.sha256(encoded).digest()


def _phash(image: Image.Image, side: int) -> int | None:
    if side < DETAIL or not installed(HASHES):
        return None
    import imagehash

    bits = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def equal_images(looks: Sequence[Look]) -> list[list[int]]:
    """Return the numbers of images that are equal to each other, a list for each that is there more than once."""
    return _alike(range(len(looks)), lambda i: None if looks[i].error else looks[i].digest)


def copies(sets: Sequence[Sequence[str]]) -> list[list[tuple[int, str]]]:
    """Return the files that are in several sets with equal bytes; only of files of one size more than that is read.

    Args:
        sets: the paths of the files of each set.

    Returns:
        A list for each content: the number of its set and the path of every file.
    """
    groups = [[(number, path) for number, paths in enumerate(sets) for path in paths]]
    for key in (_size, _end, _digest):
        found = [alike for group in groups for alike in _files_alike(group, key)]
        groups = [alike for alike in found if len({number for number, _ in alike}) > 1]
    return groups


def _alike(members: Iterable[Member], key: Callable[[Member], Hashable]) -> list[list[Member]]:
    """The members whose keys are equal, a list for each key that more than one has; without those whose key is None."""
    by_key: dict[Hashable, list[Member]] = {}
    for member in members:
        by_key.setdefault(key(member), []).append(member)
    return [found for value, found in by_key.items() if value is not None and len(found) > 1]


def _files_alike(
    files: Iterable[tuple[int, str]], key: Callable[[str], Hashable]
) -> list[list[tuple[int, str]]]:
    return _alike(files, lambda file: key(file[1]))


def _size(path: str) -> int | None:
    """The bytes of a plain file; None for others, and for empty ones."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size or None if stat.S_ISREG(status.st_mode) else None


def _end(path: str) -> bytes | None:
    """The last bytes of a file, in which photos of one camera differ."""
    try:
        with open(path, "rb") as file:
            file.seek(max(os.path.getsize(path) - _END_BYTES, 0))
            return file.read()
    except OSError:
        return None


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def nearly_equal(looks: Sequence[Look], some: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of nearly equal, but not equal, images, one of `some` and one of `others` (numbers of images)."""
    left, right = (
        np.array([i for i in part if looks[i].phash is not None], np.int64) for part in (some, others)
    )
    hashes = [np.array([looks[i].phash for i in part], np.uint64) for part in (left, right)]
    pairs = []
    for row in range(0, len(left), _ROWS):
        bits = np.bitwise_count(hashes[0][row : row + _ROWS, None] ^ hashes[1])
        for i, j in np.argwhere(bits <= NEAR_BITS):
            pairs.append((int(left[row + i]), int(right[j])))
    return [pair for pair in pairs if _similar(*(looks[i] for i in pair))]


def _similar(first: Look, second: Look) -> bool:
    """Whether two images of like hashes are nearly equal, but not equal."""
    if first.digest == second.digest:
        return False
    grey = np.stack([first.thumbnail, second.thumbnail]).reshape(2, -1).astype(float)
    grey -= grey.mean(1, keepdims=True)
    lengths = np.linalg.norm(grey, axis=1).prod()
    return bool(lengths > 0 and grey[0] @ grey[1] >= NEAR_CORRELATION * lengths)
