"""Silence for libraries that report their own work on standard error."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


class Nowhere(io.TextIOBase):
    """Stream that discards its text. It stays open: log handlers that a library creates keep a reference to it."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def silent() -> Iterator[None]:
    """Discard standard error, log records and warnings inside the block.

    Inference engines write to standard error from C++, below Python's own stream. Some libraries also add a handler to
    the root logger, which is removed again.
    """
    kept, disabled, handlers = os.dup(2), logging.root.manager.disable, [*logging.root.handlers]
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        logging.disable(logging.CRITICAL)
        with redirect_stderr(Nowhere()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.handlers[:] = handlers
        logging.disable(disabled)
        os.dup2(kept, 2)
        os.close(kept)
