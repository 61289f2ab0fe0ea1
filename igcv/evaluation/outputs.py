"""Outputs of predictions: a CSV table, and copies of the images in one folder per class."""

import csv
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from igcv.errors import InputError
from igcv.evaluation.predictions import UNKNOWN, ImagePrediction
from igcv.writing import check_writable, write_file

COLUMNS = ("file", "class", "probability", "true_class", "error")
LONGEST = 100  # maximum length of a folder name, characters
COPIED = "copied.csv"  # list of the copies in a folder, with their source files


def check_table(file: Path, force: bool = False) -> None:
    """Raise InputError unless `file` can be written: it does not exist, or `force` allows replacing it."""
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"--out: got '{file}', expected a file in an existing folder, e.g. predictions.csv")
    if file.exists() and not force:
        raise InputError(f"'{file}' exists already. Give another --out, or --force to replace it")
    check_writable(file.parent)


def check_folder(folder: Path, force: bool = False) -> None:
    """Raise InputError unless images can be copied to `folder`: it is empty or does not exist.

    With `force`, the folder may contain copies of an earlier `sort_into`.
    """
    try:
        empty = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
    except OSError as error:
        raise InputError(
            f"'{folder}' cannot be read: {error.strerror}. Choose another --sort-into"
        ) from error
    if not empty and not (folder / COPIED).is_file():
        raise InputError(
            f"'{folder}' is not an empty folder. Choose another --sort-into, or empty the folder"
        )
    if not empty and not force:
        raise InputError(
            f"'{folder}' has copies of an earlier --sort-into. Choose another folder, or --force to replace them"
        )
    check_writable(folder)


def write_table(
    predictions: Sequence[ImagePrediction], file: Path, *, all_classes: bool = False, force: bool = False
) -> None:
    """Write predictions to a CSV file with one row per image.

    Args:
        predictions: result of `igcv.predict`.
        file: path of the CSV file.
        all_classes: add a column "probability_NAME" per class in the predictions (all classes with top=None).
        force: replace an existing file.

    Raises:
        InputError: the file exists already or cannot be written.
    """
    check_table(file, force)
    readable = next((entry.predictions for entry in predictions if not entry.error), ())
    classes = sorted(readable, key=lambda guess: guess.label) if all_classes else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"probability_{guess.name}" for guess in classes)])
    for entry in predictions:
        by_label = {guess.label: f"{guess.probability:.6f}" for guess in entry.predictions}
        share = "" if entry.probability is None else f"{entry.probability:.6f}"
        own = (entry.file, entry.name, share, entry.true_class or "", entry.error)
        writer.writerow([*own, *(by_label.get(guess.label, "") for guess in classes)])
    write_file(file, text.getvalue().encode("utf-8", "surrogateescape"))  # file names may contain any bytes


def sort_into(predictions: Sequence[ImagePrediction], folder: Path, *, force: bool = False) -> Counter[str]:
    """Copy image files into one folder per predicted class; nothing is moved or overwritten.

    Unreadable images and images in memory are left out. Files with equal names get numbers: a.jpg, a-2.jpg. The file
    copied.csv in the folder lists the source of each copy.

    Args:
        predictions: result of `igcv.predict`.
        folder: an empty folder, or one that does not exist yet.
        force: replace the copies of an earlier call in the folder; other files in it stay.

    Returns:
        Number of copied images by class folder.

    Raises:
        InputError: the folder is not empty, or a file cannot be copied.
    """
    check_folder(folder, force)
    _remove_copies(folder)
    names = _FolderNames()
    copied: list[tuple[str, str, str]] = []  # class folder, name of the copy, source file
    try:
        for entry in predictions:
            if entry.file and not entry.error:
                place = folder / names.of(entry.name)
                copied.append((place.name, _copy(Path(entry.file), place), entry.file))
    finally:  # also after an error, so that `force` can replace the copies
        if copied:
            _list_copies(folder, copied)
    return Counter(place for place, _, _ in copied)


def _list_copies(folder: Path, copied: Sequence[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("copy", "file"), *((f"{place}/{name}", file) for place, name, file in copied)])
    write_file(folder / COPIED, text.getvalue().encode("utf-8", "surrogateescape"))


def _remove_copies(folder: Path) -> None:
    """Remove the copies listed by an earlier call, and class folders that become empty."""
    if not (folder / COPIED).is_file():
        return
    with open(folder / COPIED, encoding="utf-8", errors="surrogateescape", newline="") as file:
        listed = [Path(row["copy"]) for row in csv.DictReader(file) if row.get("copy")]
    inside = [  # the list is not trusted: never remove files outside the folder
        path for path in listed if len(path.parts) == 2 and not path.is_absolute() and ".." not in path.parts
    ]
    for path in inside:
        (folder / path).unlink(missing_ok=True)
    for place in {path.parent for path in inside}:
        with suppress(OSError):  # the folder contains other files
            (folder / place).rmdir()
    (folder / COPIED).unlink()


def _copy(source: Path, place: Path) -> str:
    """Copy a file into a folder; see `_copy_beside`.

    Raises:
        InputError: the file cannot be copied.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        return _copy_beside(source, place)
    except OSError as error:
        raise InputError(
            f"cannot copy '{source}' into '{place}': {error.strerror}. Free some space or choose another folder"
        ) from error


def _copy_beside(source: Path, place: Path) -> str:
    """Copy a file under its own name, or with the first free number; return the name of the copy."""
    number = 1
    while True:
        name = source.name if number == 1 else f"{source.stem}-{number}{source.suffix}"
        try:
            with open(source, "rb") as read, open(place / name, "xb") as written:
                shutil.copyfileobj(read, written)
        except FileExistsError:
            number += 1
            continue
        shutil.copystat(source, place / name)
        return name


class _FolderNames:
    """Mapping of class names to unique folder names that are valid on every file system."""

    def __init__(self) -> None:
        self._folders = {UNKNOWN: UNKNOWN}

    def of(self, name: str) -> str:
        """Return the folder name of a class, unique and the same in every call."""
        if name not in self._folders:
            plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", name).strip(" .")[:LONGEST] or "_"
            taken = {folder.casefold() for folder in (COPIED, *self._folders.values())}
            number, folder = 1, plain
            while folder.casefold() in taken:
                number, folder = number + 1, f"{plain}-{number + 1}"
            self._folders[name] = folder
        return self._folders[name]
