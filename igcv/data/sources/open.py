"""One string says where the images are: `open_source("folder:photos")` opens what is to be learned from."""

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

_PROBES = 16  # images whose size is looked at


@dataclass(frozen=True)
class DataSource:
    """What a spec opens."""

    spec: str
    train: Images | StreamImages | None
    """None if the source has no training part, e.g. one file of validation images."""
    val: Images | StreamImages | None
    """None if nothing could be held out: no class has two images."""
    class_names: tuple[str, ...]
    image_size: int | None
    """The side in pixels if all images (of a sample of 16) are squares of one size, else None."""
    test: Images | StreamImages | None = None
    """The images for the final accuracy, at which no training looks; None if the source has no such part."""
    notes: tuple[str, ...] = ()
    """What the user should know about the division into parts, a line each."""
    divided: bool = False
    """Whether igcv or a list has decided the parts, not the source itself."""
    named: bool = True
    """Whether the source names its classes; else they are called by their numbers."""
    name: str = ""
    """What reports, tables and headlines call it; errors give `spec`, its place."""

    def part(self, name: str) -> Images | StreamImages:
        """Return the images of the part "train", "val" or "test".

        Raises:
            InputError: for another name, or where the source has no such part.
        """
        if name not in PARTS:
            raise unknown("part", name, PARTS)
        images = {"train": self.train, "val": self.val, "test": self.test}[name]
        if images is None:
            word, fix = _MISSING[name]
            raise InputError(f"{self.spec} has no {word} images; give {fix}")
        return images

    def listed(self) -> Iterator[ListedImage]:
        """The images of all parts as lines of a list; none of streams, whose images have no names."""
        for split, images in zip(PARTS, (self.train, self.val, self.test), strict=True):
            if images is not None and not isinstance(images, StreamImages):
                for i, label in enumerate(images.labels.tolist()):
                    yield ListedImage(normal(images.key(i)), self.class_names[label], split)


_MISSING = {
    "train": ("training", "a source with a training part"),
    "val": ("validation", "a source with a validation part"),
    "test": ("test", "a folder test/ beside train/ and val/, or a list with the split test (--split)"),
}


def open_source(
    spec: str,
    seed: int | None = 0,
    root: Path = Path("data"),
    download: bool = True,
    split: str | Path | SplitList | Rule = Rule.HASH,
) -> DataSource:
    """Open the images that a spec names.

    Of a source without a validation part the images validate whose names have a hash below 0.2, whatever other images
    there are (see `igcv.data.sources.hashed`); a class's only image trains.

    Args:
        spec: `digits`; `cifar10`, `cifar100`, or with `:FOLDER` that holds them; `tinyimagenet:FOLDER`, the unpacked
            tiny-imagenet-200; `folder:FOLDER` (or just the
            folder) of class folders, or of train/ and val/ with class folders; `rec:TRAIN.rec,VAL.rec` (one
            may be left out); `train:SOURCE`, the training images of another source alone, of which some are held
            out, for choices that its validation images must not influence; `timm/READER/NAME`, a data set that
            `timm.data.create_dataset` opens. In the folder that `timm/wds/FOLDER` names are shards and an
            `_info.json`: {"splits": {"train": {"name": "train", "num_samples": 9, "filenames": ["a.tar"],
            "shard_lengths": [9]}, "validation": ...}}, and in it "num_classes", or beside it the class names in
            classes.txt; else all shards are read for the labels. Nothing can be held out of streams (`wds`,
            `hfids`, `tfds`). A path may begin with `~`; a relative one counts from the working folder.
        seed: of the validation split, where one has to be made; None makes none, and all images of such a source
            are validation images. `digits` are always split the same way.
        root: where downloads go.
        download: whether missing files may be fetched.
        split: a list of the images (see `igcv.data.sources.listed.read_list`) or its CSV file, which also gives the
            labels of a folder's images; else the rule that holds images out where the source has no validation part.

    Raises:
        InputError: an unknown spec, a list that does not fit, or files that are missing or do not fit together.
    """
    max_pixels()  # else every image would be told that the limit is wrong
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
    """What a spec opens, with validation images; `request` as for the spec, but for its kind and argument."""
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
    """Two classes of one name could not be told apart in any answer."""
    alike = [composed(name) for name in names]
    twice, count = max(Counter(alike).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        places = [str(i) for i, name in enumerate(alike) if name == twice]
        raise InputError(
            f"{spec}: the class name '{twice}' stands for the labels {', '.join(places)}; give each a name of its own"
        )


def _check_labels(images: Images, names: Sequence[str]) -> None:
    outside = np.flatnonzero((images.labels < 0) | (images.labels >= len(names)))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"{images.name(first)}: the label is {images.labels[first]}, expected 0 to "
            f"{len(names) - 1} for {len(names)} class names; correct the labels or the names"
        )


def _common_side(images: Images | StreamImages) -> int | None:
    if isinstance(images, StreamImages):
        with closing(images.samples()) as samples:
            return _side({image.size for image, *_ in islice(samples, _PROBES) if image is not None})
    sizes = set()
    for i in np.linspace(0, len(images) - 1, _PROBES).astype(int):
        try:
            sizes.add(images[int(i)][0].size)
        except BadImageError:  # reported where it is used
            continue
    return _side(sizes)


def _side(sizes: set[tuple[int, int]]) -> int | None:
    width, height = sizes.pop() if len(sizes) == 1 else (0, 1)
    return width if width == height else None


def _open_train(request: Request) -> Parts:
    """The training part of another source; what that source validates on stays unseen."""
    rule = request.split
    if isinstance(rule, SplitList) and not rule.kept:
        raise InputError(
            f"{rule.file}: no list can divide train:{request.argument}; leave out --split or train:"
        )
    inner = request._replace(seed=0, split=Rule.HASH if isinstance(rule, SplitList) else rule)
    whole = _opened(request.argument, inner)
    if whole.train is None or isinstance(whole.train, StreamImages):
        raise InputError(
            f"nothing can be set aside of the training images of {request.argument}; give a source "
            "whose training images can be read by number, e.g. cifar10 or folder:PATH"
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
