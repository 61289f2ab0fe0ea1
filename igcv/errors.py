"""The one exception that a user can cause, and how its message is put together.

Every message states what was given, what was expected and how to go on; the command line prints it as
one line and ends with status 2.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence


class InputError(ValueError):
    """Something given by the user (an argument, a file, a folder) cannot be used as it is."""


class SharedError(InputError):
    """An input error that all of several processes raise, so that the first of them can say it for all."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked the program to end, and it has saved its work; `signal` is the signal's number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def unknown(
    kind: str, given: str, known: Iterable[str], hint: str = "", meant: str | None = None
) -> InputError:
    """An error for a name that is not among the `known` ones, naming the nearest match.

    Args:
        kind: what the name stands for, e.g. "model" or "recipe key".
        given: the name as the user wrote it.
        known: all names that would have been right.
        hint: how to see all of them; without it they are listed.
        meant: the name that is meant, where that is known.
    """
    names = sorted(known)
    nearest = [meant] if meant else difflib.get_close_matches(given[:99], names, n=1, cutoff=0.5)
    guess = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return InputError(f"unknown {kind} '{given[:99]}'{guess} ({hint or 'one of: ' + ', '.join(names)})")


def some(names: Iterable[str], limit: int = 5) -> str:
    """Return the first of some names for a message, and how many more there are."""
    first, more = (listed := list(names))[:limit], len(listed) - limit
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


def differences(names: Mapping[str, Sequence[str]], limit: int) -> str:
    """What two sets of names do not share, for a message; empty if there is nothing.

    Args:
        names: by what is the matter with them, e.g. "missing".
        limit: how many of each are named; of the others it says how many there are.
    """
    return "; ".join(f"{what}: {some(found, limit)}" for what, found in names.items() if found)
