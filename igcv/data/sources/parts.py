"""What all sources share: the request, the division into parts, and the names of classes."""

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
_MAX_NUMBERED = 100_000  # classes without names: one wrong label must not make millions of them


class Rule(Enum):
    """How validation images are held out where no list says it."""

    HASH = "by the hash of their names"
    POSITION = "by position, as igcv 0.1.0 did"


class Request(NamedTuple):
    """What is to be opened.

    Attributes:
        kind: name of the source, the part of the spec in front of the colon.
        argument: what follows it.
        seed: of the validation split; None makes none.
        root: where downloads go.
        download: whether missing files may be fetched.
        split: a list of the images, or the rule that holds some out.
        salt: text in front of the names that are hashed.
    """

    kind: str
    argument: str
    seed: int | None
    root: Path
    download: bool
    split: SplitList | Rule = Rule.HASH
    salt: str = ""


class Parts(NamedTuple):
    """What a source opens.

    Attributes:
        train, val, test: the images of each part; None where there are none.
        names: names of the classes in label order.
        notes: what the user should know about the division, a line each.
        divided: whether igcv or a list has decided the parts, not the source.
        named: whether the source names its classes; else they are called by their numbers.
    """

    train: Images | StreamImages | None
    val: Images | StreamImages | None
    names: Sequence[str]
    test: Images | StreamImages | None = None
    notes: tuple[str, ...] = ()
    divided: bool = False
    named: bool = True


def by_position(images: Images, seed: int) -> tuple[Images, Images | None]:
    """Hold out a fifth of each class by a shuffle of the images' numbers, which one image more changes."""
    train, val = split_indices(images.labels, SHARE, seed)
    return SubsetImages(images, train), SubsetImages(images, val) if len(val) else None


def divided(found: Parts, request: Request) -> Parts:
    """Return a source with validation images, held out of its training images where it has none of its own.

    Raises:
        InputError: for a list that does not fit the source.
    """
    images, rule = found.train, request.split
    if found.val or images is None or isinstance(images, StreamImages):
        if isinstance(rule, SplitList) and not rule.kept:
            raise InputError(
                f"{rule.file}: {request.kind} has parts of its own, or comes as a stream, so that no list can divide "
                "it; leave out --split, or give class folders, one .rec file or a folder of images"
            )
        return found
    if isinstance(rule, SplitList):
        return _by_list(found, images, rule, request)
    if request.seed is None:
        return found._replace(train=None, val=images)
    if rule is Rule.POSITION:
        train, val = by_position(images, request.seed)
        note = (
            "split by position, as the igcv did that trained this; added or removed images change the split"
        )
        return found._replace(train=train, val=val, notes=(*found.notes, note), divided=True)
    held = hold_out(_keys(images), images.labels, _salt(request))
    return _taken(found, images, held.parts, _helped(held.helped, found.names))


def _by_list(found: Parts, images: Images, rule: SplitList, request: Request) -> Parts:
    """Divide as a list says; images that it does not name are left out, or get a part by their hash."""
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
    """The source with its images in the parts that are decided."""
    chosen = [np.flatnonzero(parts == number) for number in range(len(PARTS))]
    train, val, test = (SubsetImages(images, some) if len(some) else None for some in chosen)
    notes = (*found.notes, *notes)
    return found._replace(train=train, val=val, test=test or found.test, notes=notes, divided=True)


def _check_labels(images: Images, keys: Sequence[str], rule: SplitList, names: Sequence[str]) -> None:
    """Raise InputError where a list gives an image another class than its source."""
    labels = dict(zip(keys, images.labels.tolist(), strict=True))
    for row in rule.images:
        if row.label != (own := names[labels[row.path]]):
            raise InputError(
                f"{rule.file}, line {row.line}: '{row.path}' has the label '{row.label}', expected '{own}', its class "
                "in the source. Correct the label"
            )


def _since(rule: SplitList, keys: Sequence[str], new: np.ndarray) -> list[str]:
    """What has changed since a run kept its list, in one line; nothing if nothing has.

    Args:
        rule: the list.
        keys: the names of the images that are there.
        new: the part of each image that the list does not name.
    """
    gone = len(rule.images) - len({row.path for row in rule.images} & set(keys))
    if not len(new) and not gone:
        return []
    validate = int((new == VAL).sum())
    return [
        f"since the run began: {len(new):,} new images ({len(new) - validate:,} train, {validate:,} validate), "
        f"{gone:,} images gone ({rule.file})"
    ]


def _helped(labels: Sequence[int], names: Sequence[str]) -> list[str]:
    """A line on classes that no hash gave a validation image; none if there are no such classes."""
    if not labels:
        return []
    shown = some(names[label] for label in labels)
    return [f"no image name has a hash below {SHARE}, so the lowest validates, in the classes: {shown}"]


def _keys(images: Images) -> list[str]:
    return [normal(images.key(i)) for i in range(len(images))]


def _salt(request: Request) -> str:
    """The text in front of hashed names: none for the seed 0."""
    return request.salt + (f"{request.seed}:" if request.seed else "")


def natural(name: str) -> tuple[list[str | int], str]:
    """Return what class names are sorted by: numbers in them by value, upper and lower case alike, as timm does.

    >>> sorted(["b10", "B9", "a", "10", "2"], key=natural)
    ['2', '10', 'a', 'B9', 'b10']
    """
    pieces = re.split(r"([0-9]+)", name.lower())  # text and numbers alternate
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name


def names_beside(path: Path) -> list[str]:
    """The class names, one a line in label order, of the first names file in the folder of `path`."""
    for name in _NAME_FILES:
        file = path.parent / name
        if file.is_file():
            lines = read_text(file, "class names, one a line").splitlines()
            return [name for line in lines if (name := line.strip())]
    return []


def names_by_number(*parts: Images | None) -> list[str]:
    return numbered(1 + max(int(images.labels.max()) for images in filter(None, parts)))


def numbered(count: int) -> list[str]:
    """Numbers for the names of so many classes."""
    if count > _MAX_NUMBERED:
        raise InputError(
            f"the labels go up to {count - 1}, expected at most {_MAX_NUMBERED - 1} without class names; correct "
            f"them, or give the names in {_NAME_FILES[0]}"
        )
    return [str(label) for label in range(count)]
