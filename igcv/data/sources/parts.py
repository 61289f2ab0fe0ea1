"""What all sources share: the request, the split in two parts, and the names of classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from igcv.data.images import Images, SubsetImages, split_indices
from igcv.data.streams import StreamImages
from igcv.errors import InputError

_VAL_FRACTION = 0.2  # of a source that has no validation part of its own
_NAME_FILES = ("synset.txt", "classes.txt", "labels.txt")
_MAX_NUMBERED = 100_000  # classes without names: one wrong label must not make millions of them


class Request(NamedTuple):
    kind: str
    argument: str
    seed: int | None
    root: Path
    download: bool


Parts = tuple[Images | StreamImages | None, Images | StreamImages | None, Sequence[str]]


def held_out(images: Images, seed: int) -> tuple[Images, Images | None]:
    train, val = split_indices(images.labels, _VAL_FRACTION, seed)
    return SubsetImages(images, train), SubsetImages(images, val) if len(val) else None


def with_validation(
    train: Images | None, val: Images | None, seed: int | None
) -> tuple[Images | None, Images | None]:
    """Both parts, the second set aside from the first where there is none, or with no seed taking its place."""
    if val or train is None:
        return train, val
    return held_out(train, seed) if seed is not None else (None, train)


def names_beside(path: Path) -> list[str]:
    """The class names, one a line in label order, of the first names file in the folder of `path`."""
    for name in _NAME_FILES:
        file = path.parent / name
        if file.is_file():
            try:
                return [
                    line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
                ]
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{file}: no readable class names ({error}); write one a line in UTF-8"
                ) from error
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
