"""IGCV2: interleaved structured sparse convolutions (Xie et al., CVPR 2018, arXiv:1804.06202).

A channel-wise 3x3 convolution is followed by pointwise group convolutions with permutations between them.
Number the channels in a mixed radix, one digit per pointwise layer: each layer mixes one digit, the
permutation brings the next digit to the front. Every output then sees every input over exactly one path (the
complementary condition) if and only if the digits multiply to the width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from torch import nn

from igcv.errors import InputError
from igcv.models.blocks import RELU_EPS, ConvNorm, GroupConv, InterleavedConv
from igcv.models.inverted import check_multiplier
from igcv.models.network import EARLY, Network, Options, checked_strides, plan_strides

BRANCH_WIDTH = 8  # K, channels per branch of a pointwise layer (section 4 of the paper)
CIFAR_SIZE, IMAGENET_SIZE = 32, 224  # pixels

CIFAR_STRIDES = (1, 1, 2, 2)  # stem, then the stages
MOBILENET = ((64,), (128,) * 2, (256,) * 2, (512,) * 6, (1024,) * 2)  # MobileNet's blocks behind a stem of 32
MOBILENET_STRIDES = (2, 1, 2, 2, 2, 2)


@lru_cache
def branch_widths(channels: int, branch_width: int = BRANCH_WIDTH) -> tuple[int, ...]:
    """Channels per branch of each pointwise layer, ascending: the factors of `channels` nearest to K.

    The complementary condition demands factors that multiply to the width. The balance condition (equal
    factors cost least) picks, among all such products, the one whose factors deviate least from K in the
    sum of |log(factor / K)|; of equals, the shortest.

    >>> branch_widths(64), branch_widths(416)
    ((8, 8), (4, 8, 13))
    """

    def deviation(factors: tuple[int, ...]) -> tuple[float, int]:
        return round(sum(abs(math.log(f / branch_width)) for f in factors), 9), len(factors)

    return min(_products(channels, 2), key=deviation)


def _products(number: int, smallest: int) -> Iterator[tuple[int, ...]]:
    """All ascending factorisations of `number` into factors of at least `smallest`."""
    for factor in range(smallest, math.isqrt(number) + 1):
        if number % factor == 0:
            for rest in _products(number // factor, factor):
                yield (factor, *rest)
    yield (number,)


def igcv2_factors(in_channels: int, out_channels: int, stride: int, branch_width: int) -> list[GroupConv]:
    """The factors of one block: channel-wise 3x3, then pointwise layers, of which the first changes the width."""
    if out_channels % in_channels:
        raise InputError(
            f"an IGCV2 block keeps or multiplies its width; {in_channels} to {out_channels} does neither"
        )
    growth = out_channels // in_channels
    factors = [GroupConv(in_channels, 3, in_channels, stride)]
    for i, branch in enumerate(branch_widths(in_channels, branch_width)):
        factors.append(GroupConv(out_channels, 1, out_channels // (branch * growth if i == 0 else branch)))
    return factors


def igcv2_cifar(
    width: int = 416, depth: int = 20, branch_width: int = BRANCH_WIDTH, options: Options = Options()
) -> Network:
    """The CIFAR networks: three stages of C, 2C and 4C channels.

    Width 416 at depth 20 has 811,210 parameters for 10 classes where the paper lists about 0.65 M: three
    layers of K = 8 in every stage would give that, but reach 8 * 8 * 8 = 512 channels only, fewer than the
    832 and 1664 of the later stages, so the complementary condition would not hold there; and 416 = 4 * 8 * 13
    has no factorisation into eights.

    Args:
        width: C.
        depth: layers, a block being one: 3n + 2.
        branch_width: K.
        options: see `Options`.
    """
    repeats, rest = divmod(depth - 2, 3)
    if repeats < 1 or rest:
        raise InputError(f"depth {depth} makes no IGCV2: give 3n + 2, for example {3 * max(1, repeats) + 2}")
    stages = [(width * 2**i,) * repeats for i in range(3)]
    options = replace(options, input_size=options.input_size or CIFAR_SIZE)
    return _network(width, stages, CIFAR_STRIDES, branch_width, options)


def igcv2_mobilenet(
    multiplier: float = 1.0, branch_width: int = BRANCH_WIDTH, options: Options = Options()
) -> Network:
    """MobileNet's layout with an IGCV2 product in the place of every pointwise convolution.

    Args:
        multiplier: width multiplier; the stem's 32 channels are rounded to a multiple of 8, all others follow.
        branch_width: K.
        options: see `Options`.
    """
    check_multiplier(multiplier)
    input_size = options.input_size or IMAGENET_SIZE
    stem = max(1, round(4 * multiplier)) * 8
    stages = [tuple(channels * stem // 32 for channels in stage) for stage in MOBILENET]
    strides = plan_strides(MOBILENET_STRIDES, input_size, EARLY)
    return _network(stem, stages, strides, branch_width, replace(options, input_size=input_size))


def _network(
    stem: int,
    stages: Sequence[Sequence[int]],
    planned: Sequence[int],
    branch_width: int,
    options: Options,
) -> Network:
    """Build the network: `stages` holds the output channels of every block, `planned` the strides."""
    if stem < 2 or branch_width < 2:
        raise InputError(f"width {stem} with branches of {branch_width} makes no IGCV2: both start at 2")
    strides = checked_strides(options.strides, planned)
    in_channels = stem
    built: list[list[nn.Module]] = []
    for widths, stride in zip(stages, strides[1:], strict=True):
        blocks: list[nn.Module] = []
        for i, out_channels in enumerate(widths):
            factors = igcv2_factors(in_channels, out_channels, stride if i == 0 else 1, branch_width)
            blocks.append(InterleavedConv(in_channels, factors))
            in_channels = out_channels
        built.append(blocks)
    return Network(
        ConvNorm(options.in_chans, stem, 3, stride=strides[0], act=nn.ReLU, eps=RELU_EPS),
        built,
        nn.Identity(),
        widths=[widths[-1] for widths in stages],
        strides=strides,
        num_features=in_channels,
        options=options,
    )
