"""Entry point of the command line, with exit statuses and error messages.

`main` imports the commands itself: Ctrl-C during the imports then prints no traceback.
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
    """Run a command.

    An `InputError` prints one line on standard error, with exit status 2. After a signal, the exit status is 128 plus
    the signal number.
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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the clean-up of files and threads
        sys.exit(128 + signal.SIGINT)


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """End the program immediately on Ctrl-C during an import, otherwise raise KeyboardInterrupt.

    C code that imports modules swallows exceptions or leaves modules partly loaded, and the next import then fails.
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
    """Raise KeyboardInterrupt, or end the process during an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        frame = frame.f_back
    raise KeyboardInterrupt


def _is_main() -> bool:
    """Return whether this process prints (rank 0)."""
    from igcv.commands.options import is_main

    return is_main()


def _complain(text: str) -> None:
    """Print a line on standard error; ignore a closed terminal."""
    with suppress(OSError):
        print(f"igcv: {one_line(text)}", file=sys.stderr)
