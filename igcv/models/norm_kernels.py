"""Triton kernels of a batch norm with batch statistics, with or without ReLU6, for channels-last activations on a GPU.

PyTorch computes batch norm and activation one after the other. These kernels compute both in the same passes over the
activations.

The activations are a matrix of P pixels by C channels. Few channels make rows that are narrower than a GPU's memory
transactions, so k pixels form one row: column j of the (P / k, k C) matrix belongs to channel j modulo C.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

ROWS, COLUMNS = 64, 64  # tile of a program
PROGRAMS = 528  # programs that sum over tiles: four for each of the 132 multiprocessors of an H100
WIDEST = 64  # most pixels in a row
ALIGNED = 16  # columns; a GPU reads rows of a multiple of them in whole transactions
TILE = {"height": ROWS, "width": COLUMNS}


class Shape(NamedTuple):
    """Activations as a matrix."""

    rows: int
    columns: int
    channels: int

    @property
    def tiles(self) -> tuple[int, int]:
        """The number of tiles down and across."""
        return triton.cdiv(self.rows, ROWS), triton.cdiv(self.columns, COLUMNS)

    @property
    def slabs(self) -> tuple[int, int]:
        """The number of programs that sum over tiles, down and across."""
        down, across = self.tiles
        return min(down, max(1, PROGRAMS // across)), across


def shape_of(x: Tensor) -> Shape:
    """Return the matrix of activations (N, C, H, W) in channels-last memory."""
    channels = x.shape[1]
    pixels, k = x.numel() // channels, 1
    while k < WIDEST and (channels * k < COLUMNS or channels * k % ALIGNED) and pixels % (2 * k) == 0:
        k *= 2
    return Shape(pixels // k, channels * k, channels)


@triton.jit
def _tile(down, rows, columns, height: tl.constexpr, width: tl.constexpr):
    """Return the positions of the elements of a tile in memory, and whether they are inside the matrix."""
    row, column = down * height + tl.arange(0, height), tl.program_id(1) * width + tl.arange(0, width)
    place = row.to(tl.int64)[:, None] * columns + column[None, :]
    return place, (row < rows)[:, None] & (column < columns)[None, :]


@triton.jit
def _store_sums(partial, first, second, columns, width: tl.constexpr):
    """Store two sums over the rows of a slab, in the two halves of `partial`."""
    column = tl.program_id(1) * width + tl.arange(0, width)
    place, half = tl.program_id(0) * columns + column, tl.num_programs(0) * columns
    tl.store(partial + place, tl.sum(first, 0), column < columns)
    tl.store(partial + half + place, tl.sum(second, 0), column < columns)


@triton.jit
def _known(channel, mean, inverse, gamma, beta):
    """Return mean, factor and summand of each channel: the result of a batch norm is (x - mean) * factor + summand."""
    middle, factor = tl.load(mean + channel), tl.load(inverse + channel) * tl.load(gamma + channel)
    return middle[None, :], factor[None, :], tl.load(beta + channel)[None, :]


@triton.jit
def _statistics(x, partial, rows, columns, channels, height: tl.constexpr, width: tl.constexpr):
    """Sum the distances to the first pixel, and their squares."""
    first = tl.load(x + (tl.program_id(1) * width + tl.arange(0, width)) % channels).to(tl.float32)
    distances, squares = tl.zeros((height, width), tl.float32), tl.zeros((height, width), tl.float32)
    for down in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        place, inside = _tile(down, rows, columns, height, width)
        value = tl.load(x + place, inside, 0.0).to(tl.float32)
        distance = tl.where(inside, value - first[None, :], 0.0)
        distances += distance
        squares += distance * distance
    _store_sums(partial, distances, squares, columns, width)


@triton.jit
def _finish(
    x, partial, mean, var, inverse, running_mean, running_var, batches, summands, channels, pixels, eps, momentum,
    track: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute mean, variance and 1 / deviation of each channel; with `track`, update the running statistics."""
    channel = tl.program_id(0) * width + tl.arange(0, width)
    known = channel < channels
    distances, squares = tl.zeros((height, width), tl.float32), tl.zeros((height, width), tl.float32)
    for start in range(0, summands, height):
        row = start + tl.arange(0, height)
        inside = (row < summands)[:, None] & known[None, :]
        place = row[:, None] * channels + channel[None, :]
        distances += tl.load(partial + place, inside, 0.0)
        squares += tl.load(partial + summands * channels + place, inside, 0.0)
    distance = tl.sum(distances, 0) / pixels
    center = tl.load(x + channel, known, 0.0).to(tl.float32) + distance
    spread = tl.maximum(tl.sum(squares, 0) / pixels - distance * distance, 0.0)
    tl.store(mean + channel, center, known)
    tl.store(var + channel, spread, known)
    tl.store(inverse + channel, tl.rsqrt(spread + eps), known)
    if track:
        old_mean, old_var = (
            tl.load(running_mean + channel, known, 0.0),
            tl.load(running_var + channel, known, 0.0),
        )
        unbiased = spread * (pixels / tl.maximum(pixels - 1.0, 1.0))
        tl.store(running_mean + channel, old_mean + momentum * (center - old_mean), known)
        tl.store(running_var + channel, old_var + momentum * (unbiased - old_var), known)
        if tl.program_id(0) == 0:
            tl.store(batches, tl.load(batches) + 1)


@triton.jit
def _apply(
    x, out, mean, inverse, gamma, beta, rows, columns, channels,
    relu6: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Normalize, scale and shift; with `relu6`, clamp to 0..6."""
    channel = (tl.program_id(1) * width + tl.arange(0, width)) % channels
    middle, factor, summand = _known(channel, mean, inverse, gamma, beta)
    place, inside = _tile(tl.program_id(0), rows, columns, height, width)
    value = (tl.load(x + place, inside, 0.0).to(tl.float32) - middle) * factor + summand
    if relu6:
        value = tl.minimum(tl.maximum(value, 0.0), 6.0)
    tl.store(out + place, value.to(out.dtype.element_ty), inside)


@triton.jit
def _read(gradient, x, place, inside, middle, factor, summand, relu6: tl.constexpr):
    """Return the gradient before the activation, zero where ReLU6 clamps the rounded result, and the centered input."""
    centered = tl.load(x + place, inside, 0.0).to(tl.float32) - middle
    slope = tl.load(gradient + place, inside, 0.0).to(tl.float32)
    if relu6:
        result = (centered * factor + summand).to(x.dtype.element_ty)
        slope = tl.where((result > 0.0) & (result < 6.0), slope, 0.0)
    return slope, centered


@triton.jit
def _sums(
    gradient, x, mean, inverse, gamma, beta, partial, rows, columns, channels,
    relu6: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sum the gradients, and their products with the normalized input."""
    channel = (tl.program_id(1) * width + tl.arange(0, width)) % channels
    middle, factor, summand = _known(channel, mean, inverse, gamma, beta)
    spread = tl.load(inverse + channel)[None, :]
    total, products = tl.zeros((height, width), tl.float32), tl.zeros((height, width), tl.float32)
    for down in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        place, inside = _tile(down, rows, columns, height, width)
        slope, centered = _read(gradient, x, place, inside, middle, factor, summand, relu6)
        total += slope
        products += slope * centered * spread
    _store_sums(partial, total, products, columns, width)


@triton.jit
def _input_gradient(
    gradient, x, out, mean, inverse, gamma, beta, sums, rows, columns, channels, share,
    relu6: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Compute factor * (gradient - its mean - normalized input * mean of their product); `share` is 1 / pixels."""
    channel = (tl.program_id(1) * width + tl.arange(0, width)) % channels
    middle, factor, summand = _known(channel, mean, inverse, gamma, beta)
    of_total = tl.load(sums + channel) * share
    of_product = tl.load(sums + channels + channel) * share * tl.load(inverse + channel)
    place, inside = _tile(tl.program_id(0), rows, columns, height, width)
    slope, centered = _read(gradient, x, place, inside, middle, factor, summand, relu6)
    slope = slope - of_total[None, :] - centered * of_product[None, :]
    tl.store(out + place, (slope * factor).to(out.dtype.element_ty), inside)


def normalize(
    x: Tensor, gamma: Tensor, beta: Tensor, eps: float, relu6: bool, tracked: nn.BatchNorm2d | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute a batch norm with batch statistics.

    Args:
        x: activations (N, C, H, W) in channels-last memory.
        gamma, beta: scale and shift (C,), float32.
        eps: epsilon of the batch norm.
        relu6: whether ReLU6 follows.
        tracked: layer whose running statistics to update.

    Returns:
        The result, and mean, variance and 1 / deviation (C,) of the input, float32.
    """
    shape, pixels = shape_of(x), x.numel() // x.shape[1]
    partial, out = _partial_sums(x, shape), torch.empty_like(x)
    mean, var, inverse = x.new_empty((3, shape.channels), dtype=torch.float32)
    running = (mean, mean, mean) if tracked is None else tuple(tracked.buffers())
    with torch.cuda.device_of(x):  # Triton uses the current device
        _statistics[shape.slabs](x, partial, *shape, **TILE)
        _finish[(triton.cdiv(shape.channels, COLUMNS),)](
            *(x, partial, mean, var, inverse, *running),
            *(
                partial.shape[1],
                shape.channels,
                float(pixels),
                eps,
                0.0 if tracked is None else tracked.momentum,
            ),
            track=tracked is not None,
            **TILE,
        )
        _apply[shape.tiles](x, out, mean, inverse, gamma, beta, *shape, relu6=relu6, **TILE)
    return out, mean, var, inverse


def gradients(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, inverse: Tensor, relu6: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the arguments x, gamma and beta of `normalize`.

    Args:
        grad: gradient of the result, in channels-last memory.
        x, gamma, beta, relu6: as for `normalize`.
        mean, inverse: results of `normalize`.
    """
    shape, pixels = shape_of(x), x.numel() // x.shape[1]
    partial, out = _partial_sums(x, shape), torch.empty_like(x)
    known = mean, inverse, gamma, beta
    with torch.cuda.device_of(x):
        _sums[shape.slabs](grad, x, *known, partial, *shape, relu6=relu6, **TILE)
        sums = partial.sum(1)
        _input_gradient[shape.tiles](grad, x, out, *known, sums, *shape, 1 / pixels, relu6=relu6, **TILE)
    return out, sums[1], sums[0]


def _partial_sums(x: Tensor, shape: Shape) -> Tensor:
    """Return memory for two sums of each slab and each of the k pixels in a row, (2, slabs * k, C)."""
    k = shape.columns // shape.channels
    return x.new_empty((2, shape.slabs[0] * k, shape.channels), dtype=torch.float32)
