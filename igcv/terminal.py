"""Safe text for terminals and shells, from names with any characters."""

import shlex
from unicodedata import category

HIDDEN = ("Cc", "Cs")  # Unicode categories: control characters, and surrogates for bytes that are not UTF-8


def one_line(text: str, encoding: str = "utf-8") -> str:
    r"""Return text on one line, with control characters and characters outside `encoding` escaped.

    >>> print(one_line("caf\udce9 \x1b[2J"))
    caf\xe9 \x1b[2J
    """
    spelled = "".join(_spelled(c) if category(c) in HIDDEN else c for c in text)
    return spelled.encode(encoding, "backslashreplace").decode(encoding)


def counted(number: int, name: str) -> str:
    """Return a count with its noun, singular or plural.

    >>> counted(1, "epoch"), counted(2, "epoch"), counted(1200, "class"), counted(3, "batch")
    ('1 epoch', '2 epochs', '1,200 classes', '3 batches')
    """
    plural = f"{name}es" if name.endswith(("s", "tch")) else f"{name}s"
    return f"{number:,} {name if number == 1 else plural}"


def quoted(word: object) -> str:
    r"""Return a word quoted for a shell, in printable characters only.

    >>> print(quoted("my run [1]"), quoted("caf\udce9"))
    'my run [1]' $'caf\xe9'
    """
    text = str(word)
    if one_line(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(f"\\{c}" if c in "\\'" else one_line(c) for c in text) + "'"


def _spelled(character: str) -> str:
    """Return the escape sequence of a character; an undecodable byte becomes \\xNN."""
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()
