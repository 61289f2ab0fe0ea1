"""Chromium for tests, driven by Playwright."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
import pytest

from igcv.cache import cache_folder
from igcv.errors import InputError
from igcv.web import engine as onnx_web
from igcv.web.server import make_server

# Before version 13, Pillow's resizing rounds some values differently, by one level.
PILLOW = int(PIL.__version__.partition(".")[0])
exact_pixels = pytest.mark.skipif(PILLOW < 13, reason="igcv web resizes exactly as Pillow 13 and later")
NAMES = ("chromium", "chromium-browser", "google-chrome")
# A fake camera, allowed without a prompt.
ARGUMENTS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a headless browser; skip the test if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    found = os.environ.get("IGCV_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: one of {', '.join(NAMES)} on the path, or $IGCV_CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


@contextmanager
def engine() -> Iterator[None]:
    """Provide ONNX Runtime Web in the user's cache, downloaded once; skip the test if unavailable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("IGCV_CACHE", raising=False)
        try:
            onnx_web.engine_files()
        except InputError as error:
            if "checksum of" in str(error):
                raise
            pytest.skip(f"needs {onnx_web.PACKAGE}: {error}")
        yield


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a page and yield its address."""
    with make_server(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def stand_in_engine() -> None:
    """Put empty files of ONNX Runtime Web into the cache, so that a page is written without a download."""
    place = cache_folder() / f"{onnx_web.PACKAGE}-{onnx_web.VERSION}"
    place.mkdir(parents=True, exist_ok=True)
    for name in onnx_web.FILES:
        (place / name).touch()
