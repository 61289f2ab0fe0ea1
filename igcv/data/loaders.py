"""Batches for training and evaluation: which images, in which order, and what happens to unreadable ones.

Everything random about an item follows from (seed, epoch, image), never from the number of worker processes
or from what else draws random numbers.
"""

import random
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from igcv.data.augment import Transform
from igcv.data.images import BadImageError, Images
from igcv.data.streams import Sample, StreamImages
from igcv.errors import InputError


class _Place(NamedTuple):
    """What the sampler asks for; the epoch goes along because workers outlive it."""

    epoch: int
    image: int


class _Item(NamedTuple):
    image: torch.Tensor | None  # (3, S, S) float32, or None if none could be read
    label: int
    bad: dict[str, str]  # images tried before: name -> reason


_Batch = tuple[torch.Tensor, torch.Tensor, dict[str, str]]  # what _collate makes


class Loader:
    """Batches of one process; made by `make_loader`.

    Attributes:
        bad: the images that were passed over so far, name -> reason.
        max_bad: how many of them are accepted.
    """

    def __init__(
        self, batches: "DataLoader | _Stream", order: "_Order | _Stream", skip_bad: bool, max_bad: int
    ) -> None:
        self.bad: dict[str, str] = {}
        self.max_bad = max_bad
        self._batches, self._order, self._skip_bad = batches, order, skip_bad

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that decides order and augmentation of the next pass."""
        self._order.epoch = epoch

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images (N, 3, S, S) float32 and labels (N,) int64.

        Raises:
            BadImageError: an image cannot be read, and none may be skipped.
            InputError: more than `max_bad` images cannot be read.
        """
        for images, labels, bad in self._batches:
            self._note(bad)
            if len(labels):
                yield images, labels
        if len(self.bad) == self._order.count:
            raise InputError(f"none of the {self._order.count} images can be read; the last: {self._last()}")

    def _note(self, bad: dict[str, str]) -> None:
        self.bad |= bad
        if bad and not self._skip_bad:
            raise BadImageError(next(iter(bad.values())))
        if len(self.bad) > self.max_bad:
            raise InputError(
                f"{len(self.bad)} images cannot be read, expected at most {self.max_bad}; "
                f"the last: {self._last()}"
            )

    def _last(self) -> str:
        return list(self.bad.values())[-1]


def make_loader(
    images: Images | StreamImages,
    transform: Transform,
    batch_size: int,
    *,
    train: bool,
    seed: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    skip_bad: bool,
    max_bad: int | None = None,
) -> Loader:
    """Batches of a set of images for one of `world_size` processes.

    Training: shuffled anew each epoch, every process gets as many images, a last batch that is not full is
    dropped unless it is the only one, and an unreadable image is replaced by the next readable one.
    Evaluation: in order, every image once over all processes; an unreadable image is left out.
    Streams: timm shuffles training images and shares the shards; evaluation reads everything in every process.

    Args:
        images: what to load.
        transform: PIL RGB image -> float32 tensor (3, S, S).
        batch_size: images in a batch of this process.
        train: training rather than evaluation.
        seed: decides, with the epoch, order and augmentation; 0 or more.
        workers: loading processes; 0 loads in this one.
        rank: number of this process.
        world_size: number of processes.
        skip_bad: pass over unreadable images rather than stop at the first.
        max_bad: how many of them to accept; None for 100 or 1 % of the set, whichever is more.

    Raises:
        InputError: a number is out of its range, or there are fewer images than training processes.
    """
    fewest = world_size if train else 1
    rules = (
        ("batch size", batch_size, 1),
        ("seed", seed, 0),
        ("number of workers", workers, 0),
        ("number of images", len(images), fewest),
    )
    for name, value, low in rules:
        if value < low:
            raise InputError(f"the {name} is {value}, expected {low} or more")
    assert 0 <= rank < world_size
    max_bad = max(100, len(images) // 100) if max_bad is None else max_bad
    if isinstance(images, StreamImages):
        stream = _Stream(images, transform, batch_size, train, seed, workers, rank, world_size)
        return Loader(stream, stream, skip_bad, max_bad)
    order = (_Shuffled if train else _InOrder)(len(images), batch_size, seed, rank, world_size)
    attempts = min(len(images), max_bad + 1) if train and skip_bad else 1
    batches = DataLoader(
        _Items(images, transform, seed, attempts),
        batch_size,
        sampler=order,
        num_workers=workers,  # torch gives each of them one thread
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # else every pass draws from the global one
    )
    return Loader(batches, order, skip_bad, max_bad)


class _Order(Sampler[_Place]):
    """The images of one process in an epoch."""

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def __iter__(self) -> Iterator[_Place]:
        return (_Place(self.epoch, int(i)) for i in self.indices())

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def indices(self) -> Iterable[int]:
        """The numbers of the images, in their order."""


class _InOrder(_Order):
    def __len__(self) -> int:
        return len(self.indices())

    def indices(self) -> range:
        return range(self.rank, self.count, self.world_size)


class _Shuffled(_Order):
    def __len__(self) -> int:
        share = self.count // self.world_size
        return share // self.batch_size * self.batch_size or share

    def indices(self) -> np.ndarray:
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return shuffled[self.rank :: self.world_size][: len(self)]


class _Items(Dataset):
    """Transformed images by place; unreadable ones are told in the item, as workers wrap what is raised."""

    def __init__(self, images: Images, transform: Transform, seed: int, attempts: int) -> None:
        self.images, self.transform, self.seed, self.attempts = images, transform, seed, attempts

    def __getitem__(self, place: _Place) -> _Item:
        bad: dict[str, str] = {}
        for step in range(self.attempts):
            index = (place.image + step) % len(self.images)
            try:
                image, label = self.images[index]
            except InputError as error:
                bad[self.images.name(index)] = str(error)
                continue
            with _seeded(self.seed, place.epoch, index):
                return _Item(self.transform(image), label, bad)
        return _Item(None, -1, bad)


class _Stream:
    """Batches of a stream, anew in each epoch with loader processes of its own."""

    def __init__(
        self,
        images: StreamImages,
        transform: Transform,
        batch_size: int,
        train: bool,
        seed: int,
        workers: int,
        rank: int,
        world_size: int,
    ) -> None:
        shards = len(images.shards)
        if train and 0 < shards < world_size:
            raise InputError(
                f"{images.dataset}: {shards} training shards cannot be shared by {world_size} processes; "
                "write more and smaller shards, or start fewer processes"
            )
        self.images, self.transform, self.batch_size, self.train = images, transform, batch_size, train
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.workers = min(workers, shards // world_size if train else shards) if shards else workers
        self.epoch, self.count = 0, len(images)

    def __len__(self) -> int:
        """Batches in an epoch; evaluation with several workers may give a few more that are not full."""
        if self.train:
            return max(self.count // self.world_size // self.batch_size, 1)
        share = len(range(self.rank, self.count, self.world_size))
        return -(-share // self.batch_size)

    def __iter__(self) -> Iterator[_Batch]:
        key = (self.seed, self.epoch)
        loader = DataLoader(
            _StreamItems(self, _number(*key)),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(_number(*key, self.rank)),
        )
        count = 0
        for images, labels, bad, error in loader:
            if error is not None:  # workers would wrap what is raised
                raise error
            yield images, labels, bad
            count += len(labels) > 0
            if self.train and count == len(self):
                return
        if self.train:
            raise InputError(
                f"{self.images.dataset}: the training stream ended after {count} of {len(self)} batches; "
                "check the shards and the number of samples in the info file"
            )


class _StreamItems(IterableDataset):
    """Batches made in a loader process; what goes wrong is told in the last one."""

    def __init__(self, stream: _Stream, seed: int) -> None:
        self.stream, self.seed = stream, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, str], InputError | None]]:
        try:
            for batch in self._batches():
                yield *batch, None
        except InputError as error:
            yield *_collate([]), error

    def _batches(self) -> Iterator[_Batch]:
        s, worker = self.stream, get_worker_info()
        items = s.images.samples(
            train=s.train, seed=self.seed, batch_size=s.batch_size, rank=s.rank, world_size=s.world_size
        )
        place = (s.seed, s.epoch, s.rank, worker.id if worker else 0)
        with closing(items), closing(self._items(items, place)) as made:
            while batch := list(islice(made, s.batch_size)):
                yield _collate(batch)

    def _items(self, samples: Iterator[Sample], place: tuple[int, ...]) -> Generator[_Item]:
        for image, label, number, bad in samples:
            if image is None:
                yield _Item(None, -1, bad)
                continue
            with _seeded(*place, number):
                item = _Item(self.stream.transform(image), label, bad)
            yield item


def _number(*key: int) -> int:
    """A seed below 2 ** 31 that follows from `key`."""
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Random numbers of python, numpy and torch (CPU) that follow from `key`; their states are put back."""
    before = random.getstate(), get_bit_generator(), torch.get_rng_state()
    sequence = np.random.SeedSequence(key)
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    set_bit_generator(np.random.PCG64(sequence))  # ten times faster than saving numpy's state
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU too
    try:
        yield
    finally:
        random.setstate(before[0])
        set_bit_generator(before[1])
        torch.set_rng_state(before[2])


def _collate(items: list[_Item]) -> tuple[torch.Tensor, torch.Tensor, dict[str, str]]:
    """Images (N, 3, S, S), labels (N,) and the unreadable images; N may be less than asked, even 0."""
    good = [(item.image, item.label) for item in items if item.image is not None]
    images = torch.stack([image for image, _ in good]) if good else torch.empty(0)
    bad = {name: reason for item in items for name, reason in item.bad.items()}
    return images, torch.tensor([label for _, label in good], dtype=torch.int64), bad
