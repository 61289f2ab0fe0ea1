"""Inspection of a set of images before training: sizes, modes, unreadable images and duplicates.

Equal images have files with equal bytes. Near duplicates have perceptual hashes that differ in few bits (ImageHash's
phash, 64 bits) and thumbnails with correlated gray levels. Images with little detail have similar hashes by chance.
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

HASHES = "imagehash"  # the package; the search for near duplicates needs it
NEAR_BITS = 6  # maximum number of different bits, of 64, between the hashes of near duplicates
NEAR_CORRELATION = 0.7  # minimum correlation of the gray levels of their thumbnails
THUMBNAIL = 16  # pixels
DETAIL = 32  # pixels of the shorter side; smaller images are too coarse for a perceptual hash
DRAFT = 256  # pixels, a sufficient size for decoding a large JPEG
COMPARED = 50_000  # maximum number of files to search for copies before training
_END_BYTES = 4096
_ROWS = 256  # hashes compared with all others at a time


Member = TypeVar("Member")


@dataclass(frozen=True)
class Look:
    """Properties of one image.

    Attributes:
        size: width and height in pixels; (0, 0) for an unreadable image.
        mode: Pillow's mode of the stored pixels, e.g. "RGB", "L", "CMYK".
        digest: hash of the bytes of the image file, or of the pixels if the image has no file of its own.
        phash: perceptual hash; None for unreadable or small images, or without ImageHash.
        thumbnail: gray levels, uint8 (THUMBNAIL, THUMBNAIL).
        error: why the image cannot be read; empty for a readable image.
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
    """Return the properties of all images, in order; `progress` gets the number of finished images and the total."""
    looks = []
    with ThreadPoolExecutor(threads) as pool:
        for look in pool.map(lambda i: look_at(images, i), range(len(images))):
            looks.append(look)
            progress(len(looks), len(images))
    return looks


def look_at(images: Images, i: int) -> Look:
    """Return the properties of image `i` of a set."""
    try:
        image, _ = images[i]
        size = image.size
        image.draft("RGB", (DRAFT, DRAFT))  # for a JPEG; other formats are decoded at full size
        image.load()
    except InputError as error:  # raised for a damaged record, too
        return Look(error=str(error))
    mode, digest = _of_file(images.name(i), image)
    gray = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Look(size, mode, digest, _phash(image, min(size)), np.asarray(gray))


def _of_file(name: str, image: Image.Image) -> tuple[str, bytes]:
    """Return mode and digest of an image file, or of the pixels if the image has no file of its own."""
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
    """Return the numbers of equal images, one list for each image that occurs more than once."""
    return _alike(range(len(looks)), lambda i: None if looks[i].error else looks[i].digest)


def copies(sets: Sequence[Sequence[str]]) -> list[list[tuple[int, str]]]:
    """Return the files with equal bytes in several sets; only files of equal size are read.

    Args:
        sets: the paths of the files of each set.

    Returns:
        One list for each content, with the set number and the path of every file.
    """
    groups = [[(number, path) for number, paths in enumerate(sets) for path in paths]]
    for key in (_size, _end, _digest):
        found = [alike for group in groups for alike in _files_alike(group, key)]
        groups = [alike for alike in found if len({number for number, _ in alike}) > 1]
    return groups


def _alike(members: Iterable[Member], key: Callable[[Member], Hashable]) -> list[list[Member]]:
    """Return lists of members with equal keys, without single members and members whose key is None."""
    by_key: dict[Hashable, list[Member]] = {}
    for member in members:
        by_key.setdefault(key(member), []).append(member)
    return [found for value, found in by_key.items() if value is not None and len(found) > 1]


def _files_alike(
    files: Iterable[tuple[int, str]], key: Callable[[str], Hashable]
) -> list[list[tuple[int, str]]]:
    return _alike(files, lambda file: key(file[1]))


def _size(path: str) -> int | None:
    """Return the size of a regular file in bytes; None for other or empty files."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size or None if stat.S_ISREG(status.st_mode) else None


def _end(path: str) -> bytes | None:
    """Return the last bytes of a file, where photos of one camera differ."""
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
    """Return pairs of near duplicates with unequal bytes, one image number of `some` and one of `others`."""
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
    """Return whether two images with similar hashes are near duplicates with unequal bytes."""
    if first.digest == second.digest:
        return False
    gray = np.stack([first.thumbnail, second.thumbnail]).reshape(2, -1).astype(float)
    gray -= gray.mean(1, keepdims=True)
    lengths = np.linalg.norm(gray, axis=1).prod()
    return bool(lengths > 0 and gray[0] @ gray[1] >= NEAR_CORRELATION * lengths)
