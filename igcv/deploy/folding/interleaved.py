"""The folded blocks of IGCV1 and IGCV2: interleaved convolutions, alone or two with a shortcut.

Their permutations lie between grouped layers, and no order of channels lets them vanish while the layers stay grouped.
The form "dense" multiplies all that follows the spatial convolution into one matrix, which leaves no permutation.
"literal" keeps layers and permutations: more passes, less arithmetic. Which one is faster depends on widths and engine.
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
    """An interleaved convolution, in float64."""

    block: InterleavedConv
    groups = (1, 1)  # it reads and writes the stream as a whole

    @classmethod
    def of(cls, block: InterleavedConv) -> "Interleaved":
        """Of a trained block, which stays as it is."""
        return cls(deepcopy(block).double().requires_grad_(False))

    @property
    def widths(self) -> tuple[int, int]:
        """Channels in and out."""
        convs: Any = self.block.convs
        return convs[0].in_channels, convs[-1].out_channels

    @property
    def forms(self) -> tuple[str, ...]:
        """ "dense" as well, where all factors but the first are pointwise."""
        return self.block.forms

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> PathBlock:
        """The block in a form; layouts and vector width mean nothing to it."""
        return PathBlock([self.layers(name)])

    def layers(self, name: str) -> nn.Sequential:
        """Its layers in a form."""
        layers = self._factors() if name == LITERAL else self._product()
        return nn.Sequential(*layers, *([] if isinstance(self.block.act, nn.Identity) else [self.block.act]))

    def _factors(self) -> Iterator[nn.Module]:
        """Factor by factor, with the permutations between them; the batch norm stands behind the last permutation."""
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
        """The spatial factor, then one matrix."""
        first: Any = self.block.convs[0]
        yield convolution(first.weight, None, first.stride[0], first.groups)
        scale, shift = scale_and_shift(self.block.norm)
        yield pointwise(self.block.pointwise_weight()[..., 0, 0] * scale[:, None], shift)


@dataclass(frozen=True)
class Residual:
    """Two interleaved convolutions and a shortcut, in float64."""

    first: Interleaved
    second: Interleaved
    shortcut: nn.Module
    groups = (1, 1)

    @classmethod
    def of(cls, block: InterleavedResidual) -> "Residual":
        """Of a trained block, which stays as it is."""
        return cls(Interleaved.of(block.conv1), Interleaved.of(block.conv2), block.shortcut)

    @property
    def widths(self) -> tuple[int, int]:
        """Channels in and out."""
        return self.first.widths[0], self.second.widths[1]

    @property
    def forms(self) -> tuple[str, ...]:
        """Of both convolutions."""
        return self.first.forms

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> ResidualBlock:
        """The block in a form; layouts and vector width mean nothing to it."""
        body = nn.Sequential(*self.first.layers(name), *self.second.layers(name))
        return ResidualBlock(body, folded_layers(self.shortcut))
