"""Consoles that print plain text, and streams that survive a closed terminal or pipe."""

import os
from typing import Any, TextIO, cast

from rich.console import Console
from rich.text import Text

from igcv.terminal import one_line


class PlainConsole(Console):
    """Console that prints text unchanged: no markup, no emoji codes, no highlighting, no encoding errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return Rich's text with control characters escaped; tables render their cells with this method."""
        return super().render_str(one_line(text, cast(TextIO, self.file).encoding or "utf-8"), **options)


class Outliving:
    """Stream that discards its output after its terminal or its reader has closed.

    A long job then continues instead of failing at its next line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._to_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
