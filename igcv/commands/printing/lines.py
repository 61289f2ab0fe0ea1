"""Lines and bars: what every command prints with."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from igcv.console import PlainConsole
from igcv.terminal import one_line

UNLIMITED = 10_000  # characters of a line
SILENCE_S = 15.0  # seconds after which a job says how far it is, where there is no bar
console, errors = PlainConsole(), PlainConsole(stderr=True)


def print_line(text: str, *, bold: bool = False) -> None:
    """Print one line, as it is."""
    console.print(one_line(text), style="bold" if bold else None, soft_wrap=True)


def print_rows(table: Table) -> None:
    """Print a table with each row on one line, also where the terminal is narrower or there is none."""
    unlimited = console.options.update(max_width=UNLIMITED)
    width = max(console.width, console.measure(table, options=unlimited).maximum)
    PlainConsole(width=width).print(table)


def print_error(text: str) -> None:
    """Print one line on standard error, above a bar where there is one."""
    print(one_line(text), file=sys.stderr, flush=True)


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a job is: a bar in a terminal, else a line on standard error now and then.

    Args:
        unit: what is counted.

    Yields:
        A callback that takes what is done and what there is in all; before its first call nothing is known.
    """
    if not errors.is_terminal:
        yield _Lines(unit)
        return
    both = console.is_terminal  # then lines are printed above the bar
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console if both else errors, transient=True, redirect_stdout=both) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show in a terminal that something of unknown length is at work, and for how long."""
    columns = (TextColumn(text), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(text, total=None)
        yield


class _Lines:
    """A line on standard error after each `SILENCE_S` seconds."""

    def __init__(self, unit: str) -> None:
        self.unit, self.spoke = unit, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.spoke > SILENCE_S:
            self.spoke = time.monotonic()
            print_error(f"{done:,} of {total:,} {self.unit}")
