"""Atomic writing of files and folders."""

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
    """Raise InputError if `path` exists and `force` is not set, or if its folder is not writable.

    Commands call this function before their work starts.
    """
    if path.exists() and not force:
        raise InputError(f"'{path}' already exists. Choose another name, or give --force to replace it")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raise InputError if a folder, or its nearest existing parent, is not writable."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(4096))  # creating an empty file succeeds on a full disk
            file.flush()
    except OSError as error:
        raise InputError(
            f"cannot write to '{place}': {error.strerror}. Free disk space or choose another folder"
        ) from error


def check_folder(out: Path, kind: str, replaceable: bool, force: bool) -> None:
    """Raise InputError unless a folder can be written: new, empty, or an earlier one that `force` allows to replace.

    Args:
        out: the folder.
        kind: what the folder holds, e.g. "page".
        replaceable: whether an existing folder with files holds only such a thing.
        force: replace it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(
            f"'{out}' is a file, expected a folder. Give a folder, for example '{out.with_suffix('')}'"
        )
    if out.is_dir() and any(out.iterdir()):
        if not replaceable:
            raise InputError(f"'{out}' contains other files than a {kind}. Choose another folder")
        if not force:
            raise InputError(
                f"'{out}' already contains a {kind}. Choose another folder, or give --force to replace the {kind}"
            )
    if not out.absolute().parent.is_dir():
        raise InputError(f"folder not found: '{out.parent}'. Create it first")
    check_writable(out.absolute().parent)


@contextmanager
def built_beside(out: Path) -> Iterator[Path]:
    """Yield a path named like `out` in a temporary folder next to `out`, and move the results on success.

    All files and folders in the temporary folder move next to `out`, `out` itself last. They replace existing files and
    folders of the same names.
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
            f"cannot write '{out}': {error.strerror}. Free disk space or choose another folder"
        ) from error


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; non-finite numbers, which JSON does not support, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Replace a file atomically: after an interruption, `path` holds either the old or the new content.

    Args:
        path: the file.
        content: the new content; read back and compared before it replaces the old file.
        previous: path to move the old file to; None deletes the old file.

    Raises:
        InputError: the file cannot be written; the old file remains.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "the file reads back differently from what was written")
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write '{path}': {error.strerror}. Free disk space or choose another folder"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Hard-link the file at `path` to `previous`; without hard links, move the file."""
    linked = previous.with_name(previous.name + ".tmp")
    try:
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        os.replace(linked, previous)
    except OSError:
        os.replace(path, previous)


def _sync_folder(folder: Path) -> None:
    """Flush the directory entries of a folder to disk, if the system allows it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
