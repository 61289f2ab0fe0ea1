"""Indexed sets of labeled images, in memory or in files, and a random split by class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from igcv.data.decoding import decode, read_image
from igcv.data.recordio import RecordFile
from igcv.errors import InputError


class Images(Protocol):
    """Indexed set of labeled images; can be pickled to data-loading workers."""

    labels: np.ndarray
    """The class of each image, int64 of shape (len,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        """Return image `i` as PIL RGB, and its label.

        Raises:
            BadImageError: the image cannot be read; for a JPEG, the error may come at the first use of its pixels.
        """
        ...

    def name(self, i: int) -> str:
        """Return the name of image `i` in messages: its file, or its number in a file."""
        ...

    def key(self, i: int) -> str:
        """Return the name of image `i` within its source: a relative path with '/', or a number."""
        ...


def split_indices(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split image numbers in two by a stratified random split.

    Args:
        labels: the class of each image, shape (n,).
        fraction: fraction of each class for the second set, between 0 and 1. A class with two or more images has at
            least one in each set, and a single image stays in the first set.
        seed: random seed.

    Returns:
        The numbers of the first and of the second set, each sorted, int64.
    """
    if not 0 < fraction < 1:
        raise InputError(f"validation fraction: got {fraction}, expected a number between 0 and 1")
    rng = np.random.default_rng(seed)
    chosen = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        chosen.append(members[:count])
    second = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), second), second


class ArrayImages:
    """Images in memory: pixels uint8 (N, H, W, 3)."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, kind: str) -> None:
        self.pixels, self.labels, self.kind = pixels, np.asarray(labels, np.int64), kind

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[i]), int(self.labels[i])

    def name(self, i: int) -> str:
        return f"{self.kind} image {i}"

    def key(self, i: int) -> str:
        return str(i)


class FileImages:
    """Image files in the folder `root` and its subfolders."""

    def __init__(self, files: Sequence[str], labels: Sequence[int], root: str | Path = "") -> None:
        self.files, self.labels, self.root = files, np.asarray(labels, np.int64), root

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return read_image(self.files[i]), int(self.labels[i])

    def name(self, i: int) -> str:
        return self.files[i]

    def key(self, i: int) -> str:
        return Path(self.files[i]).relative_to(self.root).as_posix()


class RecordImages:
    """Images in a RecordIO file."""

    def __init__(self, path: str | Path) -> None:
        self.records = RecordFile(path)
        self.labels = self.records.labels()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        label, encoded = self.records[i]
        return decode(encoded, self.name(i)), label

    def name(self, i: int) -> str:
        return f"{self.records.path} record {i}"

    def key(self, i: int) -> str:
        return str(self.records.keys[i])


class SubsetImages:
    """Subset of a set of images, given by image numbers."""

    def __init__(self, images: Images, indices: np.ndarray) -> None:
        self.images, self.indices, self.labels = images, indices, images.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return self.images[int(self.indices[i])]

    def name(self, i: int) -> str:
        return self.images.name(int(self.indices[i]))

    def key(self, i: int) -> str:
        return self.images.key(int(self.indices[i]))
