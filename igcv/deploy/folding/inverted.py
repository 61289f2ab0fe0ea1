"""Exact forms of a folded inverted residual, which assign its expanded channels to paths.

A folded block consists of expand (E x C), channel-wise (depthwise) 3x3, ReLU6 and project (O x E). The two pointwise
convolutions have G1 and G2 groups. The source of an expanded channel is the group of `expand` that computes the
channel. The reader is the group of `project` that uses the channel. The expanded channels may be in any order, so the
permutation only decides which channels are adjacent. All forms below compute the same function from the same weights.
None of them needs the permutation.

    form             paths               expand             project            multiply-adds of the two, times literal
    dense            one                 dense              dense              G1, G2
    group_dense      one                 G1 groups          dense              1, G2
    dense_group      one                 dense              G2 groups          G1, 1
    group_group      one                 G1*G2 groups       G2 groups          1, 1
    branches         one per reader      dense              dense              G1, 1
    group_branches   one per reader      G1 groups          dense              1, 1
    sources          one per source      dense              dense              1, G2
    sources_group    one per source      dense              G2 groups          1, 1
    partial_sums     one per pair        dense              dense              1, 1
    slices_2, _4     2, 4                dense              dense              G1, G2

The IGCV3 paper draws the form "branches". The form "group_group" concatenates G2 copies of the input, because each
reader uses all sources. Slices keep the tensors between the convolutions of a path in the cache; MobileNetV2 has them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from igcv.deploy.folding.forms import FORMS, LITERAL, Form
from igcv.deploy.folding.layers import (
    NO_CHANNEL,
    convolution,
    folded_weight,
    pointwise,
    scale_and_shift,
    take,
)
from igcv.deploy.folding.network import ChannelShuffle, PathBlock, Wire
from igcv.models import ConvNorm, InvertedResidual
from igcv.models.forms import written_out


@dataclass(frozen=True)
class Inverted:
    """Folded inverted residual: the block of IGCV3 and MobileNetV2, as weights and biases in float64.

    Attributes:
        expand: weight (E, C) and bias (E,); None if the block has no expansion. The expanded channels are in the
            order in which `expand` computes them.
        depthwise: weight (E, 1, 3, 3) and bias (E,).
        project: weight (O, E) and bias (O,).
        place: (E,), the position of each expanded channel after the permutation.
        groups: (G1, G2).
        stride: stride of the channel-wise convolution.
        shortcut: whether the input is added to the output.
        expand_act: whether ReLU6 follows the expansion.
    """

    expand: tuple[Tensor, Tensor] | None
    depthwise: tuple[Tensor, Tensor]
    project: tuple[Tensor, Tensor]
    place: Tensor
    groups: tuple[int, int]
    stride: int
    shortcut: bool
    expand_act: bool

    @classmethod
    def of(cls, block: InvertedResidual) -> "Inverted":
        """Return the folded copy of a trained block."""
        kernel, shift3 = folded_weight(block.depthwise)
        scale2, shift2 = scale_and_shift(block.project.norm)
        matrix2 = written_out(block.project.conv).detach().double() * scale2[:, None]
        expand, groups, act = None, (1, block.project.conv.groups), False
        if isinstance(block.expand, ConvNorm):
            scale1, shift1 = scale_and_shift(block.expand.norm)
            expand = written_out(block.expand.conv).detach().double() * scale1[:, None], shift1
            groups = (block.expand.conv.groups, block.project.conv.groups)
            act = not block.expand.linear
        made = torch.arange(len(kernel))
        share = len(kernel) // groups[0]
        place = made % share * groups[0] + made // share
        depthwise, project = (kernel[place], shift3[place]), (matrix2[:, place], shift2)
        stride = block.depthwise.conv.stride[0]
        return cls(expand, depthwise, project, place, groups, stride, block.shortcut, act)

    @property
    def widths(self) -> tuple[int, int]:
        """Number of input and output channels."""
        expanded, out_channels = len(self.place), len(self.project[1])
        return (expanded if self.expand is None else self.expand[0].shape[1]), out_channels

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the distinct forms of this block."""
        if self.groups != (1, 1):
            return ("dense", LITERAL, *(name for name in FORMS if name != "dense"))
        return ("dense",) if self.expand is None else ("dense", "slices_2", "slices_4")

    def made_by(self, sources: list[int]) -> Tensor:
        """Return a mask (E,) of the expanded channels with one of these sources."""
        share = len(self.place) // self.groups[0]
        return torch.isin(torch.arange(len(self.place)) // share, torch.tensor(sources))

    def read_by(self, readers: list[int]) -> Tensor:
        """Return a mask (E,) of the expanded channels with one of these readers."""
        return torch.isin(self.place // (len(self.place) // self.groups[1]), torch.tensor(readers))

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> PathBlock:
        """Return the block in a form.

        Args:
            name: one of `forms`.
            layouts: layouts of the stream before and after the block (see `stream_layout`).
            vector_width: groups of expanded channels are padded with zeros to a multiple of this width.
        """
        if name == LITERAL:
            return self._literal()
        form = FORMS[name]
        sources, readers = (list(range(count)) for count in self.groups)
        # A path with two grouped convolutions needs a copy of the stream for each reader, which uses all sources.
        copies = len(readers) if form.group_expand and form.group_project and len(sources) > 1 else 1
        paths: list[nn.Module] = []
        wires: list[Wire] = []
        for s in [[source] for source in sources] if form.by_source else [sources]:
            for r in [[reader] for reader in readers] if form.by_reader else [readers]:
                wire = Wire(s[0] if form.by_source else 0, r[0] if form.by_reader else 0)
                for cells in _cells(self, form, s, r, vector_width):
                    # Add the bias only once to each chunk of the output.
                    bias = all(wire.write != other.write for other in wires)
                    paths.append(_path(self, form, _Path(s, r, cells, copies, bias), layouts))
                    wires.append(wire)
        return PathBlock(
            paths,
            wires,
            reads=len(sources) if form.by_source else 1,
            copies=copies,
            writes=len(readers) if form.by_reader else 1,
            shortcut=self.shortcut,
        )

    def _literal(self) -> PathBlock:
        """Return the literal form, with the permutation as a layer."""
        assert self.expand is not None
        order = self.place.argsort()
        (kernel, shift3), (matrix2, shift2) = self.depthwise, self.project
        layers = [
            pointwise(*self.expand, self.groups[0]),
            ChannelShuffle(len(order), self.groups[0]),
            convolution(kernel[order], shift3[order], self.stride, len(order)),
            nn.ReLU6(inplace=True),
            pointwise(matrix2[:, order], shift2, self.groups[1]),
        ]
        return PathBlock([nn.Sequential(*layers)], shortcut=self.shortcut)


def stream_layout(channels: int, groups: int, vector_width: int) -> Tensor:
    """Return the channel at each position of the stream, with each group padded to a multiple of `vector_width`.

    >>> stream_layout(6, 2, 4)
    tensor([ 0,  1,  2, -1,  3,  4,  5, -1])
    """
    return torch.cat([_filled(part, vector_width) for part in torch.arange(channels).chunk(groups)])


def _filled(index: Tensor, multiple: int, at_least: int = 0) -> Tensor:
    """Return `index`, padded with NO_CHANNEL to a multiple."""
    size = -(-max(len(index), at_least) // multiple) * multiple
    return torch.nn.functional.pad(index, (0, size - len(index)), value=NO_CHANNEL)


def _cells(
    block: Inverted, form: Form, sources: list[int], readers: list[int], vector_width: int
) -> list[list[Tensor]]:
    """Return, for each path of these sources and readers, its expanded channels in groups of equal size."""
    mine = block.made_by(sources) & block.read_by(readers)
    if form.slices > 1:
        return [[_filled(part, vector_width)] for part in mine.nonzero()[:, 0].chunk(form.slices)]
    by_reader = [[reader] for reader in readers] if form.group_project else [readers]
    by_source = [[source] for source in sources] if form.group_expand else [sources]
    masks = [mine & block.read_by(r) & block.made_by(s) for r in by_reader for s in by_source]
    largest = max(int(mask.sum()) for mask in masks)
    return [[_filled(mask.nonzero()[:, 0], vector_width, largest) for mask in masks]]


class _Path(NamedTuple):
    """Path of a block.

    Attributes:
        sources, readers: the sources and readers of its expanded channels.
        cells: its expanded channels, in groups of equal size.
        copies: number of copies of the stream that the path reads.
        bias: whether the path adds the bias of the projection.
    """

    sources: list[int]
    readers: list[int]
    cells: list[Tensor]
    copies: int
    bias: bool


def _path(block: Inverted, form: Form, path: _Path, layouts: tuple[Tensor, Tensor]) -> nn.Sequential:
    """Return the layers of a path: expand, channel-wise convolution, project."""
    sources, readers, cells, copies, bias = path
    rows = torch.cat(cells)
    layers: list[nn.Module] = []
    if block.expand is not None:
        read = layouts[0].chunk(block.groups[0])[sources[0]] if form.by_source else layouts[0]
        weight, shift = (take(tensor, rows) for tensor in block.expand)
        weight = take(weight, read, 1)
        if copies > 1:
            copy = torch.arange(copies).repeat_interleave(len(rows) // copies)
            weight = (weight[:, None] * (copy[:, None, None] == torch.arange(copies)[:, None])).flatten(1)
        layers.append(pointwise(weight, shift, len(cells) if form.group_expand else 1))
        layers += [nn.ReLU6(inplace=True)] if block.expand_act else []
    kernel, shift = (take(tensor, rows) for tensor in block.depthwise)
    layers += [convolution(kernel, shift, block.stride, groups=len(rows)), nn.ReLU6(inplace=True)]
    write = layouts[1].chunk(block.groups[1])[readers[0]] if form.by_reader else layouts[1]
    weight, shift = (take(tensor, write) for tensor in block.project)
    layers.append(
        pointwise(take(weight, rows, 1), shift if bias else None, len(readers) if form.group_project else 1)
    )
    return nn.Sequential(*layers)
