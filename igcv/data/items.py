"""Building blocks of loaders: samplers, items, and their collation to batches.

Everything random about an item depends only on (seed, epoch, image), not on the number of workers or on other
random draws.
"""

import os
import signal
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from igcv.data.augment import Moves
from igcv.data.chance import seeded
from igcv.data.images import Images
from igcv.data.preprocessing import Transform
from igcv.errors import InputError

# Terminals and schedulers send these signals to data-loading workers, too.
_FOR_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOGETHER_S = 2.0  # seconds; a scheduler and torchrun may both send SIGTERM, one shortly after the other
_GRACE_S = 600  # seconds for the training process to finish its step and save


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """Settings of a loader.

    Attributes:
        batch_size: images per batch in this process.
        train: True for training, False for evaluation.
        seed: random seed of order and augmentation, 0 or more.
        workers: number of data-loading workers; 0 loads in this process.
        rank: rank of this process.
        world_size: number of processes.
        skip_bad: skip unreadable images instead of stopping at the first.
        max_bad: maximum number of unreadable images; None: see `igcv.data.loaders.accepted_bad`.
        drop_last: drop an incomplete last training batch, unless it is the only one. If False, it is only dropped if
            it has a single image, for which batch norm may have no statistics.
        resident: decode each image once and cache all images in device memory; in training, shift and flip them there
            as given (see `BATCHED`). Not for streams.
        balanced: in training, sample each class equally often. Not for streams.
        epoch_images: images per training epoch over all processes; 0: all images. Not for streams.

    Raises:
        InputError: a number is out of range.
    """

    batch_size: int
    train: bool
    seed: int = 0
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    skip_bad: bool
    max_bad: int | None = None
    drop_last: bool = True
    resident: Moves | None = None
    balanced: bool = False
    epoch_images: int = 0

    def __post_init__(self) -> None:
        rules = (
            ("batch size", self.batch_size, 1),
            ("seed", self.seed, 0),
            ("number of workers", self.workers, 0),
        )
        for name, value, low in rules:
            if value < low:
                raise InputError(f"{name}: got {value}, expected {low} or more")
        assert 0 <= self.rank < self.world_size


class Place(NamedTuple):
    """Index of an item, from the sampler; it holds the epoch because workers live longer than an epoch.

    Attributes:
        epoch: number of the epoch, from 0.
        image: number of the image.
        key: seed of the image's augmentation: the image's number, or its position in the epoch if images repeat.
    """

    epoch: int
    image: int
    key: int


class Item(NamedTuple):
    """One image, or the reason why none could be read."""

    image: torch.Tensor | None  # (3, S, S) uint8, or None if no image could be read
    label: int
    number: int  # number of the image, or its key (see `Place`)
    bad: dict[str, str]  # unreadable images tried before: name -> reason


class Batch(NamedTuple):
    """A batch of items; N may be less than the batch size, even 0.

    Attributes:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        numbers: numbers of the images, or their keys (see `Place`), int64 (N,) on the CPU.
        bad: unreadable images, name -> reason.
    """

    images: torch.Tensor
    labels: torch.Tensor
    numbers: torch.Tensor
    bad: dict[str, str]


Numbers = range | np.ndarray  # image numbers, from 0


class ImageOrder(Sampler[Place]):
    """Sampler of one process's images in an epoch."""

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0  # epoch and first batch of the next pass

    def __iter__(self) -> Iterator[Place]:
        left = zip(self.left(), self.left_keys(), strict=True)
        return (Place(self.epoch, int(image), int(key)) for image, key in left)

    @abstractmethod
    def __len__(self) -> int:
        """Number of images in a whole epoch of this process."""

    @abstractmethod
    def indices(self) -> Numbers:
        """Return the numbers of the images, in order."""

    def keys(self) -> Numbers:
        """Return the keys of the images (see `Place`), in the same order."""
        return self.indices()

    def left_keys(self) -> Numbers:
        """Return the keys of the images from batch `start` on."""
        return self.keys()[self.start * self.batch_size :]

    def left(self) -> Numbers:
        """Return the numbers of the images from batch `start` on."""
        return self.indices()[self.start * self.batch_size :]

    def batch(self, number: int) -> Numbers:
        """Return the numbers of the images in one batch of the epoch."""
        return self.indices()[number * self.batch_size :][: self.batch_size]


class InOrder(ImageOrder):
    def __len__(self) -> int:
        return len(self.indices())

    def indices(self) -> Numbers:
        return range(self.rank, self.count, self.world_size)


class Shuffled(ImageOrder):
    """Sampler with a new random order in every epoch, of which the first `epoch_images` are used.

    With `drop_last`, all batches are full.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        *,
        drop_last: bool = True,
        epoch_images: int = 0,
    ) -> None:
        super().__init__(count, batch_size, seed, rank, world_size)
        self.drop_last = drop_last
        self.epoch_images = min(epoch_images or count, count)

    def __len__(self) -> int:
        share = self.epoch_images // self.world_size
        rest = share % self.batch_size
        left_out = rest if self.drop_last or rest == 1 else 0
        return share - left_out or share

    def indices(self) -> Numbers:
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return self._share(shuffled)

    def _share(self, all_images: np.ndarray) -> np.ndarray:
        """Return this process's share of an epoch's images."""
        return all_images[self.rank :: self.world_size][: len(self)]


class Balanced(Shuffled):
    """Sampler that draws each class equally often; the number of images stays the same, and small classes repeat.

    Within a class, all images are drawn equally often, except for a remainder that differs in each epoch. If the
    classes do not divide the images evenly, the classes with one image more also differ in each epoch.

    Args:
        labels: the class of each image, (count,).
        places, settings: arguments of `Shuffled` after `count`.
    """

    def __init__(self, labels: np.ndarray, *places: int, **settings: Any) -> None:
        super().__init__(len(labels), *places, **settings)
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def indices(self) -> Numbers:
        rng = np.random.default_rng((self.seed, self.epoch))
        each, more = divmod(self.count, len(self._members))
        wanted = each + (rng.permutation(len(self._members)) < more)
        drawn = [_repeated(members, n, rng) for members, n in zip(self._members, wanted, strict=True)]
        return self._share(rng.permutation(np.concatenate(drawn)))

    def keys(self) -> Numbers:
        """Return the position of each image in the epoch of all processes, so repeats are augmented differently."""
        return self._share(np.arange(self.count))


def _repeated(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of some images, each equally often or once more."""
    whole, rest = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])


class Items(Dataset):
    """Data set of transformed images; items list unreadable images, because workers wrap raised exceptions."""

    def __init__(self, images: Images, transform: Transform, seed: int, attempts: int) -> None:
        self.images, self.transform, self.seed, self.attempts = images, transform, seed, attempts

    def __getitem__(self, place: Place) -> Item:
        bad: dict[str, str] = {}
        for step in range(self.attempts):
            index, key = ((number + step) % len(self.images) for number in (place.image, place.key))
            try:
                image, label = self.images[index]
                with seeded(self.seed, place.epoch, key):
                    return Item(self.transform(image), label, key, bad)
            except InputError as error:
                bad[self.images.name(index)] = str(error)
        return Item(None, -1, -1, bad)


class Loading(DataLoader):
    """torch's DataLoader with workers that leave the handling of Ctrl-C and SIGTERM to the training process.

    These signals may reach all processes, and the training process needs its workers to finish the step.
    """

    def __init__(self, dataset: Dataset, batch_size: int | None, **settings: Any) -> None:
        super().__init__(dataset, batch_size, worker_init_fn=_outlive_signals, **settings)

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_ALL)  # new processes inherit it
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_signals(worker: int) -> None:
    """Ignore Ctrl-C; end this process `_GRACE_S` after SIGTERM, or immediately at a later second SIGTERM."""
    first = 0.0

    def postpone(number: int, frame: object) -> None:
        nonlocal first
        if first and time.monotonic() - first > _TOGETHER_S:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        first = first or time.monotonic()
        signal.alarm(_GRACE_S)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, postpone)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_ALL)


def collate(items: list[Item]) -> Batch:
    """Collate the readable images to a batch, with the reasons why the others cannot be read."""
    good = [(item.image, item.label, item.number) for item in items if item.image is not None]
    images = torch.stack([image for image, *_ in good]) if good else torch.empty(0, dtype=torch.uint8)
    labels = torch.tensor([label for _, label, _ in good], dtype=torch.int64)
    numbers = torch.tensor([number for *_, number in good], dtype=torch.int64)
    bad = {name: reason for item in items for name, reason in item.bad.items()}
    return Batch(images, labels, numbers, bad)
