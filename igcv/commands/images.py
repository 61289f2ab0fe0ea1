"""Images named on a command line: files, folders, patterns and standard input."""

import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from igcv.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class NamedImages:
    """Images named on a command line.

    Attributes:
        found: files, folders, and the image on standard input.
        missing: an error message for each missing image, by its name.
    """

    found: "list[str | Path | Image.Image]"
    missing: dict[str, str]

    def check_any(self) -> None:
        """Raise InputError if no image was found."""
        if not self.found:
            more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
            raise InputError(f"{next(iter(self.missing.values()))}{more}")


def named_images(words: Sequence[str]) -> NamedImages:
    """Return the images named by `words`; the name of an existing file is never a pattern.

    Raises:
        InputError: a word is a URL, or a pattern matches nothing.
    """
    found: list[str | Path | Image.Image] = []
    missing: dict[str, str] = {}
    for word in words:
        if word == STANDARD_INPUT:
            try:
                found.append(_standard_input())
            except InputError as error:
                missing[word] = str(error)
        elif os.path.lexists(word):
            found.append(word)
        elif re.match(r"\w+://", word):
            raise InputError(
                f"'{word}' is a URL, expected image files. Download the image first, "
                f"or pipe it: curl -s URL | igcv predict RUN {STANDARD_INPUT}"
            )
        elif glob.has_magic(word):
            found += _matches(word)
        else:
            missing[word] = f"file not found: '{word}'. Give image files or folders that exist"
    return NamedImages(found, missing)


def _matches(pattern: str) -> list[str]:
    """Return the sorted matches of a pattern; ** matches nested folders."""
    matched = sorted(glob.glob(pattern, recursive=True))
    if not matched:
        raise InputError(
            f"no file matches '{pattern}'. Give image files, folders or patterns such as '*.jpg'"
        )
    return matched


def _standard_input() -> "Image.Image":
    """Decode one image from standard input."""
    from igcv.data.decoding import MAX_BYTES, BadImageError, decode

    if sys.stdin.isatty():
        raise InputError(
            f"'{STANDARD_INPUT}' reads one image from standard input, got a terminal. Use igcv predict RUN - < a.jpg"
        )
    try:
        return decode(sys.stdin.buffer.read(MAX_BYTES), "standard input")
    except BadImageError as error:
        raise InputError(
            f"{error}. '{STANDARD_INPUT}' reads the bytes of one image. Pass a list of names with xargs"
        ) from error
