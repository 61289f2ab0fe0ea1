"""Networks for inference: convolutions with biases, activations and sums, without batch norms or trainable parameters.

The stream is the tensor between two blocks. It consists of one or several equal chunks along the channels. If a block
writes chunks and the next block reads the same chunks, the network never concatenates and splits them.

Shapes: N images, C input channels, E expanded channels, O output channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.models import channel_shuffle

Flow = tuple[Tensor, ...]


def regroup(stream: Flow, chunks: int) -> Flow:
    """Return the stream in `chunks` equal chunks."""
    if len(stream) == chunks:
        return stream
    whole = torch.cat(stream, 1) if len(stream) > 1 else stream[0]
    if chunks == 1:
        return (whole,)
    parts = torch.chunk(whole, chunks, 1)
    return tuple(parts[i] for i in range(chunks))  # torch.fx cannot trace iteration over chunks


class ChannelShuffle(nn.Module):
    """Layer of `channel_shuffle`, for literal forms: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, self.groups)


class Preprocess(nn.Module):
    """Preprocessing layer: uint8 RGB images (N, H, W, 3) -> normalized float32 images (N, 3, H, W).

    Args:
        mean, std: mean and standard deviation of each channel, on the scale from 0 to 1.
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
    """Indices of the stream chunk that a path reads, and of the chunk to which its output is added."""

    read: int = 0
    write: int = 0


class PathBlock(nn.Module):
    """Block as a sum of paths. Each path is a chain of convolutions over some of the expanded channels.

    Args:
        paths: modules (N, C', H, W) -> (N, O', H', W').
        wires: input chunk and output chunk of each path.
        reads: number of chunks of the input stream.
        copies: number of copies of the whole stream to concatenate, for paths with more groups than the stream.
        writes: number of chunks of the output stream.
        shortcut: whether the input stream is added to the output.
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
        """Number of stream chunks that the block expects."""
        return self.writes if self.shortcut else self.reads

    def forward(self, stream: Flow) -> Flow:
        read = regroup(stream, self.reads) if self.copies == 1 else (torch.cat(stream * self.copies, 1),)
        sums: list[Any] = [*regroup(stream, self.writes)] if self.shortcut else [None] * self.writes
        for path, wire in zip(self.paths, self.wires, strict=True):
            out, before = path(read[wire.read]), sums[wire.write]
            sums[wire.write] = out if before is None else out + before
        return tuple(sums)


class ResidualBlock(nn.Module):
    """ReLU(shortcut(x) + body(x)) on a stream of one chunk: the block of IGCV1 networks with shortcuts."""

    stream_parts = 1

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.act = nn.ReLU(inplace=True)

    def forward(self, stream: Flow) -> Flow:
        (x,) = regroup(stream, 1)
        return (self.act(self.body(x) + self.shortcut(x)),)


class FoldedNetwork(nn.Module):
    """Classifier for inference, made by `igcv.fold`: float images (N, 3, H, W) -> logits (N, num_classes).

    Attributes:
        forms: the form of each block, by the name of the block in the trained network.
        vector_width: groups of channels are padded to a multiple of this width (see `igcv.deploy.Plan`).
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
        """Return the logits (N, num_classes) of images (N, in_chans, H, W)."""
        (x,) = regroup(self.blocks((self.stem(x),)), 1)
        return self.classifier(self.pool(self.head(x)))
