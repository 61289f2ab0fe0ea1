"""Resident images: decoded once to uint8, cached in device memory, then shifted and flipped there in batches.

The order of images and the handling of unreadable images equal those of images decoded in every epoch.
The augmentation of an image depends on (seed, epoch, image), or on its position in the epoch in balanced training.
It is drawn for all images of the set at once and thus independent of the number of processes.
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
    """The images that the first pass stores on the device."""

    pixels: Tensor  # (K, S, S, 3) uint8
    labels: Tensor  # (K,) int64
    slots: Tensor  # (N,) int64 on the CPU: row of each image in `pixels`, or of its replacement; -1: none


class Resident:
    """Batches of uint8 images on the device.

    In training, every process holds all images, because its next epoch may contain any of them. In evaluation, a
    process holds only its share.
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
            # In training, an image's slot is its number. A replacement shifts the key by the same distance.
            keys = ((keys + held - numbers) % order.count)[held >= 0]
            place = held[held >= 0].to(device, non_blocking=True)
            images = cut(pixels, place, moves[keys].to(device, non_blocking=True))
            yield Batch(images, labels[place], keys, {})

    def _decode(self) -> Iterator[Batch]:
        """Fill the store; yield batches that list only unreadable images."""
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
    """Draw the shift and flip of each of `count` images of `side` pixels, int64 (count, 3).

    The columns are the downward and rightward offset of the read position in pixels, and 1 for a horizontal flip, else
    0.
    """
    far = moves.reach(side)
    shifts = torch.randint(-far, far + 1, (count, 2), generator=rng)
    mirrored = torch.randint(1 + moves.mirror, (count, 1), generator=rng)
    return torch.cat([shifts, mirrored], dim=1)


def cut(pixels: Tensor, place: Tensor, moves: Tensor) -> Tensor:
    """Shift and then flip the selected images; pixels from outside an image are black.

    Args:
        pixels: all images, (K, S, S, 3).
        place: indices of the selected images, (n,).
        moves: shifts and flips (see `draw_moves`), (n, 3).

    Returns:
        The images, (n, 3, S, S), channels last in memory.
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
    """Replace each -1 in `slots` by the slot of the next readable image, cyclically."""
    good = (slots >= 0).nonzero().squeeze(1)
    if not len(good):
        return slots
    return slots[good[torch.searchsorted(good, torch.arange(len(slots))) % len(good)]]
