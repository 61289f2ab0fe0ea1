"""Batches for training and evaluation: which images, in which order, and what happens to unreadable ones."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch

from igcv.data.decoding import BadImageError
from igcv.data.finish import Finish
from igcv.data.images import Images
from igcv.data.items import (
    Balanced,
    Batch,
    ImageOrder,
    InOrder,
    Items,
    LoaderSettings,
    Loading,
    Shuffled,
    collate,
)
from igcv.data.preprocessing import Transform
from igcv.data.resident import Resident
from igcv.data.stream_loader import StreamBatches
from igcv.data.streams import StreamImages
from igcv.errors import InputError

END_S = 0.2  # within which the system tells of the end of a process


class Loader:
    """Batches of one process; made by `make_loader`.

    Attributes:
        bad: the images that were skipped so far, name -> reason.
        max_bad: how many of them are accepted.
    """

    def __init__(
        self,
        batches: "Loading | Resident | StreamBatches",
        order: "ImageOrder | StreamBatches",
        finish: Finish,
        name: Callable[[int], str],
        skip_bad: bool,
        max_bad: int,
    ) -> None:
        self.bad: dict[str, str] = {}
        self.max_bad = max_bad
        self._batches, self._order, self._finish = batches, order, finish
        self._name, self._skip_bad = name, skip_bad

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        return len(self._batches)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, from 0, that decides order and augmentation of the next pass.

        The pass begins with batch `start`, from 0 to the length; streams read over those before it.
        """
        self._order.epoch, self._order.start = epoch, start

    def close(self) -> None:
        """End the loader processes; nothing can be loaded any more."""
        del self._batches

    def names(self, batch: int) -> list[str]:
        """What the images of a batch of the epoch are called; of a stream nobody knows before."""
        return [self._name(int(number)) for number in self._order.batch(batch)]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images (N, 3, S, S) float32, normalized, and labels (N,) int64, both on the device.

        Raises:
            BadImageError: an image cannot be read, and none may be skipped.
            InputError: more than `max_bad` images cannot be read, or a loader process was killed.
        """
        order = self._order
        finish, batch = self._finish.for_epoch(order.count, order.seed, order.epoch, order.rank), order.start
        for images, labels, numbers, bad in _from_workers(self._batches):
            self._note(bad)
            if len(labels):
                yield finish(batch, images, numbers), labels.to(self._finish.device, non_blocking=True)
                batch += 1
        if len(self.bad) == self._order.count:
            raise InputError(f"none of the {self._order.count} images can be read; the last: {self._last()}")

    def _note(self, bad: dict[str, str]) -> None:
        self.bad |= bad
        if bad and not self._skip_bad:
            raise BadImageError(next(iter(bad.values())))
        if len(self.bad) > self.max_bad:
            raise InputError(
                f"{len(self.bad)} images cannot be read, expected at most {self.max_bad}; the last: {self._last()} "
                "(max_bad_images sets the limit)"
            )

    def _last(self) -> str:
        return list(self.bad.values())[-1]


def _from_workers(batches: Iterable[Batch]) -> Iterator[Batch]:
    """`batches`; it is told plainly when a loader process is gone."""
    try:
        yield from batches
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two while it hands over a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        # Torch raises the error once more, wherever the program is, when the system tells it of the end.
        with suppress(RuntimeError):
            time.sleep(END_S)
        raise InputError(
            f"a loader process ended ({error}), killed perhaps for want of memory; go on with fewer workers"
        ) from error


def make_loader(
    images: Images | StreamImages, transform: Transform, finish: Finish, settings: LoaderSettings
) -> Loader:
    """Batches of a set of images for one of several processes.

    Training: shuffled in each epoch, every process gets as many images, a last batch that is not full is
    left out or not (see `LoaderSettings.drop_last`), and an unreadable image is replaced by the next readable one.
    Balanced: as many images, of each class equally often. With `epoch_images` an epoch has so many of them.
    Evaluation: in order, every image once over all processes; an unreadable image is left out.
    Streams: timm shuffles training images and shares the shards; evaluation reads everything in every process.

    Everything random about an image follows from (seed, epoch, image), never from the number of worker processes
    or from what else draws random numbers; of an erased rectangle the place, while the noise in it follows from
    (seed, epoch, rank, batch). Of balanced training, whose images repeat, it follows from (seed, epoch, place in
    the epoch).

    Args:
        images: what to load.
        transform: PIL RGB image -> uint8 tensor (3, S, S); without chance for resident images.
        finish: what makes the network's input of it, in batches on the device.
        settings: everything else.

    Raises:
        InputError: a number is out of its range, or there are fewer images than training processes.
    """
    fewest = settings.world_size if settings.train else 1
    if len(images) < fewest:
        raise InputError(f"the number of images is {len(images)}, expected {fewest} or more")
    max_bad = accepted_bad(len(images)) if settings.max_bad is None else settings.max_bad
    if isinstance(images, StreamImages):
        assert settings.resident is None and not settings.balanced and not settings.epoch_images
        stream = StreamBatches(images, transform, settings, finish.device)
        return Loader(stream, stream, finish, images.name, settings.skip_bad, max_bad)
    order = _order(images, settings)
    attempts = min(len(images), max_bad + 1) if settings.train and settings.skip_bad else 1
    batches = (
        _decoding(Items(images, transform, settings.seed, attempts), order, finish, settings)
        if settings.resident is None
        else Resident(
            Items(images, transform, settings.seed, 1), order, finish, settings.resident, settings.workers
        )
    )
    return Loader(batches, order, finish, images.name, settings.skip_bad, max_bad)


def accepted_bad(images: int) -> int:
    """Return how many unreadable images a set of so many may have: a tenth, up to 100, or 1 % where that is more.

    >>> [accepted_bad(n) for n in (5, 30, 1_000, 10_000, 50_000)]
    [1, 3, 100, 100, 500]
    """
    return max(1, min(images // 10, 100), images // 100)


def _order(images: Images, settings: LoaderSettings) -> ImageOrder:
    """The images of a process in an epoch."""
    places = settings.batch_size, settings.seed, settings.rank, settings.world_size
    if not settings.train:
        return InOrder(len(images), *places)
    length: dict[str, Any] = {"drop_last": settings.drop_last, "epoch_images": settings.epoch_images}
    if settings.balanced:
        return Balanced(images.labels, *places, **length)
    return Shuffled(len(images), *places, **length)


def _decoding(items: Items, order: ImageOrder, finish: Finish, settings: LoaderSettings) -> Loading:
    """Batches whose images are decoded in every epoch."""
    return Loading(
        items,
        settings.batch_size,
        sampler=order,
        num_workers=settings.workers,  # torch gives each of them one thread
        collate_fn=collate,
        pin_memory=finish.device.type == "cuda",
        persistent_workers=settings.workers > 0,
        generator=torch.Generator(),  # else every pass draws from the global one
    )
