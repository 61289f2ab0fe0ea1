"""Weights files in the formats of other projects, with random weights, and a server for tests."""

import hashlib
import http.server
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import timm
import torch
import torchvision
from pytorchcv.model_provider import get_model

from igcv.weights.foreign.mxnet import checkpoint_arrays
from igcv.weights.foreign.mxnet_files import write_params
from igcv.weights.known import KNOWN, Known
from tests.conftest import randomize, randomized

SMALL = "igcv3_d_025.imagenet"
# Constructor of each network in the library of its project.
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "igcv3_d_025.imagenet": lambda: get_model("igcv3_wd4"),
    "igcv3_d_050.imagenet": lambda: get_model("igcv3_wd2"),
    "igcv3_d_075.imagenet": lambda: get_model("igcv3_w3d4"),
    "igcv3_d_100.imagenet": lambda: get_model("igcv3_w1"),
    "igcv3_d_100.imagenet_original": lambda: randomized("igcv3_d_100", 1000, 224),
    "mobilenetv2_050.imagenet": lambda: timm.create_model("mobilenetv2_050"),
    "mobilenetv2_100.imagenet": lambda: timm.create_model("mobilenetv2_100"),
    "mobilenetv2_140.imagenet": lambda: timm.create_model("mobilenetv2_140"),
    "mobilenetv2_100.imagenet_torchvision": torchvision.models.mobilenet_v2,
    "mobilenetv2_100.imagenet_torchvision_v2": torchvision.models.mobilenet_v2,
}


def project_model(name: str) -> torch.nn.Module:
    """Return the project's own network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    return randomize(MODELS[name]())


def published(name: str, model: torch.nn.Module, folder: Path) -> tuple[Known, bytes]:
    """Return the table row of a name with the checksum of random weights, and the file of its project."""
    known = KNOWN[name]
    if known.project == "mxnet":
        write_params(folder / "igcv3-0000.params", checkpoint_arrays(model))  # type: ignore[arg-type]
        content = (folder / "igcv3-0000.params").read_bytes()
        blob = f"blob {len(content)}\0".encode() + content
        return replace(known, checksum=f"git:{hashlib.sha1(blob).hexdigest()}"), content
    buffer = BytesIO()
    torch.save(model.state_dict(), buffer, _use_new_zipfile_serialization=known.project != "pytorchcv")
    content = buffer.getvalue()
    if known.project != "pytorchcv":
        return replace(known, checksum=f"sha256:{hashlib.sha256(content).hexdigest()[:8]}"), content
    return replace(known, checksum=f"sha1:{hashlib.sha1(content).hexdigest()}"), zipped(
        {known.file[:-4]: content}
    )


def zipped(files: dict[str, bytes]) -> bytes:
    """Return an archive of files, given by name."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Published:
    """Server on this machine at `url`; serves `files` by the path of their URL.

    Attributes:
        asked: the requested paths.
        cut: number of bytes after which every answer ends; None: complete answers.
        wait_s: seconds before an answer.
    """

    def __init__(self, url: str) -> None:
        self.url, self.files, self.asked = url, dict[str, bytes](), list[str]()
        self.cut: int | None = None
        self.wait_s = 0.0

    def add(self, known: Known, content: bytes) -> None:
        self.files[urlsplit(known.url).path] = content


@contextmanager
def known_weights(names: Iterable[str], folder: Path) -> Iterator[None]:
    """Make random weights with these names downloadable in this process."""
    with serving() as site, pytest.MonkeyPatch.context() as patch:
        for name in names:
            row, content = published(name, project_model(name), folder)
            patch.setitem(KNOWN, name, row)
            site.add(row, content)
        patch.delenv("IGCV_OFFLINE")
        patch.setenv("IGCV_MIRROR", site.url)
        patch.setenv("IGCV_CACHE", str(folder / "cache"))
        yield


@contextmanager
def serving() -> Iterator[Published]:
    """Return a server without files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            time.sleep(site.wait_s)
            content = site.files.get(self.path)
            with suppress(ConnectionError):  # the client no longer waits
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: site.cut])

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Published(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield site
        finally:
            server.shutdown()


def put(name: str, site: Published, folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    model = project_model(name)
    row, content = published(name, model, folder)
    monkeypatch.setitem(KNOWN, name, row)
    site.add(row, content)
    return model


def left(folder: Path) -> list[str]:
    """Return the files in the cache, without locks."""
    return sorted(
        str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.suffix != ".lock"
    )
