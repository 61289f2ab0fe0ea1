"""ncnn writer: the layers in a text file (.param), the weights in a binary file (.bin), the card in a .json file.

ncnn has no batch dimension: a blob is (C, H, W), or (C) after the pooling. Each blob has one reader, so a blob that
several layers read passes through a Split layer.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from igcv.data.preprocessing import Preprocessing
from igcv.deploy.writers.graph import Convert, Graph, Operation, convert, fused, graph_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.session import INPUT, OUTPUT
from igcv.weights.card import CARD_KEY, Card

MAGIC = 7767517  # first line of a .param file
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags before weights in a .bin file
# The bounds are floats: older versions of ncnn read the bits of an integer as a float.
ACTIVATIONS: dict[str, dict[int, Any]] = {"": {}, "relu": {9: 1}, "relu6": {9: 3, -23310: (2, 0.0, 6.0)}}
MAX, MEAN = 0, 1  # kinds of pooling


class Builder:
    """Layers and weights of a network under construction."""

    def __init__(self, graph: Graph, float16: bool) -> None:
        self.float16 = float16
        self.lines: list[str] = []
        self.weights: list[bytes] = []
        self.blobs = 0
        self.readers = Counter(name for op in graph.operations for name in op.inputs)
        self.copies: dict[str, list[str]] = {}  # of blobs with several readers

    def layer(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        parameters: Mapping[int, Any] | None = None,
    ) -> None:
        """Add a layer with parameters by number; an array has the number -23300 - n and its length first."""
        read = [self.copies[blob].pop() if self.copies.get(blob) else blob for blob in inputs]
        words = [kind, name, str(len(read)), str(len(outputs)), *read, *outputs]
        words += [
            f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            for key, value in (parameters or {}).items()
        ]
        self.lines.append(" ".join(words))
        self.blobs += len(outputs)
        for blob in outputs:
            if (count := self.readers[blob]) > 1:
                copies = [f"{blob}.copy{i}" for i in range(count)]
                self.copies[blob] = []  # the Split itself reads the blob
                self.layer("Split", f"{blob}.split", [blob], copies)
                self.copies[blob] = copies[::-1]

    def weight(self, tensor: Tensor) -> None:
        """Append a weight, with its tag."""
        array = tensor.detach().float().numpy().reshape(-1)
        tag = FLOAT16 if self.float16 else FLOAT32
        data = array.astype(np.float16 if self.float16 else np.float32).tobytes()
        self.weights.append(np.uint32(tag).tobytes() + data + bytes(-len(data) % 4))

    def bias(self, tensor: Tensor) -> None:
        """Append a bias, float32 without a tag."""
        self.weights.append(tensor.detach().float().numpy().tobytes())


def _conv(builder: Builder, op: Operation) -> None:
    layer: nn.Conv2d = op.layer
    size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    parameters: dict[int, Any] = {0: layer.out_channels, 1: size, 3: stride, 4: padding}
    parameters |= {5: int(layer.bias is not None), 6: layer.weight.numel()}
    grouped = layer.groups > 1
    parameters |= {7: layer.groups} if grouped else {}
    kind = "ConvolutionDepthWise" if grouped else "Convolution"
    builder.layer(kind, op.name, op.inputs, op.outputs, parameters | ACTIVATIONS[op.activation])
    builder.weight(layer.weight)
    if layer.bias is not None:
        builder.bias(layer.bias)


def _linear(builder: Builder, op: Operation) -> None:
    layer: nn.Linear = op.layer
    size = layer.weight.numel()
    builder.layer("InnerProduct", op.name, op.inputs, op.outputs, {0: layer.out_features, 1: 1, 2: size})
    builder.weight(layer.weight)
    builder.bias(layer.bias)


def _max_pool(builder: Builder, op: Operation) -> None:
    layer = op.layer
    window = {0: MAX, 1: layer.kernel_size, 2: layer.stride, 3: layer.padding, 5: 1}
    builder.layer("Pooling", op.name, op.inputs, op.outputs, window)


def _global(kind: int) -> Convert:
    """Return the row of a pooling over all pixels: (C, H, W) -> (C)."""
    return lambda builder, op: builder.layer("Pooling", op.name, op.inputs, op.outputs, {0: kind, 4: 1})


def _split(builder: Builder, op: Operation) -> None:
    rest = -233  # "an equal part"
    sizes = (len(op.outputs), *[rest] * len(op.outputs))
    builder.layer("Slice", op.name, op.inputs, op.outputs, {-23300: sizes, 1: 0})


OPERATIONS: dict[str, Convert] = {
    "conv": _conv,
    "linear": _linear,
    "relu6": lambda builder, op: builder.layer("Clip", op.name, op.inputs, op.outputs, {0: 0.0, 1: 6.0}),
    "relu": lambda builder, op: builder.layer("ReLU", op.name, op.inputs, op.outputs),
    "max_pool": _max_pool,
    "global_mean": _global(MEAN),
    "global_max": _global(MAX),
    "flatten": lambda builder, op: builder.layer("Flatten", op.name, op.inputs, op.outputs),
    "shuffle": lambda builder, op: builder.layer(
        "ShuffleChannel", op.name, op.inputs, op.outputs, {0: op.layer.groups}
    ),
    "add": lambda builder, op: builder.layer("BinaryOp", op.name, op.inputs, op.outputs, {0: 0}),
    "concat": lambda builder, op: builder.layer("Concat", op.name, op.inputs, op.outputs, {0: 0}),
    "split": _split,
}


def write_ncnn(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as a .param, a .bin and a .json file.

    Args:
        network: a network of operations in `OPERATIONS`.
        example: an input of one image.
        path: the .param file to write; the other files have the same name.
        settings: the export settings.
        metadata: texts by name to store in the .json file.
    """
    graph = fused(graph_of(network, example), ("conv",))
    builder = Builder(graph, settings.float16)
    builder.layer("Input", INPUT, [], [INPUT])
    convert(builder, graph, OPERATIONS, "ncnn")
    head = [str(MAGIC), f"{len(builder.lines)} {builder.blobs}"]
    path.write_text("\n".join([*head, *builder.lines]) + "\n")
    path.with_suffix(".bin").write_bytes(b"".join(builder.weights))
    about = {"shape": list(example.shape[1:]), **(_about(metadata, path) if CARD_KEY in metadata else {})}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False))


def _about(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the card, and what a program for ncnn needs of it in the terms of ncnn.

    `substract_mean_normalize(mean, norm)` takes pixels from 0 to 255: it subtracts `mean` and multiplies by `norm`.
    """
    card = Card.from_json(metadata[CARD_KEY], path)
    pre = Preprocessing.from_dict(card.preprocessing)
    return {
        "input": INPUT,
        "output": OUTPUT,
        "pixels": "RGB",
        "mean": [255 * value for value in pre.mean],
        "norm": [1 / (255 * value) for value in pre.std],
        "classes": [*card.names],
        CARD_KEY: json.loads(metadata[CARD_KEY]),
    }
