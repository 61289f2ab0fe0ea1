"""From rows (expansion, channels, blocks, stride) to a network of inverted residuals: IGCV3 and MobileNetV2."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from igcv.errors import InputError
from igcv.models.blocks import ConvNorm, InvertedResidual
from igcv.models.network import BOTH_ENDS, Network, Options, checked_strides, plan_strides

INPUT_SIZE = 224  # pixels; both families are published for ImageNet


class Stage(NamedTuple):
    """One row of the papers' tables: n blocks of c channels, expansion t, stride s in the first (at 224 pixels)."""

    t: int
    c: int
    n: int
    s: int


STEM, HEAD = 32, 1280  # channels at width multiplier 1.0


def check_multiplier(multiplier: float) -> None:
    """Raise InputError unless `multiplier` is a usable width multiplier."""
    if not 0 < multiplier <= 16:
        raise InputError(
            f"multiplier {multiplier} is not a width multiplier; give a number above 0 and up to 16"
        )


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
        width: from channels at multiplier 1.0 to channels of this network.
        head_width: channels of the last convolution.
        groups: (G1, G2) of the two pointwise convolutions of every block.
        expand, first_expand: how the blocks expand (see InvertedResidual), the first (t = 1) one apart.
        first_shortcut: whether a stage's first block has a shortcut where its shapes match, as later blocks do.
        rescale: where a stage follows another, its first block expands t * rescale(C) channels instead of t * C.
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
