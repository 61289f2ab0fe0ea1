"""Lines and bars: what every command prints with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from igcv.console import PlainConsole
from igcv.terminal import one_line

console, errors = PlainConsole(), PlainConsole(stderr=True)


def print_line(text: str, *, bold: bool = False, error: bool = False) -> None:
    """Print one line, as it is; an `error` goes to standard error."""
    (errors if error else console).print(one_line(text), style="bold" if bold else None, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while images are classified, in a terminal; it takes images done and images in all."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
