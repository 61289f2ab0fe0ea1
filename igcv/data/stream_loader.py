"""Batches of a stream: timm shuffles and shards the samples, and their order determines their numbers."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice

import torch
from torch.utils.data import IterableDataset, get_worker_info

from igcv.data.chance import generator, seed_from, seeded
from igcv.data.items import Batch, Item, LoaderSettings, Loading, collate
from igcv.data.preprocessing import Transform
from igcv.data.streams import Sample, StreamImages
from igcv.errors import InputError


class StreamBatches:
    """Batches of a stream, opened in each epoch with new data-loading workers."""

    def __init__(
        self,
        images: StreamImages,
        transform: Transform,
        settings: LoaderSettings,
        device: torch.device,
    ) -> None:
        shards, world_size = len(images.shards), settings.world_size
        if settings.train and 0 < shards < world_size:
            raise InputError(
                f"{images.dataset}: got {shards} training shards for {world_size} processes, expected at least one per "
                "process. Write more and smaller shards, or start fewer processes"
            )
        self.images, self.transform, self.device = images, transform, device
        self.batch_size, self.train, self.seed = settings.batch_size, settings.train, settings.seed
        self.rank, self.world_size = settings.rank, world_size
        useful = shards // world_size if settings.train else shards
        self.workers = min(settings.workers, useful) if shards else settings.workers
        self.epoch = self.start = 0
        self.count = len(images)

    def __len__(self) -> int:
        """Number of batches per epoch; evaluation with several workers may yield a few more incomplete batches."""
        if self.train:
            return max(self.count // self.world_size // self.batch_size, 1)
        share = len(range(self.rank, self.count, self.world_size))
        return -(-share // self.batch_size)

    def batch(self, number: int) -> range:
        """Return an empty range, because the image numbers of a batch are unknown in advance."""
        return range(0)

    def __iter__(self) -> Iterator[Batch]:
        key = (self.seed, self.epoch)
        loader = Loading(
            _Items(self, seed_from(*key)),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=generator(*key, self.rank),
        )
        count = seen = 0
        for batch, error in loader:
            if error is not None:  # a worker would wrap a raised exception
                raise error
            # Images of a stream are numbered by their order, interleaved over the processes.
            place = torch.arange(seen, seen + len(batch.labels)) * self.world_size + self.rank
            if count >= self.start or not len(batch.labels):
                yield batch._replace(numbers=place % self.count)
            count, seen = count + (len(batch.labels) > 0), seen + len(batch.labels)
            if self.train and count == len(self):
                return
        if self.train:
            raise InputError(
                f"{self.images.dataset}: the training stream ended after {count} of {len(self)} batches. "
                "Check the shards and the number of samples in the info file"
            )


class _Items(IterableDataset):
    """Batches built in a data-loading worker; the last one carries an error, if any."""

    def __init__(self, stream: StreamBatches, seed: int) -> None:
        self.stream, self.seed = stream, seed

    def __iter__(self) -> Iterator[tuple[Batch, InputError | None]]:
        try:
            for batch in self._batches():
                yield batch, None
        except InputError as error:
            yield collate([]), error

    def _batches(self) -> Iterator[Batch]:
        s, worker = self.stream, get_worker_info()
        items = s.images.samples(
            train=s.train, seed=self.seed, batch_size=s.batch_size, rank=s.rank, world_size=s.world_size
        )
        place = (s.seed, s.epoch, s.rank, worker.id if worker else 0)
        with closing(items), closing(self._items(items, place)) as made:
            while batch := list(islice(made, s.batch_size)):
                yield collate(batch)

    def _items(self, samples: Iterator[Sample], place: tuple[int, ...]) -> Generator[Item]:
        for image, label, number, bad in samples:
            if image is None:
                yield Item(None, -1, -1, bad)
                continue
            with seeded(*place, number):
                item = Item(self.stream.transform(image), label, number, bad)
            yield item
