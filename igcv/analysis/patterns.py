"""Connectivity patterns of blocks, and the conditions of the papers, checked by counting paths.

The pattern of a layer is a 0/1 matrix of the connections between output and input channels. A group convolution has a
block-diagonal pattern, and a permutation is a permutation matrix. The product of these matrices counts the paths from
each input to each output channel. In IGCV1 and IGCV2, each pair must have exactly one path (the complementary
condition, section 3.2 of the IGCV2 paper). In IGCV3, the condition is on super-channels (the loose condition, section
3.2 of the IGCV3 paper): the G1 groups of the input and the G2 groups of the output of a block. The E expanded channels
must connect each pair of super-channels with the same number of channels, E / (G1 * G2).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from torch import nn

from igcv.errors import InputError
from igcv.models import ConvNorm, InterleavedConv, InterleavedResidual, InvertedResidual, Network

Condition = Literal["complementary", "loose"]
CHUNK = 512  # input channels per step, to limit the memory for wide blocks
SHOWN = 8  # number of unconnected (input, output) pairs to report


@dataclass(frozen=True)
class ConvFactor:
    """Group convolution: each of `groups` equal groups of outputs reads one group of inputs."""

    in_channels: int
    out_channels: int
    groups: int
    kernel_size: int = 1

    def __post_init__(self) -> None:
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise InputError(
                f"groups: got {self.groups}, expected a common divisor of the {self.in_channels} input and "
                f"{self.out_channels} output channels"
            )


@dataclass(frozen=True)
class Permutation:
    """Interleaving of `groups` equal groups: channel g * C/G + i moves to i * G + g (see `channel_shuffle`)."""

    channels: int
    groups: int

    def __post_init__(self) -> None:
        if self.groups < 1 or self.channels % self.groups:
            raise InputError(
                f"groups: got {self.groups}, expected a divisor of the {self.channels} channels of a permutation"
            )

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def out_channels(self) -> int:
        return self.channels


Factor = ConvFactor | Permutation


@dataclass(frozen=True)
class BlockPattern:
    """Layers of a block, first to last, and the condition of its paper.

    Attributes:
        name: name of the module in its network, such as "stages.2.0.conv1".
        factors: the group convolutions and permutations, without the shortcut.
        condition: "complementary" (IGCV1, IGCV2) or "loose" (IGCV3, MobileNetV2).
    """

    name: str
    factors: tuple[Factor, ...]
    condition: Condition

    def rows(self) -> list[tuple[str | int, ...]]:
        """Return plain tuples: ("conv", in, out, groups, kernel) and ("permute", channels, groups)."""
        return [
            ("permute", f.channels, f.groups)
            if isinstance(f, Permutation)
            else ("conv", f.in_channels, f.out_channels, f.groups, f.kernel_size)
            for f in self.factors
        ]


class Connectivity(NamedTuple):
    """Numbers of paths from the input to the output channels of a block.

    Attributes:
        paths_min, paths_max: minimum and maximum over all (input, output) pairs.
        holds: whether the block meets its condition.
        cut_off: the first few unconnected (input, output) pairs, counted from 0.
    """

    paths_min: int
    paths_max: int
    holds: bool
    cut_off: tuple[tuple[int, int], ...]


class Balance(NamedTuple):
    """Parameters of the pointwise layers of an IGCV2 block, compared with the optimum (section 3.3 of the paper).

    Attributes:
        branch_widths: channels per branch K of each pointwise layer.
        parameters: number of parameters of these layers, C * (K1 + K2 + ...).
        optimum: C * n * C**(1/n) for the best integer n of layers, which all have the same (real) branch width.
        excess: parameters above the optimum, relative to the optimum; 0.1 means 10 % more.
    """

    branch_widths: tuple[int, ...]
    parameters: int
    optimum: float
    excess: float


def blocks(network: Network) -> list[BlockPattern]:
    """Return the patterns of all blocks of a network, in order; a residual IGCV1 block has two, conv1 and conv2."""
    return [
        block
        for i, stage in enumerate(network.stages)
        for name, module in stage.named_children()
        for block in describe(module, f"stages.{i}.{name}")
    ]


def describe(module: nn.Module, name: str = "block") -> list[BlockPattern]:
    """Return the patterns of a block module: one, or two for an InterleavedResidual."""
    match module:
        case InterleavedResidual():
            return [*describe(module.conv1, f"{name}.conv1"), *describe(module.conv2, f"{name}.conv2")]
        case InterleavedConv():
            factors: list[Factor] = []
            for conv, groups in zip(module.convs, module.groups, strict=True):
                factors += [_conv_factor(conv), *_permutation(conv, groups)]
            return [BlockPattern(name, tuple(factors), "complementary")]
        case InvertedResidual():
            expand = module.expand.conv if isinstance(module.expand, ConvNorm) else None
            factors = [_conv_factor(expand), *_permutation(expand, module.groups)] if expand else []
            factors += [_conv_factor(module.depthwise.conv), _conv_factor(module.project.conv)]
            return [BlockPattern(name, tuple(factors), "loose")]
    raise InputError(
        f"module: got {type(module).__name__}, expected an InterleavedConv, InterleavedResidual or InvertedResidual"
    )


def _conv_factor(conv: nn.Module) -> ConvFactor:
    assert isinstance(conv, nn.Conv2d)
    return ConvFactor(conv.in_channels, conv.out_channels, conv.groups, conv.kernel_size[0])


def _permutation(conv: nn.Module, groups: int) -> list[Factor]:
    """Return the permutation after `conv`, or an empty list if this permutation is the identity."""
    channels = _conv_factor(conv).out_channels
    return [] if groups in (1, channels) else [Permutation(channels, groups)]


def path_counts(factors: Sequence[Factor]) -> np.ndarray:
    """Return the number of paths from each input to each output channel, int64 (out, in).

    >>> path_counts([ConvFactor(4, 4, 2), Permutation(4, 2), ConvFactor(4, 4, 2)]).tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    _check_chain(factors)
    return _follow(factors, np.eye(factors[0].in_channels, dtype=np.int64))


def _check_chain(factors: Sequence[Factor]) -> None:
    """Raise InputError unless the channels of consecutive factors match."""
    if not factors:
        raise InputError("factors: got an empty list, expected at least one factor")
    for before, after in itertools.pairwise(factors):
        if before.out_channels != after.in_channels:
            raise InputError(
                f"{after}: got {after.in_channels} input channels, expected {before.out_channels}, the outputs of "
                f"{before}"
            )


def _follow(factors: Sequence[Factor], counts: np.ndarray) -> np.ndarray:
    """Multiply `counts` by the patterns of `factors`, (channels, inputs) -> (out, inputs)."""
    for factor in factors:
        groups, inputs = factor.groups, counts.shape[1]
        grouped = counts.reshape(groups, -1, inputs)  # (C, inputs) -> (G, C/G, inputs)
        if isinstance(factor, Permutation):
            counts = grouped.swapaxes(0, 1).reshape(-1, inputs)
        elif not factor.groups == factor.in_channels == factor.out_channels:  # channel-wise: the identity
            counts = np.repeat(grouped.sum(1), factor.out_channels // groups, axis=0)
    return counts


def connectivity(block: BlockPattern) -> Connectivity:
    """Count the paths through a block and check its condition."""
    _check_chain(block.factors)
    return _connectivity(block.factors, block.condition)


@lru_cache(maxsize=256)
def _connectivity(factors: tuple[Factor, ...], condition: Condition) -> Connectivity:
    """Return `connectivity`, cached, because most blocks of a stage are equal."""
    channels = factors[0].in_channels
    fewest: list[int] = []
    most: list[int] = []
    cut_off: list[tuple[int, int]] = []
    for start in range(0, channels, CHUNK):
        inputs = min(CHUNK, channels - start)
        counts = _follow(factors, np.eye(channels, inputs, -start, dtype=np.int64))
        fewest.append(int(counts.min()))
        most.append(int(counts.max()))
        if fewest[-1] == 0 and len(cut_off) < SHOWN:
            pairs = np.argwhere(counts.T == 0)[: SHOWN - len(cut_off)]
            cut_off += [(start + int(i), int(o)) for i, o in pairs]
    paths_min, paths_max = min(fewest), max(most)
    # Equal counts for all pairs are the loose condition: an input has E / G1 * out / G2 paths, so E / (G1 * G2) paths
    # to each of the `out` channels.
    holds = 0 < paths_min == paths_max and (condition == "loose" or paths_max == 1)
    return Connectivity(paths_min, paths_max, holds, tuple(cut_off))


def balance(block: BlockPattern) -> Balance | None:
    """Return the balance of an IGCV2 block (a channel-wise convolution, then pointwise ones), or None for other blocks.

    In a block that widens, C outside the root is the output width, and the product of the branch widths is the input
    width.
    """
    first, *rest = (f for f in block.factors if isinstance(f, ConvFactor))
    channel_wise = first.groups == first.in_channels == first.out_channels
    pointwise = bool(rest) and all(f.kernel_size == 1 for f in rest)
    if block.condition != "complementary" or not (channel_wise and pointwise):
        return None
    branch_widths = tuple(f.in_channels // f.groups for f in rest)
    parameters = sum(f.out_channels * width for f, width in zip(rest, branch_widths, strict=True))
    width = first.in_channels
    optimum = rest[-1].out_channels * min(n * width ** (1 / n) for n in range(1, width.bit_length() + 1))
    return Balance(branch_widths, parameters, optimum, parameters / optimum - 1)
