"""Image files by their endings: those that are read, and those that are counted when they are left out."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from igcv.terminal import counted

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")  # of the others EPS would run a program

READ = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".gif", ".webp", ".bmp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""The endings of image files that are read; other files in a folder are not images of the data set."""

_PHONES = (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx")
_CAMERAS = (".raw", ".cr2", ".cr3", ".nef", ".dng", ".arw", ".orf", ".rw2", ".raf", ".pef")
_DRAWINGS = (".svg", ".eps", ".ai", ".psd", ".xcf", ".ico", ".icns", ".tga", ".dds", ".exr", ".hdr", ".pcx")
UNREAD = frozenset((*_PHONES, *_CAMERAS, *_DRAWINGS))
"""The endings of image files that are not read: converted to JPEG or PNG they are."""


def is_read(name: str) -> bool:
    """Whether a file of this name is read as an image; the case of its ending does not matter."""
    return name.lower().endswith(READ)


def unread(names: Iterable[str]) -> Counter[str]:
    """Return how many of some files are images that are not read, by their endings in lower case."""
    endings = (Path(name).suffix.lower() for name in names)
    return Counter(ending for ending in endings if ending in UNREAD)


def skipped_line(counts: Counter[str]) -> str:
    """Say in a line how many image files are skipped, the most frequent ending first; empty where none are.

    >>> skipped_line(Counter({".heic": 40}))
    '40 files skipped: .heic (convert them to JPEG or PNG)'
    >>> skipped_line(Counter({".svg": 1, ".heic": 2}))
    '3 files skipped: 2 .heic, 1 .svg (convert them to JPEG or PNG)'
    """
    if not counts:
        return ""
    alone = len(counts) == 1
    listed = ", ".join(ending if alone else f"{count:,} {ending}" for ending, count in counts.most_common())
    return f"{counted(counts.total(), 'file')} skipped: {listed} (convert them to JPEG or PNG)"
