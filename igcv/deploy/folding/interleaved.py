"""Folded blocks of IGCV1 and IGCV2: one interleaved convolution, or two with a shortcut.

The permutations of these blocks lie between grouped layers. No order of the channels removes a permutation while the
layers stay grouped. The form "dense" multiplies all layers after the spatial convolution into one matrix, without
permutations. The form "literal" keeps the layers and permutations: more passes, less arithmetic. Which form is faster
depends on the widths and the engine.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igcv.deploy.folding.forms import LITERAL
from igcv.deploy.folding.layers import convolution, folded_layers, pointwise, scale_and_shift
from igcv.deploy.folding.network import ChannelShuffle, PathBlock, ResidualBlock
from igcv.models import InterleavedConv, InterleavedResidual, channel_shuffle


@dataclass(frozen=True)
class Interleaved:
    """Interleaved convolution in float64."""

    block: InterleavedConv
    groups = (1, 1)  # the block reads and writes the whole stream

    @classmethod
    def of(cls, block: InterleavedConv) -> "Interleaved":
        """Return the folded copy of a trained block."""
        return cls(deepcopy(block).double().requires_grad_(False))

    @property
    def widths(self) -> tuple[int, int]:
        """Number of input and output channels."""
        convs: Any = self.block.convs
        return convs[0].in_channels, convs[-1].out_channels

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the forms; they include "dense" if all factors except the first are pointwise."""
        return self.block.forms

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> PathBlock:
        """Return the block in a form. Layouts and vector width have no effect."""
        return PathBlock([self.layers(name)])

    def layers(self, name: str) -> nn.Sequential:
        """Return the layers of a form."""
        layers = self._factors() if name == LITERAL else self._product()
        return nn.Sequential(*layers, *([] if isinstance(self.block.act, nn.Identity) else [self.block.act]))

    def _factors(self) -> Iterator[nn.Module]:
        """Yield the factors and the permutations between them. The batch norm follows the last permutation."""
        convs, groups = list[Any](self.block.convs), self.block.groups
        behind = scale_and_shift(self.block.norm)
        places = torch.arange(len(behind[0])).view(1, -1, 1, 1)
        scale, shift = (tensor[channel_shuffle(places, groups[-1]).flatten().argsort()] for tensor in behind)
        for i, (conv, count) in enumerate(zip(convs, groups, strict=True)):
            last = i == len(convs) - 1
            weight = conv.weight * scale[:, None, None, None] if last else conv.weight
            yield convolution(weight, shift if last else None, conv.stride[0], conv.groups)
            if count not in (1, conv.out_channels):
                yield ChannelShuffle(conv.out_channels, count)

    def _product(self) -> Iterator[nn.Module]:
        """Yield the spatial factor and the product of the other factors."""
        first: Any = self.block.convs[0]
        yield convolution(first.weight, None, first.stride[0], first.groups)
        scale, shift = scale_and_shift(self.block.norm)
        yield pointwise(self.block.pointwise_weight()[..., 0, 0] * scale[:, None], shift)


@dataclass(frozen=True)
class Residual:
    """Two interleaved convolutions with a shortcut, in float64."""

    first: Interleaved
    second: Interleaved
    shortcut: nn.Module
    groups = (1, 1)

    @classmethod
    def of(cls, block: InterleavedResidual) -> "Residual":
        """Return the folded copy of a trained block."""
        return cls(Interleaved.of(block.conv1), Interleaved.of(block.conv2), block.shortcut)

    @property
    def widths(self) -> tuple[int, int]:
        """Number of input and output channels."""
        return self.first.widths[0], self.second.widths[1]

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the forms of both convolutions."""
        return self.first.forms

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> ResidualBlock:
        """Return the block in a form. Layouts and vector width have no effect."""
        body = nn.Sequential(*self.first.layers(name), *self.second.layers(name))
        return ResidualBlock(body, folded_layers(self.shortcut))
