"""The entry point: the exit status and the message of each way in which a command ends.

The commands are loaded inside `main`, so that Ctrl-C is quiet from the first moment on.
"""

import os
import signal
import sys
from contextlib import suppress

from igcv.errors import InputError, Interrupted, SharedError
from igcv.terminal import one_line


def main() -> None:
    """Run a command: what the user can fix is one line on standard error and exit status 2.

    What a signal ended has the exit status that shells give for the signal: 128 and its number.
    """
    try:
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


def _is_main() -> bool:
    """Whether this is the process that prints."""
    from igcv.commands.options import is_main

    return is_main()


def _complain(text: str) -> None:
    """Print a line on standard error, if its terminal is still there."""
    with suppress(OSError):
        print(f"igcv: {one_line(text)}", file=sys.stderr)
