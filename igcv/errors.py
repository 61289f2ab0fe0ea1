"""Exceptions of igcv, and helpers for their messages.

The message of an `InputError` states the given value, the expected value and, where the fix is not obvious, the fix.
The command line prints the message on one line and exits with status 2.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence


class InputError(ValueError):
    """Invalid user input: an argument, a file or a folder."""


class SharedError(InputError):
    """Input error that every process of a run raises; rank 0 alone prints it."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """End of the program after a signal, with its work saved; `signal` is the signal number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def unknown(
    kind: str, given: str, known: Iterable[str], hint: str = "", meant: str | None = None
) -> InputError:
    """Return an error for an unknown name, with the closest known name.

    Args:
        kind: the kind of name, e.g. "model" or "recipe key".
        given: the name as the user wrote it.
        known: all valid names.
        hint: how to list all valid names; if empty, the message lists them.
        meant: the intended name, if known.
    """
    names = sorted(known)
    nearest = [meant] if meant else difflib.get_close_matches(given[:99], names, n=1, cutoff=0.5)
    guess = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return InputError(f"unknown {kind} '{given[:99]}'{guess} ({hint or 'one of: ' + ', '.join(names)})")


def some(names: Iterable[str], limit: int = 5) -> str:
    """Return the first `limit` names and the number of the others, for a message."""
    first, more = (listed := list(names))[:limit], len(listed) - limit
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


def differences(names: Mapping[str, Sequence[str]], limit: int) -> str:
    """Return the names in each kind of difference, for a message; empty if there is no difference.

    Args:
        names: the names of each kind, e.g. of kind "missing".
        limit: most names to list per kind; the message counts the others.
    """
    return "; ".join(f"{what}: {some(found, limit)}" for what, found in names.items() if found)
