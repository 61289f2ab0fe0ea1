"""Printing of lines, tables and progress bars, for every command."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from igcv.console import PlainConsole
from igcv.terminal import one_line

UNLIMITED = 10_000  # characters per line
SILENCE_S = 15.0  # seconds between progress lines without a progress bar
console, errors = PlainConsole(), PlainConsole(stderr=True)


def print_line(text: str, *, bold: bool = False) -> None:
    """Print one line of plain text."""
    console.print(one_line(text), style="bold" if bold else None, soft_wrap=True)


def print_rows(table: Table) -> None:
    """Print a table with each row on one line, whatever the width of the terminal."""
    unlimited = console.options.update(max_width=UNLIMITED)
    width = max(console.width, console.measure(table, options=unlimited).maximum)
    PlainConsole(width=width).print(table)


def print_error(text: str) -> None:
    """Print one line on standard error, above any progress bar."""
    print(one_line(text), file=sys.stderr, flush=True)


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a job: a bar in a terminal, otherwise occasional lines on standard error.

    Args:
        unit: plural name of the counted items.

    Yields:
        A callback that takes the number of completed items and the total; the total is unknown before the first call.
    """
    if not errors.is_terminal:
        yield _Lines(unit)
        return
    both = console.is_terminal  # Rich then prints lines above the bar
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console if both else errors, transient=True, redirect_stdout=both) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show a running job of unknown length in a terminal, with the elapsed time."""
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn(text), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(text, total=None)
        yield


class _Lines:
    """Progress callback that prints a line on standard error every `SILENCE_S` seconds."""

    def __init__(self, unit: str) -> None:
        self.unit, self.spoke = unit, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self.spoke > SILENCE_S:
            self.spoke = time.monotonic()
            print_error(f"{done:,} of {total:,} {self.unit}")
