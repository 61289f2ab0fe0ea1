"""One string says where the images are: `open_source("folder:photos")` opens what is to be learned from."""

import os
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm.data
import torchvision.datasets

from igcv.data.images import (
    ArrayImages,
    BadImageError,
    FileImages,
    Images,
    RecordImages,
    SubsetImages,
    TimmImages,
    split_indices,
)
from igcv.data.streams import READERS, StreamImages
from igcv.errors import InputError, unknown

_VAL_FRACTION = 0.2  # of a source that has no validation part of its own
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_TRAIN_FOLDERS = ("train",)
_VAL_FOLDERS = ("val", "validation", "test")  # the first that is there
_NAME_FILES = ("synset.txt", "classes.txt", "labels.txt")
_MAX_NUMBERED = 100_000  # classes without names: one wrong label must not make millions of them
_PROBES = 16  # images whose size is looked at


@dataclass(frozen=True)
class DataSource:
    """What a spec opens."""

    spec: str
    train: Images | StreamImages | None
    """None if the source has no training part, e.g. one file of validation images."""
    val: Images | StreamImages | None
    """None if nothing could be set aside: no class has two images."""
    class_names: tuple[str, ...]
    image_size: int | None
    """The side in pixels if all images (of a sample of 16) are squares of one size, else None."""


class _Request(NamedTuple):
    kind: str
    argument: str
    seed: int | None
    root: Path
    download: bool


_Parts = tuple[Images | StreamImages | None, Images | StreamImages | None, Sequence[str]]


class _Kind(NamedTuple):
    form: str
    needs: str  # whether the part after the name is "nothing", "optional" or "required"
    open: Callable[[_Request], _Parts]


def open_source(
    spec: str, seed: int | None = 0, root: Path = Path("data"), download: bool = True
) -> DataSource:
    """Open the images that a spec names.

    Of a source without a validation part a fifth of each class is set aside; a class's only image is not.

    Args:
        spec: `digits`; `cifar10`, `cifar100`, or with `:FOLDER` that holds them; `tinyimagenet:FOLDER`, the unpacked
            tiny-imagenet-200; `folder:FOLDER` (or just the
            folder) of class folders, or of train/ and val/ with class folders; `rec:TRAIN.rec,VAL.rec` (one
            may be left out); `train:SOURCE`, the training images of another source alone, of which some are set
            aside, for choices that its validation images must not influence; `timm/READER/NAME`, a data set that
            `timm.data.create_dataset` opens. In the folder that `timm/wds/FOLDER` names are shards and an
            `_info.json`: {"splits": {"train": {"name": "train", "num_samples": 9, "filenames": ["a.tar"],
            "shard_lengths": [9]}, "validation": ...}}, and in it "num_classes", or beside it the class names in
            classes.txt; else all shards are read for the labels. Nothing can be set aside of streams (`wds`,
            `hfids`, `tfds`).
        seed: of the validation split, where one has to be made; None makes none, and all images of such a source
            are validation images. `digits` are always split the same way.
        root: where downloads go.
        download: whether missing files may be fetched.

    Raises:
        InputError: an unknown spec, or files that are missing or do not fit together.
    """
    kind, separator, argument = spec.partition("/" if spec.startswith("timm/") else ":")
    if kind not in _KINDS and Path(spec).is_dir():
        kind, separator, argument = "folder", ":", spec
    if kind not in _KINDS:
        forms = ", ".join(known.form for known in _KINDS.values())
        raise unknown("data source", kind, _KINDS, f"one of: {forms}, or a folder that exists")
    form, needs, opener = _KINDS[kind]
    if (needs == "nothing" and separator) or (needs == "required" and not argument):
        raise InputError(f"data source '{spec}' does not have the form {form}; write it so")
    train, val, names = opener(_Request(kind, argument, seed, Path(root), download))
    _check_names(spec, names)
    parts = [images for images in (train, val) if images]
    for images in parts:
        if isinstance(images, StreamImages):
            images.num_classes = len(names)
        else:
            _check_labels(images, names)
    return DataSource(spec, train, val, tuple(names), _common_side(parts[0]))


def _check_names(spec: str, names: Sequence[str]) -> None:
    """Two classes of one name could not be told apart in any answer."""
    alike = [unicodedata.normalize("NFC", name) for name in names]
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


def _set_aside(images: Images, seed: int) -> tuple[Images, Images | None]:
    train, val = split_indices(images.labels, _VAL_FRACTION, seed)
    return SubsetImages(images, train), SubsetImages(images, val) if len(val) else None


def _with_val(
    train: Images | None, val: Images | None, seed: int | None
) -> tuple[Images | None, Images | None]:
    """Both parts, the second set aside from the first where there is none, or with no seed taking its place."""
    if val or train is None:
        return train, val
    return _set_aside(train, seed) if seed is not None else (None, train)


def _open_digits(request: _Request) -> _Parts:
    from sklearn.datasets import load_digits  # slow to import, needed here only

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    images = ArrayImages(np.repeat(grey[..., None], 3, axis=-1), digits.target, request.kind)
    return *_set_aside(images, seed=0), [str(digit) for digit in range(10)]


def _open_cifar(request: _Request) -> _Parts:
    dataset = getattr(torchvision.datasets, request.kind.upper())
    root = Path(request.argument or request.root)
    try:
        try:
            train, val = (dataset(root, train=part) for part in (True, False))
        except RuntimeError:  # torchvision's word for missing or damaged files
            if request.argument or not request.download:
                raise
            train, val = (dataset(root, train=part, download=True) for part in (True, False))
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{request.kind}: no complete data set in {root / dataset.base_folder} ({error}); "
            f"unpack {dataset.url} there, or name its folder: {request.kind}:FOLDER"
        ) from None
    images = [ArrayImages(half.data, half.targets, request.kind) for half in (train, val)]
    return *images, train.classes


def _open_tiny_imagenet(request: _Request) -> _Parts:
    """Open Tiny-ImageNet-200 as published: train/WNID/images, val/images with val_annotations.txt, words.txt."""
    root = Path(request.argument)
    wnids = sorted(row[0] for row in _rows(root / "wnids.txt", 1))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    names = {wnid: words.split(",")[0].strip() for wnid, words in _rows(root / "words.txt", 2)}
    train = [(file, wnid) for wnid in wnids for file in _image_files(root / "train" / wnid)]
    annotated = _rows(root / "val" / "val_annotations.txt", 2)
    val = [(str(root / "val" / "images" / file), wnid) for file, wnid in annotated]
    unknown_ids = {wnid for _, wnid in val} - labels.keys() | set(wnids) - names.keys()
    if unknown_ids or not train or not val:
        raise InputError(
            f"{root}: found {len(train)} training and {len(val)} validation images and {len(unknown_ids)} unknown "
            "class identifiers, expected tiny-imagenet-200 as published. Unpack the archive again"
        )
    first, second = (
        FileImages([file for file, _ in part], [labels[wnid] for _, wnid in part]) for part in (train, val)
    )
    return first, second, [names[wnid] for wnid in wnids]


def _rows(file: Path, columns: int) -> list[list[str]]:
    """The first columns of a file of lines with tabs."""
    try:
        rows = [line.split("\t")[:columns] for line in file.read_text("utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: cannot be read ({error}), expected a file of tiny-imagenet-200. Give its folder as "
            "tinyimagenet:FOLDER"
        ) from None
    if short := next((row for row in rows if len(row) < columns), None):
        raise InputError(f"{file}: got the line '{short[0]}', expected {columns} columns with tabs")
    return rows


def _open_folder(request: _Request) -> _Parts:
    root = Path(request.argument)
    inside = {folder.name: folder for folder in _folders(root)}
    train, val = (
        next((inside[name] for name in known if name in inside), None)
        for known in (_TRAIN_FOLDERS, _VAL_FOLDERS)
    )
    if not any(part and _folders(part) for part in (train, val)):  # then they are classes that are called so
        train, val = root, None
    parts = [part for part in (train, val) if part]
    classes = [[folder.name for folder in _class_folders(part)] for part in parts]
    if classes[0] != classes[-1]:
        odd = sorted(set(classes[0]) ^ set(classes[-1]))
        raise InputError(
            f"{root}: {parts[0].name}/ and {parts[-1].name}/ have different class folders, expected "
            f"the same in both; only in one: {', '.join(odd[:5])} ({len(odd)} in all)"
        )
    train_images, val_images = (_folder_images(part) if part else None for part in (train, val))
    return *_with_val(train_images, val_images, request.seed), classes[0]


def _folder_images(root: Path) -> FileImages:
    files, labels = [], []
    for label, folder in enumerate(_class_folders(root)):
        found = _image_files(folder)
        if not found:
            raise InputError(
                f"{folder}: the class '{folder.name}' has no images, expected files ending in "
                f"{', '.join(_EXTENSIONS)}; add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return FileImages(files, labels)


def _class_folders(root: Path) -> list[Path]:
    folders = _folders(root)
    if not folders:
        raise InputError(
            f"{root}: has {len(_image_files(root))} images and no class folders, expected a "
            "folder of images for each class; move the images into folders named by class"
        )
    return folders


def _folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted by name; hidden ones are an editor's or the system's."""
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise _unreadable(error) from None


def _image_files(folder: Path) -> list[str]:
    """The image files in `folder` and below, sorted by path; a folder that links lead back to counts once."""
    found, seen = [], set()
    try:
        for place, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            found += [os.path.join(place, name) for name in names if name.lower().endswith(_EXTENSIONS)]
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(path for path in found if os.path.basename(path)[0] != ".")


def _stop(error: OSError) -> None:
    raise error


def _unreadable(error: OSError) -> InputError:
    return InputError(
        f"{error.filename}: cannot be read as a folder ({error.strerror}), expected a folder "
        "of class folders; check the path and its permissions"
    )


def _open_rec(request: _Request) -> _Parts:
    paths = request.argument.split(",")
    if len(paths) > 2 or not any(paths):
        raise InputError(
            f"data source 'rec:{request.argument}' names {sum(map(bool, paths))} files, "
            f"expected {_KINDS['rec'].form}"
        )
    train, val = (RecordImages(path) if path else None for path in (*paths, "")[:2])
    names = _names_beside(Path(paths[0] or paths[1])) or _numbers(train, val)
    return *_with_val(train, val, request.seed), names


def _names_beside(path: Path) -> list[str]:
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


def _numbers(*parts: Images | None) -> list[str]:
    return _numbered(1 + max(int(images.labels.max()) for images in filter(None, parts)))


def _numbered(count: int) -> list[str]:
    """Numbers for the names of so many classes."""
    if count > _MAX_NUMBERED:
        raise InputError(
            f"the labels go up to {count - 1}, expected at most {_MAX_NUMBERED - 1} without class names; correct "
            f"them, or give the names in {_NAME_FILES[0]}"
        )
    return [str(label) for label in range(count)]


def _open_train(request: _Request) -> _Parts:
    """The training part of another source, a part of it set aside; what that source validates on stays unseen."""
    whole = open_source(request.argument, seed=0, root=request.root, download=request.download)
    if whole.train is None or isinstance(whole.train, StreamImages):
        raise InputError(
            f"nothing can be set aside of the training images of {request.argument}; give a source "
            "whose training images can be read by number, e.g. cifar10 or folder:PATH"
        )
    return *_with_val(whole.train, None, request.seed), whole.class_names


def _open_timm(request: _Request) -> _Parts:
    if request.argument.partition("/")[0] in READERS:
        return _open_stream(request)
    train = _timm_images(request, "train")
    val = _timm_val(request)
    class_to_idx: dict[str, int] = getattr(train.items, "class_to_idx", {})
    names = sorted(class_to_idx, key=class_to_idx.__getitem__) or _numbers(train, val)
    return *_with_val(train, val, request.seed), names


class _NoSplitError(InputError):
    """A timm data set says that it does not have this split."""


def _timm_val(request: _Request) -> TimmImages | None:
    for split in ("validation", "test"):
        with suppress(_NoSplitError):
            if images := _timm_images(request, split):
                return images
    return None


def _timm_images(request: _Request, split: str) -> TimmImages:
    """One split of a timm data set."""
    with _timm_errors(request, split, "a map-style data set such as timm/hfds/USER/NAME"):
        dataset = timm.data.create_dataset(
            request.argument, root=str(request.root), split=split, download=request.download
        )
        return TimmImages(dataset, f"{request.argument} {split}")


def _open_stream(request: _Request) -> _Parts:
    train = _stream(request, "train")
    val = _stream(request, "validation") or _stream(request, "test")
    some = train or val
    if some is None:
        raise InputError(
            f"timm/{request.argument}: has none of the splits train, validation and test; name one so"
        )
    names = sorted(some.class_to_idx, key=some.class_to_idx.__getitem__) or _stream_names(some)
    return *((train, val) if val or request.seed is not None else (None, train)), names


def _stream(request: _Request, split: str) -> StreamImages | None:
    """One split of an iterable data set of timm, or None if it does not have it."""
    with suppress(_NoSplitError), _timm_errors(request, split, "timm/wds/FOLDER, timm/hfids/NAME or such"):
        return StreamImages(request.argument, request.root, split, request.download)
    return None


def _stream_names(images: StreamImages) -> list[str]:
    count = images.info.get("num_classes")
    if images.shards and (names := _names_beside(Path(images.shards[0]))):
        return names
    if count is None:
        try:
            count = images.highest_label() + 1
        except (OSError, tarfile.TarError, ValueError) as error:
            raise InputError(f"{images.dataset}: the labels cannot be read ({error})") from None
    if not isinstance(count, int) or count < 1:
        raise InputError(f'{images.dataset}: no class is known; give "num_classes": N in its info file')
    return _numbered(count)


@contextmanager
def _timm_errors(request: _Request, split: str, expected: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - readers of half a dozen packages, each with errors of its own
        missing = any(word in str(error).lower() for word in ("split", "length is unknown"))
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise (_NoSplitError if missing else InputError)(
            f"timm/{request.argument}: the {split} split cannot be opened ({reason}); expected "
            f"{expected}, in the cache or within reach of the network, and its package installed "
            "(hfds and hfids: pip install datasets; wds: webdataset; tfds: tensorflow-datasets)"
        ) from None


_KINDS = {
    "digits": _Kind("digits", "nothing", _open_digits),
    "cifar10": _Kind("cifar10[:FOLDER]", "optional", _open_cifar),
    "cifar100": _Kind("cifar100[:FOLDER]", "optional", _open_cifar),
    "tinyimagenet": _Kind("tinyimagenet:FOLDER", "required", _open_tiny_imagenet),
    "folder": _Kind("folder:FOLDER", "required", _open_folder),
    "rec": _Kind("rec:TRAIN.rec,VAL.rec", "required", _open_rec),
    "train": _Kind("train:SOURCE", "required", _open_train),
    "timm": _Kind("timm/READER/NAME", "required", _open_timm),
}
