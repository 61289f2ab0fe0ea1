"""Sources of timm's readers: indexed map-style data sets, and streams."""

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from igcv.data.decoding import as_rgb, decode, read_image, unreadable
from igcv.data.sources.parts import Parts, Request, names_beside, names_by_number, numbered
from igcv.data.streams import READERS, StreamImages
from igcv.errors import InputError


class TimmImages:
    """Map-style data set of timm: one of its readers, or a torchvision data set."""

    def __init__(self, dataset: Any, kind: str) -> None:
        self.items = getattr(dataset, "reader", dataset)  # timm's data set class skips unreadable images
        if hasattr(self.items, "loader"):  # the function with which torchvision's data sets open files
            self.items.loader = read_image
        self.kind = kind
        self.labels = np.fromiter(map(int, _targets(self.items)), np.int64, len(self.items))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        try:
            image, _ = self.items[int(i)]
        except OSError as error:
            raise unreadable(self.name(i), error) from None
        if isinstance(image, Image.Image):
            return as_rgb(image, self.name(i)), int(self.labels[i])
        with image:
            return decode(image.read(), self.name(i)), int(self.labels[i])

    def name(self, i: int) -> str:
        return f"{self.kind} image {i}"

    def key(self, i: int) -> str:
        return str(i)


def _targets(items: Any) -> Iterable[int]:
    """Return the labels of a timm reader or torchvision data set by the fastest available method."""
    if hasattr(items, "targets"):
        return items.targets
    if hasattr(items, "iter_targets"):
        return items.iter_targets()
    return (items[i][1] for i in range(len(items)))


def open_timm(request: Request) -> Parts:
    if request.argument.partition("/")[0] in READERS:
        return _open_stream(request)
    train = _timm_images(request, "train")
    val = _timm_val(request)
    class_to_idx: dict[str, int] = getattr(train.items, "class_to_idx", {})
    names = sorted(class_to_idx, key=class_to_idx.__getitem__)
    return Parts(train, val, names or names_by_number(train, val), named=bool(names))


class _NoSplitError(InputError):
    """Error for a split that a timm data set does not have."""


def _timm_val(request: Request) -> TimmImages | None:
    for split in ("validation", "test"):
        with suppress(_NoSplitError):
            if images := _timm_images(request, split):
                return images
    return None


def _timm_images(request: Request, split: str) -> TimmImages:
    """Open one split of a timm data set."""
    import timm.data  # slow to import, needed here only

    with _timm_errors(request, split, "a map-style data set such as timm/hfds/USER/NAME"):
        dataset = timm.data.create_dataset(
            request.argument, root=str(request.root), split=split, download=request.download
        )
        return TimmImages(dataset, f"{request.argument} {split}")


def _open_stream(request: Request) -> Parts:
    train = _stream(request, "train")
    val = _stream(request, "validation") or _stream(request, "test")
    some = train or val
    if some is None:
        raise InputError(
            f"timm/{request.argument}: has none of the splits train, validation and test. Rename a split"
        )
    names = sorted(some.class_to_idx, key=some.class_to_idx.__getitem__) or _names_beside_shards(some)
    found = Parts(train, val, names or _numbers(some), named=bool(names))
    return found._replace(train=None, val=train) if val is None and request.seed is None else found


def _stream(request: Request, split: str) -> StreamImages | None:
    """Open one split of an iterable timm data set; None if the split does not exist."""
    with suppress(_NoSplitError), _timm_errors(request, split, "timm/wds/FOLDER, timm/hfids/NAME or such"):
        return StreamImages(request.argument, request.root, split, request.download)
    return None


def _names_beside_shards(images: StreamImages) -> list[str]:
    return names_beside(Path(images.shards[0])) if images.shards else []


def _numbers(images: StreamImages) -> list[str]:
    """Return numbers as class names; their count is from the info file, or else from the highest label."""
    count = images.info.get("num_classes")
    if count is None:
        try:
            count = images.highest_label() + 1
        except (OSError, tarfile.TarError, ValueError) as error:
            raise InputError(f"{images.dataset}: the labels cannot be read ({error})") from None
    if not isinstance(count, int) or count < 1:
        raise InputError(
            f'{images.dataset}: got {count!r} classes, expected 1 or more. Give "num_classes": N in the info file'
        )
    return numbered(count)


@contextmanager
def _timm_errors(request: Request, split: str, expected: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - the readers of several packages raise their own errors
        missing = any(word in str(error).lower() for word in ("split", "length is unknown"))
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise (_NoSplitError if missing else InputError)(
            f"timm/{request.argument}: the {split} split cannot be opened ({reason}), expected "
            f"{expected}, cached or downloadable. Check the name, and install the reader's package "
            "(hfds and hfids: pip install datasets; wds: webdataset; tfds: tensorflow-datasets)"
        ) from None
