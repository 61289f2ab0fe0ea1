"""Whole files or none: what is written appears when all of it is there."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igcv.errors import InputError


def check_absent(path: Path, force: bool) -> None:
    """Raise InputError where there is something at `path` already, unless `force` allows to replace it.

    The same where nothing can be written there, before any work is done for it.
    """
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name, or give --force to replace it")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raise InputError where no file can be written into a folder, or into the one around it that exists already."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))  # a full disk still takes names
            file.flush()
    except OSError as error:
        raise InputError(
            f"cannot write into {place}: {error.strerror}; free some space or choose another place"
        ) from error


@contextmanager
def built_beside(out: Path) -> Iterator[Path]:
    """A path of the same name in a folder beside `out`; when all went well, what lies there moves, `out` last.

    It replaces files and folders of the same names.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".igcv-", dir=out.parent) as folder,
            tempfile.TemporaryDirectory(prefix=".igcv-", dir=out.parent) as replaced,
        ):
            yield Path(folder) / out.name
            for source in sorted(Path(folder).iterdir(), key=lambda path: path.name == out.name):
                target = out.with_name(source.name)
                if target.is_dir():  # a folder cannot be replaced in one step
                    os.replace(target, Path(replaced) / source.name)
                os.replace(source, target)
    except OSError as error:
        raise InputError(
            f"cannot write {out}: {error.strerror}; free some space or choose another place"
        ) from error


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; numbers that are not finite, for which JSON has no word, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Write `content` so that `path` holds either the old or the new file, whatever happens meanwhile.

    Args:
        path: the file.
        content: what will be in it; read back before it takes its place.
        previous: where the old file goes; None to let it go.

    Raises:
        InputError: it cannot be written; then the old file is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "what was written reads back as something else")
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}: {error.strerror}; free some space or choose another place"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Give the file at `path` the name `previous` too, or instead where a file can have one name only."""
    linked = previous.with_name(previous.name + ".tmp")
    try:
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        os.replace(linked, previous)
    except OSError:
        os.replace(path, previous)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too, where the system lets one."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
