"""IGCV2: interleaved structured sparse convolutions (Xie et al., CVPR 2018, arXiv:1804.06202).

A block is a channel-wise (depthwise) 3x3 convolution, followed by pointwise group convolutions with permutations
between them. In a mixed radix, a channel number has one digit per pointwise layer. Each layer mixes one digit, and the
permutation moves the next digit to the front. The complementary condition demands exactly one path from every input to
every output. It holds if and only if the product of the radices is the width.
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
MOBILENET = (
    (64,),
    (128,) * 2,
    (256,) * 2,
    (512,) * 6,
    (1024,) * 2,
)  # widths of MobileNet's blocks, after a stem of 32
MOBILENET_STRIDES = (2, 1, 2, 2, 2, 2)


@lru_cache
def branch_widths(channels: int, branch_width: int = BRANCH_WIDTH) -> tuple[int, ...]:
    """Return the channels per branch of each pointwise layer, ascending: factors of `channels` close to K.

    By the complementary condition, the product of the factors is the width. By the balance condition, equal factors
    have the lowest cost. The function minimizes the sum of |log(factor / K)|, then the number of factors.

    >>> branch_widths(64), branch_widths(416)
    ((8, 8), (4, 8, 13))
    """

    def deviation(factors: tuple[int, ...]) -> tuple[float, int]:
        return round(sum(abs(math.log(f / branch_width)) for f in factors), 9), len(factors)

    return min(_products(channels, 2), key=deviation)


def _products(number: int, smallest: int) -> Iterator[tuple[int, ...]]:
    """Yield all ascending factorizations of `number` into factors of at least `smallest`."""
    for factor in range(smallest, math.isqrt(number) + 1):
        if number % factor == 0:
            for rest in _products(number // factor, factor):
                yield (factor, *rest)
    yield (number,)


def igcv2_factors(in_channels: int, out_channels: int, stride: int, branch_width: int) -> list[GroupConv]:
    """Return the factors of a block: channel-wise 3x3, then pointwise layers. The first pointwise layer widens."""
    if out_channels % in_channels:
        raise InputError(
            f"output channels of an IGCV2 block: got {out_channels}, expected a multiple of its {in_channels} inputs"
        )
    growth = out_channels // in_channels
    factors = [GroupConv(in_channels, 3, in_channels, stride)]
    for i, branch in enumerate(branch_widths(in_channels, branch_width)):
        factors.append(GroupConv(out_channels, 1, out_channels // (branch * growth if i == 0 else branch)))
    return factors


def igcv2_cifar(
    width: int = 416, depth: int = 20, branch_width: int = BRANCH_WIDTH, options: Options = Options()
) -> Network:
    """Build a network for CIFAR, with stages of C, 2C and 4C channels.

    With width 416, depth 20 and 10 classes, the network has 811,210 parameters; the paper lists about 0.65 M. Three
    layers of K = 8 in every stage would give 0.65 M, but they connect only 8 * 8 * 8 = 512 channels. The later stages
    have 832 and 1664 channels, so the complementary condition would fail. Also, 416 = 4 * 8 * 13 is not a power of 8.

    Args:
        width: number of channels C of the first stage.
        depth: number of layers, with a block as one layer: 3n + 2.
        branch_width: target for the channels per branch, K.
        options: see `Options`.
    """
    repeats, rest = divmod(depth - 2, 3)
    if repeats < 1 or rest:
        raise InputError(
            f"depth: got {depth}, expected 3n + 2 for an IGCV2, for example {3 * max(1, repeats) + 2}"
        )
    stages = [(width * 2**i,) * repeats for i in range(3)]
    options = replace(options, input_size=options.input_size or CIFAR_SIZE)
    return _network(width, stages, CIFAR_STRIDES, branch_width, options)


def igcv2_mobilenet(
    multiplier: float = 1.0, branch_width: int = BRANCH_WIDTH, options: Options = Options()
) -> Network:
    """Build a MobileNet with the pointwise factors of an IGCV2 block instead of each pointwise convolution.

    Args:
        multiplier: width multiplier. The 32 channels of the stem are rounded to a multiple of 8; the other widths keep
            their ratio to the stem.
        branch_width: target for the channels per branch, K.
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
        raise InputError(f"width, branch_width: got {stem} and {branch_width}, expected integers >= 2")
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
