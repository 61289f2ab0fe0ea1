"""From the words of a command line to the images that they name: files, folders, patterns, standard input."""

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
    """What the words of a command line name.

    Attributes:
        found: files, folders, and the image on standard input.
        missing: by the name of each image that there is not, why.
    """

    found: "list[str | Path | Image.Image]"
    missing: dict[str, str]

    def check_any(self) -> None:
        """Raise InputError where there is not one image."""
        if not self.found:
            more = f" (and {len(self.missing) - 1} more)" if len(self.missing) > 1 else ""
            raise InputError(f"{next(iter(self.missing.values()))}{more}")


def named_images(words: Sequence[str]) -> NamedImages:
    """Return the images that words name; a word that names a file is never a pattern.

    Raises:
        InputError: a word is an address, or a pattern matches nothing.
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
                f"'{word}' is an address, expected image files. Fetch it first, "
                f"or hand it over: curl -s ADDRESS | igcv predict RUN {STANDARD_INPUT}"
            )
        elif glob.has_magic(word):
            found += _matches(word)
        else:
            missing[word] = f"file not found: '{word}'. Give image files or folders that exist"
    return NamedImages(found, missing)


def _matches(pattern: str) -> list[str]:
    """Return what a pattern matches, sorted; ** reaches folders below."""
    matched = sorted(glob.glob(pattern, recursive=True))
    if not matched:
        raise InputError(
            f"no file matches '{pattern}'. Give image files, folders or patterns such as '*.jpg'"
        )
    return matched


def _standard_input() -> "Image.Image":
    """Decode the one image whose bytes come on standard input."""
    from igcv.data.decoding import MAX_BYTES, BadImageError, decode

    if sys.stdin.isatty():
        raise InputError(
            f"'{STANDARD_INPUT}' takes the bytes of one image from standard input, e.g. igcv predict RUN - < a.jpg"
        )
    try:
        return decode(sys.stdin.buffer.read(MAX_BYTES), "standard input")
    except BadImageError as error:
        raise InputError(
            f"{error}. '{STANDARD_INPUT}' takes the bytes of one image; pass a list of names on with xargs"
        ) from error
