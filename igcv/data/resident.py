"""Small data sets live on the device: decoded once to uint8, then moved and mirrored there in whole batches.

The order of the images, and what unreadable ones do, are those of images that are decoded in every epoch.
What chance does to an image follows from (seed, epoch, image), or in balanced training from its place in the epoch:
it is drawn for all images of the set at once, so that any number of processes trains on the same ones.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from igcv.data.augment import Moves
from igcv.data.chance import MOVES, generator
from igcv.data.finish import Finish
from igcv.data.items import Batch, ImageOrder, InOrder, Items, Loading, Shuffled, collate

_DECODED = 256  # images in a batch while decoding


class _Store(NamedTuple):
    """What the first pass leaves on the device."""

    pixels: Tensor  # (K, S, S, 3) uint8
    labels: Tensor  # (K,) int64
    slots: Tensor  # (N,) int64 on the CPU: where the image of each number is, or the one in its place; -1: nowhere


class Resident:
    """Batches of uint8 images on the device.

    Every process of a training holds all images, as any of them may be in its next epoch; for evaluation it holds
    its share.
    """

    def __init__(self, items: Items, order: ImageOrder, finish: Finish, moves: Moves, workers: int) -> None:
        self._items, self._order, self._workers = items, order, workers
        self._device, self._side = finish.device, finish.preprocessing.input_size
        self._moves = moves if isinstance(order, Shuffled) else Moves(0, False)
        self._store: _Store | None = None

    def __len__(self) -> int:
        return -(-len(self._order) // self._order.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self._store is None:
            yield from self._decode()
        assert self._store is not None
        pixels, labels, slots = self._store
        order, device = self._order, self._device
        moves = draw_moves(len(slots), self._moves, self._side, generator(MOVES, order.seed, order.epoch))
        left = (torch.from_numpy(np.array(part, np.int64)) for part in (order.left(), order.left_keys()))
        for numbers, keys in zip(*(part.split(order.batch_size) for part in left), strict=True):
            held = slots[numbers]
            # In training an image's slot is its number, and what took the place of one is as far from its key.
            keys = ((keys + held - numbers) % order.count)[held >= 0]
            place = held[held >= 0].to(device, non_blocking=True)
            images = cut(pixels, place, moves[keys].to(device, non_blocking=True))
            yield Batch(images, labels[place], keys, {})

    def _decode(self) -> Iterator[Batch]:
        """Fill the store; the batches on the way hold nothing but what could not be read."""
        order, training = self._order, isinstance(self._order, Shuffled)
        rank, world_size = (0, 1) if training else (order.rank, order.world_size)
        wanted = InOrder(order.count, _DECODED, order.seed, rank, world_size)
        loader = Loading(
            self._items,
            _DECODED,
            sampler=wanted,
            num_workers=self._workers,
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),
        )
        pixels = torch.empty(len(wanted), self._side, self._side, 3, dtype=torch.uint8, device=self._device)
        labels = torch.empty(len(wanted), dtype=torch.int64, device=self._device)
        slots = torch.full((order.count,), -1)
        for batch in loader:
            if len(batch.labels):
                slots[batch.numbers] = batch.numbers // world_size
                place = slots[batch.numbers].to(self._device)
                pixels[place] = batch.images.to(self._device, non_blocking=True).permute(0, 2, 3, 1)
                labels[place] = batch.labels.to(self._device, non_blocking=True)
            if batch.bad:
                yield collate([])._replace(bad=batch.bad)
        self._store = _Store(pixels, labels, _with_next(slots) if training else slots)


def draw_moves(count: int, moves: Moves, side: int, rng: torch.Generator) -> Tensor:
    """What happens to each of `count` images of `side` pixels, int64 (count, 3).

    The columns are how many pixels further down and further right it is read, and 1 to mirror it, else 0.
    """
    far = moves.reach(side)
    shifts = torch.randint(-far, far + 1, (count, 2), generator=rng)
    mirrored = torch.randint(1 + moves.mirror, (count, 1), generator=rng)
    return torch.cat([shifts, mirrored], dim=1)


def cut(pixels: Tensor, place: Tensor, moves: Tensor) -> Tensor:
    """Some images, moved and then mirrored; what comes in from outside is black.

    Args:
        pixels: (K, S, S, 3).
        place: which of them, (n,).
        moves: see `draw_moves`, (n, 3).

    Returns:
        (n, 3, S, S), channels last in memory.
    """
    side = pixels.shape[1]
    down, right, mirrored = moves[:, :, None].unbind(1)  # (n, 1) each
    line = torch.arange(side, device=pixels.device)
    rows = line + down  # (n, S)
    columns = torch.where(mirrored.bool(), side - 1 - line, line) + right
    inside = _within(rows, side)[:, :, None] & _within(columns, side)[:, None, :]
    rows, columns = rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None, :]
    images = pixels[place[:, None, None], rows, columns]  # (n, S, S, 3)
    return (images * inside[..., None]).permute(0, 3, 1, 2)


def _within(line: Tensor, side: int) -> Tensor:
    return (line >= 0) & (line < side)


def _with_next(slots: Tensor) -> Tensor:
    """`slots` with the next one of an image that could be read in place of each -1, after the last the first."""
    good = (slots >= 0).nonzero().squeeze(1)
    if not len(good):
        return slots
    return slots[good[torch.searchsorted(good, torch.arange(len(slots))) % len(good)]]
