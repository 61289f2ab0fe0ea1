"""Files as other projects publish them, with random weights, and a server that gives them to tests."""

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
# The network of each name in the words of its project.
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
    """The project's own network with random weights and statistics, in evaluation."""
    torch.manual_seed(0)
    return randomize(MODELS[name]())


def published(name: str, model: torch.nn.Module, folder: Path) -> tuple[Known, bytes]:
    """The row of a name with the checksum of such weights, and the file that its project would publish."""
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
    """An archive of some files by name."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Published:
    """A server on this machine, at `url`; gives `files` by the path of their URL.

    Attributes:
        asked: the paths that were asked for.
        cut: bytes after which every answer ends; None: at its end.
        wait_s: the time before an answer.
    """

    def __init__(self, url: str) -> None:
        self.url, self.files, self.asked = url, dict[str, bytes](), list[str]()
        self.cut: int | None = None
        self.wait_s = 0.0

    def add(self, known: Known, content: bytes) -> None:
        self.files[urlsplit(known.url).path] = content


@contextmanager
def known_weights(names: Iterable[str], folder: Path) -> Iterator[None]:
    """In this process weights with these names can be downloaded; they have random weights."""
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
    """A server with no files yet."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            time.sleep(site.wait_s)
            content = site.files.get(self.path)
            with suppress(ConnectionError):  # of who no longer waits
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: site.cut])

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

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
    """The files in the cache, without locks."""
    return sorted(
        str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.suffix != ".lock"
    )
