"""What a run has to look up for between two steps: signals that ask it to end, and the time to save."""

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, Self

# Ctrl-C; a scheduler's; that of a terminal that is closed
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_S = 1.0  # a terminal and torchrun both pass on the same Ctrl-C, one shortly after the other
SAVE = 1  # what `Watch.wish` says when it is time; the number of a signal is told as one more


class Watch(AbstractContextManager["Watch"]):
    """Notes signals instead of obeying them, while it is open; a second Ctrl-C ends the process at once.

    Args:
        save_s: seconds between two saves; infinity for none.
    """

    def __init__(self, save_s: float) -> None:
        self._save_s, self._saved = save_s, time.monotonic()
        self._signal, self._caught = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may ask for signals
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wish(self) -> int:
        """What this process wants after the step: nothing (0), to `SAVE`, or to end (`SAVE` + a signal's number)."""
        due = time.monotonic() - self._saved >= self._save_s
        return SAVE + self._signal if self._signal else SAVE * due

    def saved(self) -> None:
        """Count the time to the next save from now."""
        self._saved = time.monotonic()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal and number == signal.SIGINT and now - self._caught > TOGETHER_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if not self._signal:
            self._signal, self._caught = number, now
