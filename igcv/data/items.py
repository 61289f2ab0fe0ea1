"""Images as loaders see them: in which order they come, what becomes of one, and how a batch is made of some.

Everything random about an item follows from (seed, epoch, image), never from the number of worker processes
or from what else draws random numbers.
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

# Terminals and schedulers send these to loader processes, too.
_FOR_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TOGETHER_S = 2.0  # a scheduler and torchrun both send SIGTERM, one shortly after the other
_GRACE_S = 600  # for what the training process has to finish


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How a process gets its batches.

    Attributes:
        batch_size: images in a batch of this process.
        train: training rather than evaluation.
        seed: decides, with the epoch, order and augmentation; 0 or more.
        workers: loading processes; 0 loads in this one.
        rank: number of this process.
        world_size: number of processes.
        skip_bad: skip unreadable images rather than stop at the first.
        max_bad: how many of them to accept; None: see `igcv.data.loaders.accepted_bad`.
        drop_last: leave out a last training batch that is not full, unless it is the only one; else it is left out
            where it has one image alone, for which batch norm may have no statistics.
        resident: decode and transform each image once only, keep all on the device, and in training move them so
            there (see `BATCHED`); not for streams.
        balanced: in training, give each class equally often; not for streams.
        epoch_images: images of a training epoch, over all processes; 0 for all of them; not for streams.

    Raises:
        InputError: a number is out of its range.
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
                raise InputError(f"the {name} is {value}, expected {low} or more")
        assert 0 <= self.rank < self.world_size


class Place(NamedTuple):
    """What the sampler asks for; the epoch goes along because workers outlive it.

    Attributes:
        key: what chance decides about the image follows from it: its number, or where images repeat its place.
    """

    epoch: int
    image: int
    key: int


class Item(NamedTuple):
    """One image, or why there is none."""

    image: torch.Tensor | None  # (3, S, S) uint8, or None if none could be read
    label: int
    number: int  # of the image, or its key (see `Place`)
    bad: dict[str, str]  # images tried before: name -> reason


class Batch(NamedTuple):
    """Some items; N may be less than asked, even 0.

    Attributes:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        numbers: of the images, or their keys (see `Place`); int64 (N,) on the CPU.
        bad: unreadable images, name -> reason.
    """

    images: torch.Tensor
    labels: torch.Tensor
    numbers: torch.Tensor
    bad: dict[str, str]


Numbers = range | np.ndarray  # of images: whole numbers from 0


class ImageOrder(Sampler[Place]):
    """The images of one process in an epoch."""

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0  # the next pass: of which epoch, and from which batch on

    def __iter__(self) -> Iterator[Place]:
        left = zip(self.left(), self.left_keys(), strict=True)
        return (Place(self.epoch, int(image), int(key)) for image, key in left)

    @abstractmethod
    def __len__(self) -> int:
        """Images of a whole epoch."""

    @abstractmethod
    def indices(self) -> Numbers:
        """The numbers of the images, in their order."""

    def keys(self) -> Numbers:
        """The keys of the images (see `Place`), in the same order."""
        return self.indices()

    def left_keys(self) -> Numbers:
        """The keys of those that are left of the pass."""
        return self.keys()[self.start * self.batch_size :]

    def left(self) -> Numbers:
        """The numbers of those that are left of the pass."""
        return self.indices()[self.start * self.batch_size :]

    def batch(self, number: int) -> Numbers:
        """The numbers of the images in one batch of the epoch."""
        return self.indices()[number * self.batch_size :][: self.batch_size]


class InOrder(ImageOrder):
    def __len__(self) -> int:
        return len(self.indices())

    def indices(self) -> Numbers:
        return range(self.rank, self.count, self.world_size)


class Shuffled(ImageOrder):
    """In another order in every epoch, of which `epoch_images` come; with `drop_last` in full batches alone."""

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
        """Those of an epoch that this process gets."""
        return all_images[self.rank :: self.world_size][: len(self)]


class Balanced(Shuffled):
    """As many images as there are, each class equally often: images of small classes repeat.

    A class gives all its images equally often, but for a rest that differs in each epoch. Which classes give one
    image more, where the numbers do not come out even, differs in each epoch, too.

    Args:
        labels: the class of each image, (count,).
        places, settings: as of `Shuffled`, after its count.
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
        """The place of each image in the epoch of all processes: an image that repeats is augmented again."""
        return self._share(np.arange(self.count))


def _repeated(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of some images, each equally often or once more."""
    whole, rest = divmod(count, len(members))
    return np.concatenate([np.tile(members, whole), rng.permutation(members)[:rest]])


class Items(Dataset):
    """Transformed images by place; unreadable ones are told in the item, as workers wrap what is raised."""

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
    """torch's loader, whose processes leave it to the training process to answer Ctrl-C and SIGTERM.

    These may go to all processes, and the training process needs its loaders to finish the step.
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
    """Pass over Ctrl-C; SIGTERM ends this process after `_GRACE_S`, and one that comes later at once."""
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
    """The images that could be read, together, and why the others could not."""
    good = [(item.image, item.label, item.number) for item in items if item.image is not None]
    images = torch.stack([image for image, *_ in good]) if good else torch.empty(0, dtype=torch.uint8)
    labels = torch.tensor([label for _, label, _ in good], dtype=torch.int64)
    numbers = torch.tensor([number for *_, number in good], dtype=torch.int64)
    bad = {name: reason for item in items for name, reason in item.bad.items()}
    return Batch(images, labels, numbers, bad)
