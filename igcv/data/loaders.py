"""Loaders: batches of images for training and evaluation."""

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

END_S = 0.2  # seconds within which the system reports the end of a process


class Loader:
    """Batches of one process; created by `make_loader`.

    Attributes:
        bad: the images skipped so far, name -> reason.
        max_bad: maximum number of skipped images.
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
        """Number of batches per epoch in this process."""
        return len(self._batches)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch, from 0, that determines order and augmentation of the next pass.

        The pass begins with batch `start`, from 0 to the length. Streams read and discard the batches before `start`.
        """
        self._order.epoch, self._order.start = epoch, start

    def close(self) -> None:
        """End the data-loading workers; the loader cannot be used afterwards."""
        del self._batches

    def names(self, batch: int) -> list[str]:
        """Return the names of the images in a batch of the epoch; empty for streams."""
        return [self._name(int(number)) for number in self._order.batch(batch)]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images (N, 3, S, S) float32, normalized, and labels (N,) int64, both on the device.

        Raises:
            BadImageError: an image cannot be read, and skipping is off.
            InputError: more than `max_bad` images or no image can be read, or a data-loading worker was killed.
        """
        order = self._order
        finish, batch = self._finish.for_epoch(order.count, order.seed, order.epoch, order.rank), order.start
        for images, labels, numbers, bad in _from_workers(self._batches):
            self._note(bad)
            if len(labels):
                yield finish(batch, images, numbers), labels.to(self._finish.device, non_blocking=True)
                batch += 1
        if len(self.bad) == self._order.count:
            raise InputError(
                f"none of the {self._order.count} images can be read. Last error: {self._last()}"
            )

    def _note(self, bad: dict[str, str]) -> None:
        self.bad |= bad
        if bad and not self._skip_bad:
            raise BadImageError(next(iter(bad.values())))
        if len(self.bad) > self.max_bad:
            raise InputError(
                f"{len(self.bad)} images cannot be read, expected at most {self.max_bad} (max_bad_images). "
                f"Last error: {self._last()}"
            )

    def _last(self) -> str:
        return list(self.bad.values())[-1]


def _from_workers(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield from `batches`; raise InputError if a data-loading worker was killed."""
    try:
        yield from batches
    except (
        RuntimeError,
        ConnectionError,
        EOFError,
    ) as error:  # the latter two if a worker ends while sending a batch
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        # torch raises the error again, anywhere in the program, when the system reports the end of the worker.
        with suppress(RuntimeError):
            time.sleep(END_S)
        raise InputError(
            f"a data-loading worker ended ({error}), possibly out of memory. Resume with fewer workers"
        ) from error


def make_loader(
    images: Images | StreamImages, transform: Transform, finish: Finish, settings: LoaderSettings
) -> Loader:
    """Create the loader of one of several processes.

    Training: images are shuffled in each epoch, and every process gets the same number. The next readable image
    replaces an unreadable one. See `LoaderSettings.drop_last` for an incomplete last batch.
    Balanced training: an epoch has as many images, with an equal number from each class.
    Evaluation: images come in order, each once over all processes. Unreadable images are skipped.
    Streams: in training, timm shuffles and shards. In evaluation, every process reads the whole stream.

    The augmentation of an image depends only on (seed, epoch, image), not on the number of workers or on other random
    draws. In balanced training, where images repeat, the position in the epoch takes the place of the image. The noise
    in an erased rectangle depends on (seed, epoch, rank, batch).

    Args:
        images: the images to load.
        transform: PIL RGB image -> uint8 tensor (3, S, S); not random for resident images.
        finish: last steps from uint8 batches to the network's input, on the device.
        settings: all other settings.

    Raises:
        InputError: a number is out of range, or there are fewer images than training processes.
    """
    fewest = settings.world_size if settings.train else 1
    if len(images) < fewest:
        raise InputError(f"number of images: got {len(images)}, expected {fewest} or more")
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
    """Return the default limit of unreadable images: 10 %, up to 100, or 1 % where that is more; at least 1.

    >>> [accepted_bad(n) for n in (5, 30, 1_000, 10_000, 50_000)]
    [1, 3, 100, 100, 500]
    """
    return max(1, min(images // 10, 100), images // 100)


def _order(images: Images, settings: LoaderSettings) -> ImageOrder:
    """Return the order of a process's images."""
    places = settings.batch_size, settings.seed, settings.rank, settings.world_size
    if not settings.train:
        return InOrder(len(images), *places)
    length: dict[str, Any] = {"drop_last": settings.drop_last, "epoch_images": settings.epoch_images}
    if settings.balanced:
        return Balanced(images.labels, *places, **length)
    return Shuffled(len(images), *places, **length)


def _decoding(items: Items, order: ImageOrder, finish: Finish, settings: LoaderSettings) -> Loading:
    """Return a loader that decodes the images in every epoch."""
    return Loading(
        items,
        settings.batch_size,
        sampler=order,
        num_workers=settings.workers,  # torch gives each worker one thread
        collate_fn=collate,
        pin_memory=finish.device.type == "cuda",
        persistent_workers=settings.workers > 0,
        generator=torch.Generator(),  # else every pass draws from the global generator
    )
