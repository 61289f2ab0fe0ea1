"""A block as data, and the papers' conditions on it, checked by counting paths.

Of every layer only the 0/1 pattern matters: which output channel reads which input channel. A group convolution
is a block-diagonal pattern, a permutation a permutation matrix, and their product counts the paths from every
input to every output channel. IGCV1 and IGCV2 demand one path for every pair (the complementary condition, IGCV2
paper, section 3.2). IGCV3 demands it of super-channels (the loose condition, IGCV3 paper, section 3.2): those are
the G1 groups of the block's input and the G2 groups of its output, and the E expanded channels are to connect
each pair of them alike, over E / (G1 * G2) channels each.
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
CHUNK = 512  # input channels followed at a time, to bound the memory that wide blocks take
SHOWN = 8  # (input, output) pairs without a path that are reported


@dataclass(frozen=True)
class ConvFactor:
    """A group convolution: each of `groups` equal groups of outputs reads one group of inputs."""

    in_channels: int
    out_channels: int
    groups: int
    kernel_size: int = 1

    def __post_init__(self) -> None:
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise InputError(
                f"a convolution of {self.in_channels} to {self.out_channels} channels has no {self.groups} groups; "
                f"give a number that divides both"
            )


@dataclass(frozen=True)
class Permutation:
    """The interleaving of `groups` equal groups: channel g * C/G + i moves to i * G + g (`channel_shuffle`)."""

    channels: int
    groups: int

    def __post_init__(self) -> None:
        if self.groups < 1 or self.channels % self.groups:
            raise InputError(
                f"{self.groups} groups do not divide the {self.channels} channels of a permutation"
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
    """A block's layers in the order of their application, and the condition that its paper puts on them.

    Attributes:
        name: where it stands in its network, such as "stages.2.0.conv1".
        factors: its group convolutions and permutations; a shortcut around them is left out.
        condition: "complementary" (IGCV1, IGCV2) or "loose" (IGCV3, MobileNetV2).
    """

    name: str
    factors: tuple[Factor, ...]
    condition: Condition

    def rows(self) -> list[tuple[str | int, ...]]:
        """Plain tuples for drawing: ("conv", in, out, groups, kernel) and ("permute", channels, groups)."""
        return [
            ("permute", f.channels, f.groups)
            if isinstance(f, Permutation)
            else ("conv", f.in_channels, f.out_channels, f.groups, f.kernel_size)
            for f in self.factors
        ]


class Connectivity(NamedTuple):
    """Paths from an input to an output channel of a block: the fewest and the most of all pairs.

    Attributes:
        paths_min, paths_max: over all (input, output) pairs.
        holds: whether the block meets its condition.
        cut_off: the first few (input, output) pairs without a path, counted from 0.
    """

    paths_min: int
    paths_max: int
    holds: bool
    cut_off: tuple[tuple[int, int], ...]


class Balance(NamedTuple):
    """What the pointwise layers of an IGCV2 block cost against the least possible (section 3.3 of its paper).

    Attributes:
        branch_widths: channels per branch K of each pointwise layer.
        parameters: of these layers, C * (K1 + K2 + ...).
        optimum: C * n * C**(1/n), for the best whole number n of layers, all of the same (real) branch width.
        excess: parameters above the optimum, as a share of it; 0.1 for ten percent more.
    """

    branch_widths: tuple[int, ...]
    parameters: int
    optimum: float
    excess: float


def blocks(network: Network) -> list[BlockPattern]:
    """All blocks of a network in order; a residual IGCV1 block is two, its conv1 and its conv2."""
    return [
        block
        for i, stage in enumerate(network.stages)
        for name, module in stage.named_children()
        for block in describe(module, f"stages.{i}.{name}")
    ]


def describe(module: nn.Module, name: str = "block") -> list[BlockPattern]:
    """The description of a block module: one Block, two for an InterleavedResidual."""
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
        f"{type(module).__name__} is no block of the family; "
        f"give an InterleavedConv, InterleavedResidual or InvertedResidual"
    )


def _conv_factor(conv: nn.Module) -> ConvFactor:
    assert isinstance(conv, nn.Conv2d)
    return ConvFactor(conv.in_channels, conv.out_channels, conv.groups, conv.kernel_size[0])


def _permutation(conv: nn.Module, groups: int) -> list[Factor]:
    """The permutation after `conv`; none where it would leave every channel in place."""
    channels = _conv_factor(conv).out_channels
    return [] if groups in (1, channels) else [Permutation(channels, groups)]


def path_counts(factors: Sequence[Factor]) -> np.ndarray:
    """The number of paths from every input to every output channel: (out, in), int64.

    >>> path_counts([ConvFactor(4, 4, 2), Permutation(4, 2), ConvFactor(4, 4, 2)]).tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    _check_chain(factors)
    return _follow(factors, np.eye(factors[0].in_channels, dtype=np.int64))


def _check_chain(factors: Sequence[Factor]) -> None:
    """Raise InputError unless each factor takes what the one before gives."""
    if not factors:
        raise InputError("a block without layers has no paths; give at least one factor")
    for before, after in itertools.pairwise(factors):
        if before.out_channels != after.in_channels:
            raise InputError(f"{after} does not fit after {before}: their channels differ")


def _follow(factors: Sequence[Factor], counts: np.ndarray) -> np.ndarray:
    """Multiply the patterns of `factors` onto `counts`, (channels, inputs) -> (out, inputs)."""
    for factor in factors:
        groups, inputs = factor.groups, counts.shape[1]
        grouped = counts.reshape(groups, -1, inputs)  # (C, inputs) -> (G, C/G, inputs)
        if isinstance(factor, Permutation):
            counts = grouped.swapaxes(0, 1).reshape(-1, inputs)
        elif not factor.groups == factor.in_channels == factor.out_channels:  # else the identity
            counts = np.repeat(grouped.sum(1), factor.out_channels // groups, axis=0)
    return counts


def connectivity(block: BlockPattern) -> Connectivity:
    """Count the paths through a block and check its condition."""
    _check_chain(block.factors)
    return _connectivity(block.factors, block.condition)


@lru_cache(maxsize=256)
def _connectivity(factors: tuple[Factor, ...], condition: Condition) -> Connectivity:
    """`connectivity`, remembered, as most blocks of a stage are alike."""
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
    # All pairs alike is the loose condition: the paths that leave an input, E / G1 * out / G2, are then
    # E / (G1 * G2) for each of the `out` channels.
    holds = 0 < paths_min == paths_max and (condition == "loose" or paths_max == 1)
    return Connectivity(paths_min, paths_max, holds, tuple(cut_off))


def balance(block: BlockPattern) -> Balance | None:
    """The balance of an IGCV2 block (channel-wise convolution, then pointwise ones); None for any other.

    Where the block widens, C outside the root is its output width, and the branch widths multiply to its input width.
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
