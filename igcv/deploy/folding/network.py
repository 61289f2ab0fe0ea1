"""Networks for inference: convolutions with biases, activations, sums; no batch norm, no parameter to train.

The channels that flow from block to block are the stream. It flows in one or in several equal parts: where one block
writes its output groups one by one and the next one reads them so, they are never put together and taken apart.

Shapes: N images, C channels in, E expanded, O out, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.models import channel_shuffle

Flow = tuple[Tensor, ...]


def regroup(stream: Flow, chunks: int) -> Flow:
    """The stream in `chunks` parts; it is left as it is where it has as many."""
    if len(stream) == chunks:
        return stream
    whole = torch.cat(stream, 1) if len(stream) > 1 else stream[0]
    if chunks == 1:
        return (whole,)
    parts = torch.chunk(whole, chunks, 1)
    return tuple(parts[i] for i in range(chunks))  # by number, so that it can be traced


class ChannelShuffle(nn.Module):
    """`channel_shuffle` as a layer: (N, C, H, W) -> (N, C, H, W). Only the literal forms have any."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, self.groups)


class Preprocess(nn.Module):
    """uint8 RGB images (N, H, W, 3), as decoders give them -> normalized float32 (N, 3, H, W).

    Args:
        mean, std: of each channel, on the scale from 0 to 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor([*mean]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor([*std]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Wire(NamedTuple):
    """Which part of the stream a path reads, and to which part its output is added."""

    read: int = 0
    write: int = 0


class PathBlock(nn.Module):
    """A block as a sum of paths, each a chain of convolutions over some of the expanded channels.

    Args:
        paths: each (N, C', H, W) -> (N, O', H', W').
        wires: for each path, what it reads and where its output is added.
        reads: parts of the stream as the paths read it.
        copies: how many times over a stream read whole stands side by side, for paths that take it in more groups.
        writes: parts of the stream as they write it.
        shortcut: whether the stream is added to the output.
    """

    def __init__(
        self,
        paths: Sequence[nn.Module],
        wires: Sequence[Wire] = (Wire(),),
        *,
        reads: int = 1,
        copies: int = 1,
        writes: int = 1,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        assert reads == 1 or copies == 1
        self.paths = nn.ModuleList(paths)
        self.wires, self.reads, self.copies, self.writes = tuple(wires), reads, copies, writes
        self.shortcut = shortcut

    @property
    def stream_parts(self) -> int:
        """In how many parts it likes to be given the stream."""
        return self.writes if self.shortcut else self.reads

    def forward(self, stream: Flow) -> Flow:
        read = regroup(stream, self.reads) if self.copies == 1 else (torch.cat(stream * self.copies, 1),)
        sums: list[Any] = [*regroup(stream, self.writes)] if self.shortcut else [None] * self.writes
        for path, wire in zip(self.paths, self.wires, strict=True):
            out, before = path(read[wire.read]), sums[wire.write]
            sums[wire.write] = out if before is None else out + before
        return tuple(sums)


class ResidualBlock(nn.Module):
    """ReLU(shortcut(x) + body(x)) over a stream in one part: the block of IGCV1's networks with shortcuts."""

    stream_parts = 1

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.act = nn.ReLU(inplace=True)

    def forward(self, stream: Flow) -> Flow:
        (x,) = regroup(stream, 1)
        return (self.act(self.body(x) + self.shortcut(x)),)


class FoldedNetwork(nn.Module):
    """A classifier for inference, made by `igcv.fold`: (N, 3, H, W) float -> (N, num_classes) logits.

    Attributes:
        forms: how each block is computed, by its name in the trained network.
        vector_width: to a multiple of what groups of channels are filled up (see `igcv.deploy.folding.plan.Plan`).
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        head: nn.Module,
        pool: nn.Module,
        classifier: nn.Module,
        *,
        forms: dict[str, str],
        vector_width: int,
    ) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.Sequential(*blocks), head
        self.pool, self.classifier = pool, classifier
        self.forms, self.vector_width = forms, vector_width
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_classes) logits."""
        (x,) = regroup(self.blocks((self.stem(x),)), 1)
        return self.classifier(self.pool(self.head(x)))
