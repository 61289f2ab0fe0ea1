"""Tests of weight downloads: offline use, interrupted downloads, wrong files and malicious files."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

import igcv
from igcv.weights import download
from igcv.weights.download import NotAtHandError, mirrored
from igcv.weights.known import KNOWN
from igcv.weights.pretrained import cached_file
from tests.conftest import ONE_THREAD, Igcv
from tests.weights_server import SMALL, Published, left, zipped


def replaced(content: bytes, site: Published, monkeypatch: pytest.MonkeyPatch, checksum: str = "") -> None:
    """Make the mirror serve other bytes as the file of `SMALL`."""
    row = replace(KNOWN[SMALL], checksum=checksum or KNOWN[SMALL].checksum)
    monkeypatch.setitem(KNOWN, SMALL, row)
    site.add(row, content)


# Offline, and downloaded by hand


@pytest.mark.parametrize("switch", download.OFFLINE)
def test_offline(switch: str, site: Published, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch, "1")
    done = igcv_command("predict", SMALL, "photo.png")
    row = KNOWN[SMALL]
    assert done.status == 2 and done.err.count("\n") == 1 and not site.asked
    assert f"{SMALL} is not available: {switch} forbids downloads" in done.err
    assert f"Download {row.url} manually and save it as {download.weights_folder() / row.file}" in done.err


def test_no_answer(known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_S", 0.2)
    site.wait_s = 2
    before = time.monotonic()
    with pytest.raises(NotAtHandError, match=r"failed \(no answer within 0\.2 s\)"):
        igcv.load(SMALL)
    assert time.monotonic() - before < 2


def test_no_server(monkeypatch: pytest.MonkeyPatch, site: Published) -> None:
    monkeypatch.setenv("IGCV_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(NotAtHandError, match=r"127\.0\.0\.1:9 failed \(Connection refused\)"):
        igcv.load(SMALL)


@pytest.mark.parametrize("archived", [True, False])
def test_fetched_by_hand(archived: bool, known: torch.nn.Module, site: Published) -> None:
    """The file may be packed as on the web or unpacked by the browser; it is kept."""
    folder, row = download.weights_folder(), KNOWN[SMALL]
    content = site.files.pop(mirrored(row.url).removeprefix(site.url))
    folder.mkdir(parents=True)
    name = row.file if archived else row.file.removesuffix(".zip")
    if archived:
        (folder / name).write_bytes(content)
    else:
        buffer = BytesIO()
        torch.save(known.state_dict(), buffer, _use_new_zipfile_serialization=False)
        (folder / name).write_bytes(buffer.getvalue())
    igcv.load(SMALL)
    assert not site.asked
    assert left(folder) == sorted([name, cached_file(SMALL).name])


def test_the_wrong_file_by_hand(known: torch.nn.Module, site: Published) -> None:
    file = download.weights_folder() / KNOWN[SMALL].file
    file.parent.mkdir(parents=True)
    file.write_bytes(zipped({"a.pth": b"nothing"}))
    with pytest.raises(igcv.InputError, match=rf"igcv did not use the file.*remove {file}"):
        igcv.load(SMALL)
    assert left(file.parent) == [file.name]


def test_a_mirror_that_is_none(site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGCV_MIRROR", "mirror.example.org")
    with pytest.raises(
        igcv.InputError, match=r"IGCV_MIRROR: got 'mirror\.example\.org', expected an http, https or"
    ):
        igcv.load(SMALL)


def test_a_folder_as_a_mirror(
    known: torch.nn.Module, site: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, content in site.files.items():
        (tmp_path / path[1:]).parent.mkdir(parents=True)
        (tmp_path / path[1:]).write_bytes(content)
    monkeypatch.setenv("IGCV_MIRROR", tmp_path.as_uri())
    assert igcv.load(SMALL).card.num_classes == 1000 and not site.asked


def test_the_usual_proxy(known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy receives the whole URL."""
    monkeypatch.setenv("IGCV_MIRROR", "http://mirror.example.org")
    monkeypatch.setenv("http_proxy", site.url)
    url = mirrored(KNOWN[SMALL].url)
    site.files[url] = next(iter(site.files.values()))
    assert igcv.load(SMALL).card.num_classes == 1000
    assert site.asked == [url]


# Failed downloads


def test_an_interrupted_download(known: torch.nn.Module, site: Published) -> None:
    site.cut = 100_000
    with pytest.raises(NotAtHandError, match=r"the download ended after 100,000 of [\d,]+ bytes"):
        igcv.load(SMALL)
    assert left(download.weights_folder()) == []
    site.cut = None
    assert igcv.load(SMALL).card.num_classes == 1000


def test_a_killed_download_leaves_nothing_that_hinders(known: torch.nn.Module, site: Published) -> None:
    scratch = download.weights_folder() / f"{KNOWN[SMALL].file}.partial"
    scratch.mkdir(parents=True)
    (scratch / KNOWN[SMALL].file).write_bytes(b"half a file")
    assert igcv.load(SMALL).card.num_classes == 1000
    assert left(download.weights_folder()) == [cached_file(SMALL).name]


def test_a_wrong_checksum(known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(zipped({"x.pth": b"<html>Log in to this network</html>"}), site, monkeypatch)
    expected = KNOWN[SMALL].checksum.removeprefix("sha1:")
    with pytest.raises(igcv.InputError, match=rf"sha1 of .*: got [0-9a-f]{{40}}, expected {expected}"):
        igcv.load(SMALL)
    replaced(b"<html>Log in to this network</html>", site, monkeypatch)
    with pytest.raises(igcv.InputError, match="is not a readable zip archive"):
        igcv.load(SMALL)
    assert left(download.weights_folder()) == []


def test_a_full_disk(known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, piece: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path: Path, mode: str = "r", *more: Any) -> Any:
        file = opened(path, mode, *more)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(
        igcv.InputError, match=r"cannot write to .*: No space left on device. Free some space, or set"
    ):
        igcv.load(SMALL)
    monkeypatch.undo()


def test_a_cache_that_cannot_be_made(
    known: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        igcv.InputError, match=r"cannot write to .*/file/weights': Not a directory. .* set IGCV_CACHE"
    ):
        igcv.load(SMALL)


def test_two_processes_at_once(known: torch.nn.Module, site: Published) -> None:
    site.wait_s = 0.5
    code = (
        "from dataclasses import replace; import igcv; from igcv.weights.known import KNOWN; "
        f"KNOWN[{SMALL!r}] = replace(KNOWN[{SMALL!r}], checksum={KNOWN[SMALL].checksum!r}); "
        f"print(igcv.load({SMALL!r}).card.num_classes)"
    )
    environment = {key: value for key, value in ONE_THREAD.items() if key not in download.OFFLINE}
    environment |= {key: os.environ[key] for key in ("IGCV_CACHE", "IGCV_MIRROR")}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=240)[0] for process in running] == ["1000\n"] * 2
    assert len(site.asked) == 1


# Malicious files


def sha1_of(content: bytes) -> str:
    return f"sha1:{hashlib.sha1(content).hexdigest()}"


def test_an_archive_cannot_leave_its_folder(
    known: torch.nn.Module, site: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("../../../escaped.pth", str(tmp_path / "escaped.pth")):
        replaced(zipped({name: b"anything"}), site, monkeypatch)
        with pytest.raises(igcv.InputError, match="igcv did not use the file"):
            igcv.load(SMALL)
    assert not list(tmp_path.rglob("escaped*"))


def test_an_archive_that_would_fill_the_disk(
    known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(zipped({"bomb.pth": bytes(60_000_000)}), site, monkeypatch)
    with pytest.raises(igcv.InputError, match=r"exceeds the limit of 9 MB for such weights"):
        igcv.load(SMALL)
    assert left(download.weights_folder()) == []


def test_a_server_that_would_fill_the_disk(
    known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(bytes(10_000_000), site, monkeypatch)
    with pytest.raises(NotAtHandError, match=r"exceeds 9,150,000 bytes"):
        igcv.load(SMALL)


def test_an_archive_of_several_files(
    known: torch.nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(zipped({"a.pth": b"a", "b.pth": b"b"}), site, monkeypatch)
    with pytest.raises(igcv.InputError, match="has 2 files, expected one"):
        igcv.load(SMALL)


class Program:
    """Object that writes a file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_that_would_run_a_program(
    known: torch.nn.Module, site: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrusted pickle is refused even with the right checksum."""
    buffer = BytesIO()
    torch.save({"features.init_block.conv.weight": Program(tmp_path / "ran")}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(Program(tmp_path / "ran"))):
        replaced(zipped({"a.pth": content}), site, monkeypatch, checksum=sha1_of(content))
        with pytest.raises(igcv.InputError, match=r"is not a readable torch\.save file of tensors"):
            igcv.load(SMALL)
    assert not (tmp_path / "ran").exists()
