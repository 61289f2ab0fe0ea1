"""Lists of images as CSV: which file has which label, and which part of the data it belongs to."""

import csv
import io
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import NamedTuple

from igcv.data.sources.spec import absolute
from igcv.errors import InputError, unknown
from igcv.reading import read_text

PARTS = ("train", "val", "test")
_NEEDED, _COLUMNS = ("path", "label"), ("path", "label", "split", "group")
_EXPECTED = "path,label,split,group (split and group may be absent)"


class ListedImage(NamedTuple):
    """A line of a list."""

    path: str  # relative to the source, as `normal` writes it
    label: str
    split: str  # one of PARTS; empty where the list has no such column
    group: str = ""  # images of one group stay in one part; empty for an image alone
    line: int = 0  # where it stands in its file, from 1


@dataclass(frozen=True)
class SplitList:
    """A list of images.

    Attributes:
        file: where it was read.
        images: its lines.
        kept: whether a run wrote it: images that are gone since are no error.
        whole: whether images that it does not name are left out; otherwise their hash gives them a part.
    """

    file: Path
    images: tuple[ListedImage, ...]
    kept: bool = False
    whole: bool = True

    def check_there(self, names: Collection[str], place: str) -> None:
        """Raise InputError where an image is not among `names`; of a list that a run kept, where none is."""
        gone = [image for image in self.images if image.path not in names]
        if self.kept and self.whole and len(gone) == len(self.images):
            raise InputError(
                f"{place}: has none of the {len(gone)} images in {self.file}, expected those that it was trained on; "
                "name their folder or file with --data"
            )
        if not gone or self.kept:
            return
        example = f", e.g. '{min(names)}'" if names else ""
        raise _wrong(
            self.file,
            gone[0].line,
            f"'{gone[0].path}' is no image of {place} ({len(gone)} such lines), expected names relative to "
            f"it{example}. Correct the path column, or remove these lines",
        )


def composed(name: str) -> str:
    """Return a name in composed characters (NFC): file systems store accents in two ways."""
    return unicodedata.normalize("NFC", name)


def normal(name: str) -> str:
    """Return a relative name as lists are compared: composed characters, no './'."""
    return composed(normpath(name))


def read_list(file: str | Path, *, kept: bool = False, whole: bool = True) -> SplitList:
    """Read a list: UTF-8, commas, a first line with the columns path, label and, if wanted, split and group.

    Args:
        file: the CSV file.
        kept, whole: see `SplitList`.

    Raises:
        InputError: naming the line that is wrong.
    """
    file = Path(absolute(file))
    # A run's own list may hold names of files that are not UTF-8.
    text = read_text(file, "a CSV list of images", "surrogateescape" if kept else "strict")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    images: list[ListedImage] = []
    try:
        columns = _columns(file, next(reader, []))
        for row in reader:
            if row:
                images.append(_image(file, reader.line_num, columns, row))
    except csv.Error as error:
        raise _wrong(
            file, reader.line_num, f"no CSV ({error}). Write values with commas or line breaks in quotes"
        ) from None
    if not images:
        raise _wrong(file, 2, f"the list names no images, expected a line for each: {_EXPECTED}")
    _check_unique(file, images)
    _check_groups(file, images)
    return SplitList(file, tuple(images), kept, whole)


def list_bytes(images: Iterable[ListedImage]) -> bytes:
    """Return a list as the bytes of a CSV file with the columns path, label, split."""
    rows = {image.path: image[:3] for image in images}.values()  # names alike once, see `normal`
    returns = any(
        "\r" in value for row in rows for value in row
    )  # which Python's csv module leaves without quotes
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
    writer.writerow(_COLUMNS[:3])
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _columns(file: Path, header: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(name.strip() for name in header)
    wrong = set(columns) - set(_COLUMNS) or set(_NEEDED) - set(columns) or len(set(columns)) < len(columns)
    if wrong:
        raise _wrong(
            file,
            1,
            f"got the columns '{','.join(columns)}', expected {_EXPECTED}. Write them as the first line",
        )
    return columns


def _image(file: Path, line: int, columns: Sequence[str], row: Sequence[str]) -> ListedImage:
    if len(row) != len(columns):
        raise _wrong(
            file,
            line,
            f"got {len(row)} values, expected {len(columns)} ({','.join(columns)}). Complete the line",
        )
    values = dict(zip(columns, row, strict=True))
    if not values["path"]:
        raise _wrong(
            file, line, "the path is empty, expected the name of an image. Write it, or remove the line"
        )
    if not values["label"].strip():
        raise _wrong(
            file,
            line,
            f"'{values['path']}' has no label, expected the name of its class. Write it, or remove the line",
        )
    split = values.get("split", "").strip()
    if "split" in values and split not in PARTS:
        error = unknown("split", split, PARTS)
        raise _wrong(file, line, f"{error}. Write train, val or test, or leave out the whole column")
    return ListedImage(
        normal(values["path"]), values["label"].strip(), split, values.get("group", "").strip(), line
    )


def _check_unique(file: Path, images: Sequence[ListedImage]) -> None:
    first: dict[str, int] = {}
    for image in images:
        if image.path in first:
            raise _wrong(
                file,
                image.line,
                f"'{image.path}' stands in line {first[image.path]} too, expected each image once. Remove a line",
            )
        first[image.path] = image.line


def _check_groups(file: Path, images: Sequence[ListedImage]) -> None:
    first: dict[str, ListedImage] = {}
    for image in images:
        known = first.setdefault(image.group, image) if image.group else image
        if known.split != image.split:
            raise _wrong(
                file,
                image.line,
                f"the group '{image.group}' is in {image.split} here and in {known.split} in line {known.line}, "
                "expected one part for all its images. Give them the same split",
            )


def _wrong(file: Path, line: int, problem: str) -> InputError:
    return InputError(f"{file}, line {line}: {problem}")
