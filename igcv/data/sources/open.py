"""Data sources: open images from a spec string, e.g. `open_source("folder:photos")`."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import numpy as np

from igcv.data.decoding import BadImageError, max_pixels
from igcv.data.images import Images
from igcv.data.sources.builtin import open_cifar, open_digits
from igcv.data.sources.folders import open_folder
from igcv.data.sources.listed import PARTS, ListedImage, SplitList, composed, normal, read_list
from igcv.data.sources.parts import Parts, Request, Rule, divided
from igcv.data.sources.records import open_records
from igcv.data.sources.spec import located, parsed, source_name
from igcv.data.sources.timm import open_timm
from igcv.data.sources.tiny_imagenet import open_tiny_imagenet
from igcv.data.streams import StreamImages
from igcv.errors import InputError, unknown

_PROBES = 16  # images checked for a common size


@dataclass(frozen=True)
class DataSource:
    """The images of a data source in up to three parts, with their class names."""

    spec: str
    train: Images | StreamImages | None
    """Training images; None if the source has no training part, e.g. one file of validation images."""
    val: Images | StreamImages | None
    """Validation images; None if nothing could be held out because no class has two images."""
    class_names: tuple[str, ...]
    image_size: int | None
    """The side in pixels if all images in a sample of 16 are squares of one size, else None."""
    test: Images | StreamImages | None = None
    """Images for the final accuracy, never used in training; None if the source has no test part."""
    notes: tuple[str, ...] = ()
    """Messages for the user about the split into parts, one line each."""
    divided: bool = False
    """Whether igcv or a list has determined the parts, not the source itself."""
    named: bool = True
    """Whether the source names its classes; otherwise their names are their numbers."""
    name: str = ""
    """Name in reports, tables and headlines; errors give `spec`."""

    def part(self, name: str) -> Images | StreamImages:
        """Return the images of the part "train", "val" or "test".

        Raises:
            InputError: the name is unknown, or the source has no such part.
        """
        if name not in PARTS:
            raise unknown("part", name, PARTS)
        images = {"train": self.train, "val": self.val, "test": self.test}[name]
        if images is None:
            word, fix = _MISSING[name]
            raise InputError(f"{self.spec} has no {word} images. Give {fix}")
        return images

    def listed(self) -> Iterator[ListedImage]:
        """Yield the images of all parts as lines of a list, without streams, whose images have no names."""
        for split, images in zip(PARTS, (self.train, self.val, self.test), strict=True):
            if images is not None and not isinstance(images, StreamImages):
                for i, label in enumerate(images.labels.tolist()):
                    yield ListedImage(normal(images.key(i)), self.class_names[label], split)


_MISSING = {
    "train": ("training", "a source with a training part"),
    "val": ("validation", "a source with a validation part"),
    "test": ("test", "a folder test/ next to train/ and val/, or a list with the split test (--split)"),
}


def open_source(
    spec: str,
    seed: int | None = 0,
    root: Path = Path("data"),
    download: bool = True,
    split: str | Path | SplitList | Rule = Rule.HASH,
) -> DataSource:
    """Open the images of a spec.

    A source without a validation part holds out the images whose names have a hash below 0.2, independent of its other
    images (see `igcv.data.sources.hashed`). The only image of a class is used for training.

    Args:
        spec: one of the following. A path may begin with `~`; a relative path starts at the working folder.

            - `digits`: scikit-learn's digits.
            - `cifar10`, `cifar100`: downloaded, or in a folder with `:FOLDER`.
            - `tinyimagenet:FOLDER`: the unpacked tiny-imagenet-200.
            - `folder:FOLDER`, or just the folder: class folders, or train/ and val/ with class folders.
            - `rec:TRAIN.rec,VAL.rec`: RecordIO files; one of them may be omitted.
            - `train:SOURCE`: only the training images of another source, some of them held out, for choices that its
              validation images must not influence.
            - `timm/READER/NAME`: a data set that `timm.data.create_dataset` opens. Nothing can be held out from
              streams (`wds`, `hfids`, `tfds`). The folder of `timm/wds/FOLDER` has shards and an `_info.json`:
              {"splits": {"train": {"name": "train", "num_samples": 9, "filenames": ["a.tar"], "shard_lengths": [9]},
              "validation": ...}}. Give "num_classes" in this file, or the class names in classes.txt next to it;
              otherwise all shards are read for the labels.
        seed: seed of the validation split, if the source needs one. None disables the split, and all images of such a
            source are validation images. `digits` is always split the same way.
        root: folder for downloads.
        download: whether missing files may be downloaded.
        split: a list of the images (see `igcv.data.sources.listed.read_list`) or its CSV file, which also gives the
            labels of a folder's images; or the rule to hold out images if the source has no validation part.

    Raises:
        InputError: the spec is unknown, the list does not match the source, or files are missing or inconsistent.
    """
    max_pixels()  # reports an invalid limit once, not for every image
    rule = read_list(split) if isinstance(split, str | Path) else split
    spec = located(spec)
    found = _opened(spec, Request("", "", seed, Path(root), download, rule))
    first = next(images for images in (found.train, found.val, found.test) if images)
    names, side = tuple(found.names), _common_side(first)
    return DataSource(
        spec,
        found.train,
        found.val,
        names,
        side,
        found.test,
        found.notes,
        found.divided,
        found.named,
        source_name(spec),
    )


def _opened(spec: str, request: Request) -> Parts:
    """Open a spec and hold out validation images; kind and argument of `request` are replaced."""
    kind, argument = parsed(spec)
    levels = takewhile("train".__eq__, spec.split(":"))
    request = request._replace(kind=kind, argument=argument, salt="".join(f"{level}:" for level in levels))
    found = _OPENERS[kind](request)
    _check_names(spec, found.names)
    for images in (part for part in (found.train, found.val, found.test) if part):
        if isinstance(images, StreamImages):
            images.num_classes = len(found.names)
        else:
            _check_labels(images, found.names)
    return divided(found, request)


def _check_names(spec: str, names: Sequence[str]) -> None:
    """Raise InputError for duplicate class names, which would make predictions ambiguous."""
    alike = [composed(name) for name in names]
    twice, count = max(Counter(alike).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        places = [str(i) for i, name in enumerate(alike) if name == twice]
        raise InputError(
            f"{spec}: got the class name '{twice}' for the labels {', '.join(places)}, expected unique names. Rename "
            "the classes"
        )


def _check_labels(images: Images, names: Sequence[str]) -> None:
    outside = np.flatnonzero((images.labels < 0) | (images.labels >= len(names)))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"{images.name(first)}: got label {images.labels[first]}, expected 0 to "
            f"{len(names) - 1} for {len(names)} class names. Correct the labels or the names"
        )


def _common_side(images: Images | StreamImages) -> int | None:
    if isinstance(images, StreamImages):
        with closing(images.samples()) as samples:
            return _side({image.size for image, *_ in islice(samples, _PROBES) if image is not None})
    sizes = set()
    for i in np.linspace(0, len(images) - 1, _PROBES).astype(int):
        try:
            sizes.add(images[int(i)][0].size)
        except BadImageError:  # reported when the image is used
            continue
    return _side(sizes)


def _side(sizes: set[tuple[int, int]]) -> int | None:
    width, height = sizes.pop() if len(sizes) == 1 else (0, 1)
    return width if width == height else None


def _open_train(request: Request) -> Parts:
    """Open the training part of another source, without its validation images."""
    rule = request.split
    if isinstance(rule, SplitList) and not rule.kept:
        raise InputError(f"{rule.file}: a list cannot split train:{request.argument}. Omit --split or train:")
    inner = request._replace(seed=0, split=Rule.HASH if isinstance(rule, SplitList) else rule)
    whole = _opened(request.argument, inner)
    if whole.train is None or isinstance(whole.train, StreamImages):
        raise InputError(
            f"cannot hold out training images of {request.argument}. Give a source with training images "
            "that are not a stream, e.g. cifar10 or folder:PATH"
        )
    return Parts(whole.train, None, whole.names, named=whole.named)


_OPENERS: dict[str, Callable[[Request], Parts]] = {
    "digits": open_digits,
    "cifar10": open_cifar,
    "cifar100": open_cifar,
    "tinyimagenet": open_tiny_imagenet,
    "folder": open_folder,
    "rec": open_records,
    "train": _open_train,
    "timm": open_timm,
}
