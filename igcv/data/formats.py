"""File extensions of supported images, and of image files that are skipped and counted."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from igcv.terminal import counted

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")  # without EPS, which runs a program

READ = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".png", ".apng", ".gif", ".webp", ".bmp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Extensions of supported image files; other files in a folder are not images of the data set."""

_PHONES = (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx")
_CAMERAS = (".raw", ".cr2", ".cr3", ".nef", ".dng", ".arw", ".orf", ".rw2", ".raf", ".pef")
_DRAWINGS = (".svg", ".eps", ".ai", ".psd", ".xcf", ".ico", ".icns", ".tga", ".dds", ".exr", ".hdr", ".pcx")
UNREAD = frozenset((*_PHONES, *_CAMERAS, *_DRAWINGS))
"""Extensions of unsupported image files, which need a conversion to JPEG or PNG."""


def is_read(name: str) -> bool:
    """Return whether a file name has the extension of a supported image, in any case."""
    return name.lower().endswith(READ)


def unread(names: Iterable[str]) -> Counter[str]:
    """Count the unsupported image files by extension in lower case."""
    endings = (Path(name).suffix.lower() for name in names)
    return Counter(ending for ending in endings if ending in UNREAD)


def skipped_line(counts: Counter[str]) -> str:
    """Return a one-line message about skipped image files, most frequent extension first; empty if there are none.

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
