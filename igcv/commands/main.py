"""The entry point: the exit status and the message of each way in which a command ends.

The commands are loaded inside `main`, so that Ctrl-C is quiet from the first moment on.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from igcv.errors import InputError, Interrupted, SharedError
from igcv.terminal import one_line


def main() -> None:
    """Run a command: what the user can fix is one line on standard error and exit status 2.

    What a signal ended has the exit status that shells give for the signal: 128 and its number.
    """
    try:
        with quiet_interrupts():
            from igcv.commands.app import app

            app()
    except InputError as error:
        if _is_main() or not isinstance(error, SharedError):
            _complain(str(error) if _is_main() else f"process {os.environ['RANK']}: {error}")
        sys.exit(2)
    except Interrupted as end:
        if _is_main():
            _complain(str(end))
        sys.exit(128 + end.signal)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what still closes files and threads
        sys.exit(128 + signal.SIGINT)


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the program at once while something is imported, else as ever.

    C code that imports swallows exceptions, or leaves modules half loaded, of which the next import complains.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process where an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt


def _is_main() -> bool:
    """Whether this is the process that prints."""
    from igcv.commands.options import is_main

    return is_main()


def _complain(text: str) -> None:
    """Print a line on standard error, if its terminal is still there."""
    with suppress(OSError):
        print(f"igcv: {one_line(text)}", file=sys.stderr)
