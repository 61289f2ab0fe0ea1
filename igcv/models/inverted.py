"""Networks of inverted residuals (IGCV3, MobileNetV2), built from rows (expansion, channels, blocks, stride)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from igcv.errors import InputError
from igcv.models.blocks import ConvNorm, InvertedResidual
from igcv.models.network import BOTH_ENDS, Network, Options, checked_strides, plan_strides

INPUT_SIZE = 224  # pixels; the ImageNet size of both papers


class Stage(NamedTuple):
    """Row of the papers' tables: n blocks of c channels with expansion t; the first has stride s (at 224 pixels)."""

    t: int
    c: int
    n: int
    s: int


STEM, HEAD = 32, 1280  # channels at width multiplier 1.0


def check_multiplier(multiplier: float) -> None:
    """Raise InputError unless `multiplier` is a valid width multiplier."""
    if not 0 < multiplier <= 16:
        raise InputError(f"multiplier: got {multiplier}, expected a width multiplier above 0 and at most 16")


def inverted_residual_network(
    rows: Sequence[Stage],
    width: Callable[[int], int],
    head_width: int,
    *,
    groups: tuple[int, int],
    expand: str,
    first_expand: str,
    first_shortcut: bool = False,
    rescale: Callable[[int], int] | None = None,
    options: Options,
) -> Network:
    """Build the network of a table.

    Args:
        rows: the stages in order.
        width: function from the channels at multiplier 1.0 to the channels of this network.
        head_width: channels of the last convolution.
        groups: (G1, G2), groups of the two pointwise convolutions of every block.
        expand, first_expand: expansion of the blocks (see `InvertedResidual`), and of the first block (t = 1).
        first_shortcut: whether the first block of a stage has a shortcut if its input and output shapes match.
        rescale: if given, the first block of each stage after the first expands to t * rescale(C) channels, not t * C.
        options: see `Options`.
    """
    input_size = options.input_size or INPUT_SIZE
    planned = plan_strides((2, *(row.s for row in rows)), input_size, BOTH_ENDS)
    strides = checked_strides(options.strides, planned)
    widths = [width(row.c) for row in rows]
    stem_width = in_channels = width(STEM)
    stages: list[list[nn.Module]] = []
    for i, (row, out_channels, stride) in enumerate(zip(rows, widths, strides[1:], strict=True)):
        blocks: list[nn.Module] = []
        for block in range(row.n):
            base = rescale(in_channels) if rescale and i > 0 and block == 0 else in_channels
            same_shape = row.s == stride == 1 and in_channels == out_channels
            blocks.append(
                InvertedResidual(
                    in_channels,
                    base * row.t,
                    out_channels,
                    stride if block == 0 else 1,
                    groups=groups,
                    shortcut=block > 0 or (first_shortcut and same_shape),
                    expand=first_expand if i == 0 else expand,
                )
            )
            in_channels = out_channels
        stages.append(blocks)
    return Network(
        ConvNorm(options.in_chans, stem_width, 3, stride=strides[0], act=nn.ReLU6),
        stages,
        ConvNorm(in_channels, head_width, act=nn.ReLU6),
        widths=widths,
        strides=strides,
        num_features=head_width,
        options=replace(options, input_size=input_size),
    )
