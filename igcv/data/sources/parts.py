"""Shared code of all sources: the request, the split into parts, and the class names."""

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from igcv.data.images import Images, SubsetImages, split_indices
from igcv.data.sources.hashed import FREE, SHARE, VAL, hold_out
from igcv.data.sources.listed import PARTS, SplitList, normal
from igcv.data.streams import StreamImages
from igcv.errors import InputError, some
from igcv.reading import read_text

_NAME_FILES = ("synset.txt", "classes.txt", "labels.txt")
_MAX_NUMBERED = 100_000  # limit of unnamed classes, so one wrong label does not create millions of them


class Rule(Enum):
    """Rule for holding out validation images without a list."""

    HASH = "by the hash of their names"
    POSITION = "by position, as igcv 0.1.0 did"


class Request(NamedTuple):
    """Request to open a source.

    Attributes:
        kind: kind of the source, the part of the spec before the colon.
        argument: the part of the spec after the colon.
        seed: seed of the validation split; None disables the split.
        root: folder for downloads.
        download: whether missing files may be downloaded.
        split: a list of the images, or the rule for holding out validation images.
        salt: prefix of the names that are hashed.
    """

    kind: str
    argument: str
    seed: int | None
    root: Path
    download: bool
    split: SplitList | Rule = Rule.HASH
    salt: str = ""


class Parts(NamedTuple):
    """The opened parts of a source.

    Attributes:
        train, val, test: the images of each part; None for a missing part.
        names: class names in label order.
        notes: messages for the user about the split, one line each.
        divided: whether igcv or a list has determined the parts, not the source.
        named: whether the source names its classes; otherwise their names are their numbers.
    """

    train: Images | StreamImages | None
    val: Images | StreamImages | None
    names: Sequence[str]
    test: Images | StreamImages | None = None
    notes: tuple[str, ...] = ()
    divided: bool = False
    named: bool = True


def by_position(images: Images, seed: int) -> tuple[Images, Images | None]:
    """Hold out a fifth of each class by a shuffle of the image numbers; one more image changes the whole split."""
    train, val = split_indices(images.labels, SHARE, seed)
    return SubsetImages(images, train), SubsetImages(images, val) if len(val) else None


def divided(found: Parts, request: Request) -> Parts:
    """Return a source with validation images, held out from its training images if it has none of its own.

    Raises:
        InputError: the list does not match the source.
    """
    images, rule = found.train, request.split
    if found.val or images is None or isinstance(images, StreamImages):
        if isinstance(rule, SplitList) and not rule.kept:
            raise InputError(
                f"{rule.file}: a list cannot split {request.kind}, which has its own parts or is a stream. Omit "
                "--split, or give class folders, one .rec file or a folder of images"
            )
        return found
    if isinstance(rule, SplitList):
        return _by_list(found, images, rule, request)
    if request.seed is None:
        return found._replace(train=None, val=images)
    if rule is Rule.POSITION:
        train, val = by_position(images, request.seed)
        note = "split by position, as in the igcv version that trained it; added or removed images change the split"
        return found._replace(train=train, val=val, notes=(*found.notes, note), divided=True)
    held = hold_out(_keys(images), images.labels, _salt(request))
    return _taken(found, images, held.parts, _helped(held.helped, found.names))


def _by_list(found: Parts, images: Images, rule: SplitList, request: Request) -> Parts:
    """Split by a list; unlisted images are left out, or their hash determines their part."""
    keys, rows = _keys(images), {row.path: row for row in rule.images}
    rule.check_there(set(keys), request.argument)
    if not rule.kept:
        _check_labels(images, keys, rule, found.names)
    listed = np.array([key in rows for key in keys], bool)
    splits = [rows[key].split if key in rows else "" for key in keys]
    parts = np.array([PARTS.index(split) if split else FREE for split in splits], np.int64)
    notes = []
    if rule.whole and not listed.all():
        notes.append(f"{(~listed).sum():,} images are not in {rule.file} and are left out")
    chosen = np.flatnonzero(listed) if rule.whole else np.arange(len(keys))
    subset, fixed = SubsetImages(images, chosen), parts[chosen]
    if request.seed is None:
        fixed = np.where(fixed == FREE, VAL, fixed)
    units = [(rows[keys[i]].group if keys[i] in rows else "") or keys[i] for i in chosen]
    held = hold_out(units, subset.labels, _salt(request), fixed)
    if rule.kept:
        notes += _since(rule, keys, held.parts[~listed[chosen]])
    notes += _helped(held.helped, found.names)
    return _taken(found, subset, held.parts, notes)


def _taken(found: Parts, images: Images, parts: np.ndarray, notes: Sequence[str]) -> Parts:
    """Return the source with its images assigned to the given parts."""
    chosen = [np.flatnonzero(parts == number) for number in range(len(PARTS))]
    train, val, test = (SubsetImages(images, some) if len(some) else None for some in chosen)
    notes = (*found.notes, *notes)
    return found._replace(train=train, val=val, test=test or found.test, notes=notes, divided=True)


def _check_labels(images: Images, keys: Sequence[str], rule: SplitList, names: Sequence[str]) -> None:
    """Raise InputError if a list and the source disagree on the class of an image."""
    labels = dict(zip(keys, images.labels.tolist(), strict=True))
    for row in rule.images:
        if row.label != (own := names[labels[row.path]]):
            raise InputError(
                f"{rule.file}, line {row.line}: '{row.path}' has the label '{row.label}', expected '{own}', its class "
                "in the source. Correct the label"
            )


def _since(rule: SplitList, keys: Sequence[str], new: np.ndarray) -> list[str]:
    """Return a line about the changes since the run stored its list; empty if there are none.

    Args:
        rule: the list.
        keys: names of the images in the source.
        new: the part of each unlisted image.
    """
    gone = len(rule.images) - len({row.path for row in rule.images} & set(keys))
    if not len(new) and not gone:
        return []
    validate = int((new == VAL).sum())
    return [
        f"since the start of the run: {len(new):,} new images ({len(new) - validate:,} training, {validate:,} "
        f"validation), {gone:,} images missing ({rule.file})"
    ]


def _helped(labels: Sequence[int], names: Sequence[str]) -> list[str]:
    """Return a line about classes without a hash below `SHARE`; empty if there are none."""
    if not labels:
        return []
    shown = some(names[label] for label in labels)
    return [
        f"no hash below {SHARE}, so the image with the lowest is held out for validation, in classes: {shown}"
    ]


def _keys(images: Images) -> list[str]:
    return [normal(images.key(i)) for i in range(len(images))]


def _salt(request: Request) -> str:
    """Return the prefix of hashed names; seed 0 adds none."""
    return request.salt + (f"{request.seed}:" if request.seed else "")


def natural(name: str) -> tuple[list[str | int], str]:
    """Return the sort key of a class name: numbers by value, case ignored, as in timm.

    >>> sorted(["b10", "B9", "a", "10", "2"], key=natural)
    ['2', '10', 'a', 'B9', 'b10']
    """
    pieces = re.split(r"([0-9]+)", name.lower())  # text and numbers alternate
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name


def names_beside(path: Path) -> list[str]:
    """Return the class names, one per line in label order, from the first names file in the folder of `path`."""
    for name in _NAME_FILES:
        file = path.parent / name
        if file.is_file():
            lines = read_text(file, "class names, one per line").splitlines()
            return [name for line in lines if (name := line.strip())]
    return []


def names_by_number(*parts: Images | None) -> list[str]:
    return numbered(1 + max(int(images.labels.max()) for images in filter(None, parts)))


def numbered(count: int) -> list[str]:
    """Return the numbers of `count` unnamed classes as their names."""
    if count > _MAX_NUMBERED:
        raise InputError(
            f"got labels up to {count - 1}, expected at most {_MAX_NUMBERED - 1} without class names. Correct the "
            f"labels, or give the class names in {_NAME_FILES[0]}"
        )
    return [str(label) for label in range(count)]
