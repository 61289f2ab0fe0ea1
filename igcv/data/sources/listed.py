"""Lists of images as CSV files, with the label and the part (train, val, test) of each image."""

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
_EXPECTED = "path,label,split,group (split and group are optional)"


class ListedImage(NamedTuple):
    """One line of a list."""

    path: str  # relative to the source, normalized by `normal`
    label: str
    split: str  # one of PARTS; empty if the list has no such column
    group: str = ""  # images of one group stay in one part; empty for an image without a group
    line: int = 0  # line number in the file, from 1


@dataclass(frozen=True)
class SplitList:
    """A list of images.

    Attributes:
        file: the CSV file.
        images: the lines of the list.
        kept: whether a run wrote the list; then missing images are not an error.
        whole: whether unlisted images are left out; otherwise their hash determines their part.
    """

    file: Path
    images: tuple[ListedImage, ...]
    kept: bool = False
    whole: bool = True

    def check_there(self, names: Collection[str], place: str) -> None:
        """Raise InputError if an image is not among `names`; for a run's whole list, only if all images are missing."""
        gone = [image for image in self.images if image.path not in names]
        if self.kept and self.whole and len(gone) == len(self.images):
            raise InputError(
                f"{place}: has none of the {len(gone)} images in {self.file}, expected the images of the training run. "
                "Give their folder or file with --data"
            )
        if not gone or self.kept:
            return
        example = f", e.g. '{min(names)}'" if names else ""
        raise _wrong(
            self.file,
            gone[0].line,
            f"'{gone[0].path}' is not an image of {place} ({len(gone)} such lines), expected relative "
            f"names{example}. Correct the path column, or remove these lines",
        )


def composed(name: str) -> str:
    """Return a name in composed characters (NFC), because file systems store accents in two ways."""
    return unicodedata.normalize("NFC", name)


def normal(name: str) -> str:
    """Return a relative name in normal form for comparisons: composed characters, no './'."""
    return composed(normpath(name))


def read_list(file: str | Path, *, kept: bool = False, whole: bool = True) -> SplitList:
    """Read a list from a CSV file in UTF-8; its first line has the columns path, label, and optionally split, group.

    Args:
        file: the CSV file.
        kept, whole: see `SplitList`.

    Raises:
        InputError: a line is invalid; the message gives its number.
    """
    file = Path(absolute(file))
    # A run's own list may contain file names that are not UTF-8.
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
            file, reader.line_num, f"invalid CSV ({error}). Put values with commas or line breaks in quotes"
        ) from None
    if not images:
        raise _wrong(file, 2, f"the list has no images, expected a line for each: {_EXPECTED}")
    _check_unique(file, images)
    _check_groups(file, images)
    return SplitList(file, tuple(images), kept, whole)


def list_bytes(images: Iterable[ListedImage]) -> bytes:
    """Return a list as the bytes of a CSV file with the columns path, label, split."""
    rows = {image.path: image[:3] for image in images}.values()  # one row per normalized name, see `normal`
    returns = any("\r" in value for row in rows for value in row)  # Python's csv module does not quote these
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
            f"got the columns '{','.join(columns)}', expected {_EXPECTED}. Write them in the first line",
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
            file, line, "the path is empty, expected the name of an image. Add it, or remove the line"
        )
    if not values["label"].strip():
        raise _wrong(
            file,
            line,
            f"'{values['path']}' has no label, expected the name of its class. Add it, or remove the line",
        )
    split = values.get("split", "").strip()
    if "split" in values and split not in PARTS:
        error = unknown("split", split, PARTS)
        raise _wrong(file, line, f"{error}. Write train, val or test, or omit the whole column")
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
                f"'{image.path}' is in line {first[image.path]} too, expected each image once. Remove one of the lines",
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
                "expected one part for all its images. Give all of them the same split",
            )


def _wrong(file: Path, line: int, problem: str) -> InputError:
    return InputError(f"{file}, line {line}: {problem}")
