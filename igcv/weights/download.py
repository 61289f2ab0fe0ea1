"""Files of other projects: fetched once, verified before anything in them is read, put in place when whole."""

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

WAIT_S = 8.0  # for a connection and its answer, and for each piece of a file
NO_ANSWER = "no answer within {:g} s"
CHUNK = 2**18  # bytes
ROOM = 1.5  # times its expected size a file may have
MIRROR, OFFLINE = "IGCV_MIRROR", ("IGCV_OFFLINE", "HF_HUB_OFFLINE")  # environment variables


class NotAtHandError(InputError):
    """Weights are not in the cache and cannot be downloaded; `reason` says why in a few words."""

    def __init__(self, name: str, known: Known, reason: str) -> None:
        super().__init__(
            f"{name} is not at hand: {reason}. Fetch {known.url} by hand and put it at {by_hand(known)}"
        )
        self.reason = reason


def weights_folder() -> Path:
    """Where downloaded weights are kept; it may not exist yet."""
    return cache_folder() / "weights"


def by_hand(known: Known) -> Path:
    """Where a file is looked for that was fetched by hand."""
    return weights_folder() / known.file


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """A part that one process at a time goes through for `file`, whose folder is made.

    Raises:
        InputError: the folder cannot be made or written.
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
    """The file of `known`, verified: the one that was put there by hand, else downloaded and gone afterwards.

    Of an archive it is the one file in it.

    Raises:
        NotAtHandError: there is none, and the network gives none.
        InputError: the file is not the one expected, or the folder cannot be written.
    """
    given = by_hand(known)
    unpacked = given.with_suffix("") if given.suffix == ".zip" else given
    scratch = weights_folder() / f"{known.file}.partial"
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
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
    """Raise InputError unless a file has its checksum."""
    kind, _, expected = known.checksum.partition(":")
    found = digest(file, kind)
    if not found.startswith(expected):
        raise InputError(
            f"{file.name} is not the file expected: its {kind} is {found}, expected {expected}; nothing of it was "
            f"used. Fetch {known.url} again, or remove {by_hand(known)} if it was put there by hand"
        )


def digest(file: Path, kind: str) -> str:
    """The checksum of a file in hexadecimal digits: sha1, sha256, or git for that of a git blob."""
    found = hashlib.new("sha256" if kind == "sha256" else "sha1", usedforsecurity=False)
    if kind == "git":
        found.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as content:
        while piece := content.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def unzipped(archive: Path, target: Path, limit: int) -> Path:
    """Write the one file in an archive to `target`, whatever its name there.

    Args:
        archive: a .zip file.
        target: the file to write.
        limit: bytes that it may have.

    Raises:
        InputError: it is no such archive, is damaged, or holds more.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) != 1:
                raise InputError(
                    f"{archive} holds {len(entries)} files, expected one; give the .pth file itself"
                )
            with opened.open(entries[0]) as packed, target.open("wb") as file:
                size = 0
                while piece := packed.read(CHUNK):
                    size += len(piece)
                    if size > limit:
                        raise InputError(
                            f"{archive} holds more than {limit / 1e6:,.0f} MB, which none of these files has; nothing "
                            "of it was used"
                        )
                    file.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is no readable zip archive ({error}); fetch it again") from error
    return target


def _limit(known: Known) -> int:
    return round(known.megabytes * ROOM * 1e6)


def _download(name: str, known: Known, file: Path) -> None:
    """Write what the network gives to `file`, with a progress bar in a terminal."""
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
                f"downloading {name}: {known.megabytes:.1f} MB from {url}, kept in {weights_folder()}",
                file=sys.stderr,
            )
            size = 0
            for piece in _shown(answer, name, expected or int(known.megabytes * 1e6)):
                size += len(piece)
                if size > _limit(known):
                    raise NotAtHandError(name, known, f"{url} gives more than {_limit(known):,} bytes")
                target.write(piece)
            if size < expected:
                raise NotAtHandError(name, known, f"the download ended after {size:,} of {expected:,} bytes")
    except _NetworkError as error:
        raise NotAtHandError(name, known, f"{urlsplit(url).netloc or url} gives no file ({error})") from error


class _NetworkError(Exception):
    """The network failed; unlike an OSError, nothing is wrong with the disk."""


def _shown(answer: Any, name: str, total: int) -> Iterator[bytes]:
    """The pieces of an answer, with a progress bar on standard error where it is a terminal."""
    from rich.console import Console  # takes a tenth of a second, which loading cached weights need not
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
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
    """The answer to a request; a thread waits for it, as looking up a host may take longer than any time limit."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    request = Request(url, headers={"User-Agent": "igcv"})
    late = threading.Event()

    def ask() -> None:
        try:
            answer = build_opener().open(request, timeout=WAIT_S)  # reads the proxy variables each time
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
    """The URL, with scheme and host replaced by $IGCV_MIRROR if that is set.

    Raises:
        InputError: the variable holds no http, https or file URL.
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
        f"cannot write in {folder}: {error.strerror or error}; free some space, or set IGCV_CACHE to a folder that can "
        "be written"
    )
