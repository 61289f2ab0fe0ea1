"""Local web server for a page, with the headers that enable WebAssembly threads."""

import http.server
from collections.abc import Callable
from functools import partial
from pathlib import Path

from igcv.errors import InputError

ADDRESS = "127.0.0.1"
TYPES = {".html": "text/html", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
TYPES |= {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
TYPES |= {".png": "image/png", ".jpg": "image/jpeg", ".onnx": "application/octet-stream"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Request handler for a folder, with cross-origin isolation: browsers require it for shared memory."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012 - a class attribute, as in the base class

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")  # a reload shows a rewritten page
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Suppress the log line of each request."""


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Return a server of `folder` on 127.0.0.1, not started; port 0 selects any free port.

    Raises:
        InputError: the port is not available.
    """
    try:
        return http.server.ThreadingHTTPServer((ADDRESS, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise InputError(
            f"cannot serve on port {port} of {ADDRESS}: {error.strerror}. Give another port, or 0 for any free port"
        ) from error


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve a page until Ctrl-C; `say` receives the address."""
    with make_server(folder, port) as server:
        say(f"http://{ADDRESS}:{server.server_port}/  (press Ctrl-C to stop)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
