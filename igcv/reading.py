"""Reader of UTF-8 text files, with or without a byte order mark."""

import codecs
from pathlib import Path

from igcv.errors import InputError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE starts like UTF-16 LE


def read_text(path: str | Path, holds: str, errors: str = "strict") -> str:
    """Return the text of a file.

    Args:
        path: the file.
        holds: the expected content, for messages, e.g. "class names, one per line".
        errors: handling of bytes that are not UTF-8, see `bytes.decode`.

    Raises:
        InputError: the file cannot be read or has another encoding.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected {holds}. Check the path"
        ) from None
    return text_of(content, str(path), holds, errors)


def text_of(content: bytes, name: str, holds: str, errors: str = "strict") -> str:
    """Return the text in the bytes of a file; see `read_text` for the arguments and errors."""
    if content.startswith(_WIDE) or b"\0" in content:
        raise InputError(
            f"{name}: got UTF-16 or binary data, expected {holds} in UTF-8. Save the file as UTF-8"
        )
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}, line {line}: byte {error.object[error.start]:#x} is not UTF-8, expected {holds}. "
            "Save the file as UTF-8"
        ) from None
