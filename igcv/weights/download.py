"""Download of weights files of other projects, with checksums and a cache."""

import hashlib
import http.client
import os
import queue
import shutil
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from filelock import FileLock

from igcv.cache import cache_folder
from igcv.errors import InputError
from igcv.weights.known import Known

WAIT_S = 8.0  # timeout for a connection, its answer and each chunk of a file
NO_ANSWER = "no answer within {:g} s"
CHUNK = 2**18  # bytes
ROOM = 1.5  # largest allowed size of a file, relative to its expected size
MIRROR, OFFLINE = "IGCV_MIRROR", ("IGCV_OFFLINE", "HF_HUB_OFFLINE")  # environment variables


class NotAtHandError(InputError):
    """Error for weights that are not in the cache and cannot be downloaded; `reason` is a short reason."""

    def __init__(self, name: str, known: Known, reason: str) -> None:
        super().__init__(
            f"{name} is not available: {reason}. Download {known.url} manually and save it as {by_hand(known)}"
        )
        self.reason = reason


def weights_folder() -> Path:
    """Return the cache folder for downloaded weights, which may not exist yet."""
    return cache_folder() / "weights"


def by_hand(known: Known) -> Path:
    """Return the path for a manually downloaded file."""
    return weights_folder() / known.file


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Lock `file` for one process at a time, and create its folder.

    Raises:
        InputError: the folder cannot be created or written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{file}.lock")
        lock.acquire()
    except OSError as error:
        raise _unwritable(file.parent, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def fetched(name: str, known: Known) -> Iterator[Path]:
    """Yield the verified file of `known`: a manually downloaded file, or a temporary download.

    For an archive, this is the only file in the archive.

    Raises:
        NotAtHandError: the file was not downloaded manually, and the download fails.
        InputError: the checksum of the file is wrong, or the folder cannot be written.
    """
    given = by_hand(known)
    unpacked = given.with_suffix("") if given.suffix == ".zip" else given
    scratch = weights_folder() / f"{known.file}.partial"
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
        scratch.mkdir(parents=True)
        file = next((file for file in (given, unpacked) if file.is_file()), None)
        if file is None:
            file = scratch / known.file
            _download(name, known, file)
        if file.suffix == ".zip":
            file = unzipped(file, scratch / unpacked.name, _limit(known))
        verify(file, known)
        yield file
    except OSError as error:
        raise _unwritable(weights_folder(), error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def verify(file: Path, known: Known) -> None:
    """Raise InputError unless the checksum of a file is correct."""
    kind, _, expected = known.checksum.partition(":")
    found = digest(file, kind)
    if not found.startswith(expected):
        raise InputError(
            f"{kind} of {file.name}: got {found}, expected {expected}. igcv did not use the file. Download "
            f"{known.url} again, or remove {by_hand(known)} if you downloaded it manually"
        )


def digest(file: Path, kind: str) -> str:
    """Return the checksum of a file in hexadecimal digits; `kind` is sha1, sha256, or git (a git blob)."""
    found = hashlib.new("sha256" if kind == "sha256" else "sha1", usedforsecurity=False)
    if kind == "git":
        found.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as content:
        while piece := content.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def unzipped(archive: Path, target: Path, limit: int) -> Path:
    """Write the only file in an archive to `target`.

    Args:
        archive: a .zip file.
        target: the file to write.
        limit: maximum size of the file, in bytes.

    Raises:
        InputError: the archive is damaged, has several files, or its file is too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) != 1:
                raise InputError(
                    f"'{archive}' has {len(entries)} files, expected one. Give the .pth file itself."
                )
            with opened.open(entries[0]) as packed, target.open("wb") as file:
                size = 0
                while piece := packed.read(CHUNK):
                    size += len(piece)
                    if size > limit:
                        raise InputError(
                            f"the file in '{archive}' exceeds the limit of {limit / 1e6:,.0f} MB for such weights. "
                            "igcv did not use it."
                        )
                    file.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"'{archive}' is not a readable zip archive ({error}). Download it again."
        ) from error
    return target


def _limit(known: Known) -> int:
    return round(known.megabytes * ROOM * 1e6)


def _download(name: str, known: Known, file: Path) -> None:
    """Download the file of `known`, with a progress bar in a terminal."""
    if switch := next(
        (key for key in OFFLINE if os.environ.get(key, "").lower() in ("1", "true", "yes", "on")), ""
    ):
        raise NotAtHandError(name, known, f"{switch} forbids downloads")
    url = mirrored(known.url)
    try:
        with _opened(url) as answer, file.open("wb") as target:
            length = answer.headers.get("Content-Length") or ""
            expected = int(length) if length.isdecimal() else 0
            print(
                f"downloading {name}: {known.megabytes:.1f} MB from {url}, cached in {weights_folder()}",
                file=sys.stderr,
            )
            size = 0
            for piece in _shown(answer, name, expected or int(known.megabytes * 1e6)):
                size += len(piece)
                if size > _limit(known):
                    raise NotAtHandError(name, known, f"the file at {url} exceeds {_limit(known):,} bytes")
                target.write(piece)
            if size < expected:
                raise NotAtHandError(name, known, f"the download ended after {size:,} of {expected:,} bytes")
    except _NetworkError as error:
        raise NotAtHandError(
            name, known, f"download from {urlsplit(url).netloc or url} failed ({error})"
        ) from error


class _NetworkError(Exception):
    """Network failure, in contrast to the OSError of a disk."""


def _shown(answer: Any, name: str, total: int) -> Iterator[bytes]:
    """Yield the chunks of an answer, with a progress bar if standard error is a terminal."""
    from rich.console import Console  # takes 0.1 s to import, which cached weights do not need
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    console.quiet = (
        not console.is_terminal
    )  # before version 14.3, Rich ends a disabled bar with an empty line
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        while True:
            try:
                piece = answer.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _NetworkError(_in_words(error)) from error
            if not piece:
                return
            bar.advance(task, len(piece))
            yield piece


def _opened(url: str) -> Any:
    """Return the answer to a request. A thread waits for the answer, because a host lookup ignores the timeout."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    request = Request(url, headers={"User-Agent": "igcv"})
    late = threading.Event()

    def ask() -> None:
        try:
            answer = build_opener().open(
                request, timeout=WAIT_S
            )  # build_opener reads the current proxy variables
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)
            return
        answers.put(answer)
        if late.is_set():
            answer.close()

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=WAIT_S)
    except queue.Empty:
        late.set()
        raise _NetworkError(NO_ANSWER.format(WAIT_S)) from None
    if isinstance(answer, Exception):
        raise _NetworkError(_in_words(answer)) from answer
    return answer


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return NO_ANSWER.format(WAIT_S)
    if isinstance(error, HTTPError):
        with suppress(OSError):
            error.close()
        return f"{error.code} {error.reason}"
    if isinstance(error, URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(error) or type(error).__name__


def mirrored(url: str) -> str:
    """Return the URL, with scheme and host replaced by $IGCV_MIRROR if this variable is set.

    Raises:
        InputError: the variable is not an http, https or file URL.
    """
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return url
    if urlsplit(mirror).scheme not in ("http", "https", "file"):
        raise InputError(
            f"{MIRROR}: got '{mirror}', expected an http, https or file URL, e.g. https://mirror.example.org"
        )
    return mirror + urlsplit(url).path


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write to '{folder}': {error.strerror or error}. Free some space, or set IGCV_CACHE to a writable "
        "folder."
    )
