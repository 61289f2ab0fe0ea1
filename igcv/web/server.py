"""A server for a page on this machine, with the headers that let WebAssembly use several threads."""

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
    """Files of a folder; the page is isolated from others, which browsers demand of who shares memory."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012 - as there

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")  # a page that is made again is seen at once
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing about every file."""


def make_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1, not started; port 0 takes any that is free.

    Raises:
        InputError: the port cannot be had.
    """
    try:
        return http.server.ThreadingHTTPServer((ADDRESS, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise InputError(
            f"cannot serve on port {port} of {ADDRESS} ({error.strerror}); give another one, or 0 for any free one"
        ) from error


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve a page until Ctrl-C; `say` is told where."""
    with make_server(folder, port) as server:
        say(f"http://{ADDRESS}:{server.server_port}/  (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
