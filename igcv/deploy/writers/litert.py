"""LiteRT writer (.tflite): a table of operations over the FlatBuffers schema of ai-edge-litert.

Values are NHWC and the batch size is fixed. A convolution with fewer filter channels than input channels is a grouped
convolution. XNNPACK, the CPU delegate of LiteRT, takes every operation below but CAST: a file runs as one delegate.

Shapes: N images, H x W pixels, C channels in, O out, K x K the kernel.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from igcv.deploy.writers.graph import Convert, Operation, convert, fused, graph_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.litert import CARD_FILE, LABELS_FILE
from igcv.engines.session import INPUT, OUTPUT
from igcv.extras import required
from igcv.weights.card import CARD_KEY, Card

SAME, VALID = 0, 1  # paddings of the schema
ACTIVATIONS = {"": 0, "relu": 1, "relu6": 3}  # ActivationFunctionType of the schema
VERSIONS = {"CONV_2D": 6}  # version of the operator, for grouped convolutions; other operators: 1


class Builder:
    """Tensors and operators of a file under construction."""

    def __init__(self, schema: Any, float16: bool) -> None:
        self.schema, self.float16 = schema, float16
        self.shapes: dict[str, tuple[int, ...]] = {}  # shapes of the values, NHWC
        self.aligned = _aligned(schema)
        self.buffers = [schema.BufferT()]  # the first one is empty: values have no data
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[str, int] = {}
        self.places: dict[str, int] = {}  # tensors by name

    def tensor(self, name: str, shape: Sequence[int], type: str, buffer: int = 0) -> int:
        """Return the tensor of a name. The first call adds it."""
        if name not in self.places:
            self.places[name] = len(self.tensors)
            kind = getattr(self.schema.TensorType, type)
            self.tensors.append(self.schema.TensorT([*shape], kind, buffer, name))
        return self.places[name]

    def value(self, name: str) -> int:
        """Return the tensor of a value of the graph, float32."""
        return self.tensor(name, self.shapes[name], "FLOAT32")

    def constant(self, name: str, array: np.ndarray) -> int:
        """Return the tensor of a constant. The first call adds it."""
        self.buffers.append(self.aligned(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
        return self.tensor(name, array.shape, str(array.dtype).upper(), len(self.buffers) - 1)

    def weight(self, name: str, array: np.ndarray) -> int:
        """Return the tensor of a weight: float32, or float16 that LiteRT converts to float32 as it opens the file."""
        if not self.float16:
            return self.constant(name, array)
        stored = self.constant(f"{name}.float16", array.astype(np.float16))
        whole = self.tensor(name, array.shape, "FLOAT32")
        self.add("DEQUANTIZE", [stored], [whole])
        return whole

    def add(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **how: Any
    ) -> None:
        """Add an operator.

        Args:
            kind: name of the operator in the schema.
            inputs, outputs: its tensors.
            options: name of its table of options in the schema, with the values `how`.
        """
        code = self.codes.setdefault(kind, len(self.codes))
        operator = self.schema.OperatorT(code, [*inputs], [*outputs])
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")(**how)
        self.operators.append(operator)


def _aligned(schema: Any) -> Any:
    """Return the class of buffers whose data starts at a multiple of 16 bytes, as the schema demands."""

    class Aligned(schema.BufferT):
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the name that FlatBuffers calls
            builder.Prep(16, len(self.data))
            return super().Pack(builder)

    return Aligned


def _array(weight: Tensor | None, size: int = 0) -> np.ndarray:
    """Return a weight as an array, or zeros for a bias that is None."""
    return np.zeros(size, np.float32) if weight is None else weight.detach().float().numpy()


def _padded(builder: Builder, op: Operation, size: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the input of a window, padded unless the schema's own padding does it, and that padding.

    With stride 2, "same" of the schema pads on the right and below only.
    """
    x, shape = builder.value(op.inputs[0]), builder.shapes[op.inputs[0]]
    if stride == 1 and 2 * padding == size - 1:
        return x, SAME
    if padding == 0:
        return x, VALID
    n, h, w, c = shape
    pads = np.array([[0, 0], [padding, padding], [padding, padding], [0, 0]], np.int32)
    wide = builder.tensor(f"{op.name}.padded", (n, h + 2 * padding, w + 2 * padding, c), "FLOAT32")
    builder.add("PAD", [x, builder.constant(f"{op.name}.pads", pads)], [wide], "PadOptions")
    return wide, VALID


def _conv(builder: Builder, op: Operation) -> None:
    layer: nn.Conv2d = op.layer
    size, stride = layer.kernel_size[0], layer.stride[0]
    x, how = _padded(builder, op, size, stride, int(layer.padding[0]))
    weight = _array(layer.weight)  # (O, C / groups, K, K)
    bias = builder.constant(f"{op.name}.bias", _array(layer.bias, len(weight)))
    options = {
        "padding": how,
        "strideH": stride,
        "strideW": stride,
        "fusedActivationFunction": ACTIVATIONS[op.activation],
    }
    if layer.groups == layer.in_channels == layer.out_channels:
        kernel = builder.weight(f"{op.name}.weight", weight.transpose(1, 2, 3, 0))  # (1, K, K, O)
        kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = 1
    else:
        kernel = builder.weight(f"{op.name}.weight", weight.transpose(0, 2, 3, 1))  # (O, K, K, C / groups)
        kind, table = "CONV_2D", "Conv2DOptions"
    builder.add(kind, [x, kernel, bias], [builder.value(op.outputs[0])], table, **options)


def _linear(builder: Builder, op: Operation) -> None:
    weight = builder.weight(f"{op.name}.weight", _array(op.layer.weight))
    bias = builder.constant(f"{op.name}.bias", _array(op.layer.bias))
    inputs, outputs = [builder.value(op.inputs[0]), weight, bias], [builder.value(op.outputs[0])]
    builder.add("FULLY_CONNECTED", inputs, outputs, "FullyConnectedOptions")


def _max_pool(builder: Builder, op: Operation) -> None:
    layer = op.layer  # of IGCV1 for ImageNet, behind a ReLU: zeros are as good a padding as minus infinity
    x, how = _padded(builder, op, layer.kernel_size, layer.stride, layer.padding)
    sizes = dict.fromkeys(("filterHeight", "filterWidth"), layer.kernel_size)
    strides = dict.fromkeys(("strideH", "strideW"), layer.stride)
    outputs = [builder.value(op.outputs[0])]
    builder.add("MAX_POOL_2D", [x], outputs, "Pool2DOptions", padding=how, **sizes, **strides)


def _global(kind: str) -> Convert:
    """Return the row of a reduction over all pixels: (N, H, W, C) -> (N, 1, 1, C)."""

    def row(builder: Builder, op: Operation) -> None:
        axes = builder.constant(f"{op.name}.axes", np.array([1, 2], np.int32))
        inputs, outputs = [builder.value(op.inputs[0]), axes], [builder.value(op.outputs[0])]
        builder.add(kind, inputs, outputs, "ReducerOptions", keepDims=True)

    return row


def _reshape(builder: Builder, x: int, name: str, shape: Sequence[int]) -> int:
    """Add a reshape and return its output."""
    sizes, out = (
        builder.constant(f"{name}.shape", np.array(shape, np.int32)),
        builder.tensor(name, shape, "FLOAT32"),
    )
    builder.add("RESHAPE", [x, sizes], [out], "ReshapeOptions", newShape=[*shape])
    return out


def _flatten(builder: Builder, op: Operation) -> None:
    _reshape(builder, builder.value(op.inputs[0]), op.outputs[0], builder.shapes[op.outputs[0]])


def _shuffle(builder: Builder, op: Operation) -> None:
    n, h, w, c = builder.shapes[op.inputs[0]]
    groups = op.layer.groups
    parts = _reshape(builder, builder.value(op.inputs[0]), f"{op.name}.parts", (n, h, w, groups, c // groups))
    order = builder.constant(f"{op.name}.order", np.array([0, 1, 2, 4, 3], np.int32))
    swapped = builder.tensor(f"{op.name}.swapped", (n, h, w, c // groups, groups), "FLOAT32")
    builder.add("TRANSPOSE", [parts, order], [swapped], "TransposeOptions")
    _reshape(builder, swapped, op.outputs[0], (n, h, w, c))


def _preprocess(builder: Builder, op: Operation) -> None:
    x, shape = builder.places[op.inputs[0]], builder.shapes[op.outputs[0]]
    mean, std = (_array(value).reshape(1, 1, 1, 3) for value in (op.layer.mean, op.layer.std))
    whole, centered = (builder.tensor(f"{op.name}.{n}", shape, "FLOAT32") for n in ("float", "centered"))
    types = builder.schema.TensorType
    builder.add("CAST", [x], [whole], "CastOptions", inDataType=types.UINT8, outDataType=types.FLOAT32)
    builder.add("SUB", [whole, builder.constant(f"{op.name}.mean", mean)], [centered], "SubOptions")
    scale = builder.constant(f"{op.name}.scale", 1 / std)
    builder.add("MUL", [centered, scale], [builder.value(op.outputs[0])], "MulOptions")


def _add(builder: Builder, op: Operation) -> None:
    inputs, outputs = [builder.value(name) for name in op.inputs], [builder.value(op.outputs[0])]
    activation = ACTIVATIONS[op.activation]
    builder.add("ADD", inputs, outputs, "AddOptions", fusedActivationFunction=activation)


def _concat(builder: Builder, op: Operation) -> None:
    inputs, outputs = [builder.value(name) for name in op.inputs], [builder.value(op.outputs[0])]
    axis = len(builder.shapes[op.outputs[0]]) - 1  # channels are last
    builder.add("CONCATENATION", inputs, outputs, "ConcatenationOptions", axis=axis)


def _split(builder: Builder, op: Operation) -> None:
    axis = builder.constant(f"{op.name}.axis", np.array(3, np.int32))
    outputs = [builder.value(name) for name in op.outputs]
    inputs = [axis, builder.value(op.inputs[0])]
    builder.add("SPLIT", inputs, outputs, "SplitOptions", numSplits=len(outputs))


def _alone(kind: str) -> Convert:
    """Return the row of an activation that follows no convolution."""

    def row(builder: Builder, op: Operation) -> None:
        builder.add(kind, [builder.value(op.inputs[0])], [builder.value(op.outputs[0])])

    return row


OPERATIONS: dict[str, Convert] = {
    "conv": _conv,
    "linear": _linear,
    "relu6": _alone("RELU6"),
    "relu": _alone("RELU"),
    "max_pool": _max_pool,
    "global_mean": _global("MEAN"),
    "global_max": _global("REDUCE_MAX"),
    "flatten": _flatten,
    "shuffle": _shuffle,
    "preprocess": _preprocess,
    "add": _add,
    "concat": _concat,
    "split": _split,
}


def write_litert(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as a LiteRT file. Card and labels are in a zip archive at its end.

    Args:
        network: a network of operations in `OPERATIONS`.
        example: an input of as many images as the file takes at once.
        path: the file to write.
        settings: the export settings.
        metadata: texts by name to store in the file.
    """
    schema = required("ai_edge_litert.schema_py_generated", "litert", "litert")
    graph = fused(graph_of(network, example), ("conv", "add"))
    builder = Builder(schema, settings.float16)
    builder.shapes = {name: _nhwc(shape) for name, shape in graph.shapes.items()}
    pixels = settings.with_preprocessing
    builder.shapes[INPUT] = graph.shapes[INPUT] if pixels else builder.shapes[INPUT]
    builder.tensor(INPUT, builder.shapes[INPUT], "UINT8" if pixels else "FLOAT32")
    convert(builder, graph, OPERATIONS, "litert")
    path.write_bytes(_packed(builder))
    if CARD_KEY in metadata:
        card = Card.from_json(metadata[CARD_KEY], path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(CARD_FILE, metadata[CARD_KEY])
            archive.writestr(LABELS_FILE, "\n".join(card.names))


def _nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the channels last.

    >>> _nhwc((1, 3, 32, 48))
    (1, 32, 48, 3)
    """
    return (shape[0], *shape[2:], shape[1])


def _packed(builder: Builder) -> bytes:
    """Return the bytes of the file."""
    flatbuffers = required("flatbuffers", "litert", "litert")  # a dependency of ai-edge-litert
    schema = builder.schema
    ends = [builder.places[INPUT]], [builder.places[OUTPUT]]
    subgraph = schema.SubGraphT(builder.tensors, *ends, builder.operators, "igcv")
    codes = []
    for kind in builder.codes:
        code = getattr(schema.BuiltinOperator, kind)
        codes.append(schema.OperatorCodeT(min(code, 127), version=VERSIONS.get(kind, 1), builtinCode=code))
    maps = [[schema.TensorMapT(name, place)] for name, (place,) in zip((INPUT, OUTPUT), ends, strict=True)]
    signature = schema.SignatureDefT(*maps, "serving_default", 0)
    model = schema.ModelT(3, codes, [subgraph], "igcv", builder.buffers, signatureDefs=[signature])
    packer = flatbuffers.Builder(1 << 20)
    packer.Finish(model.Pack(packer), b"TFL3")
    return bytes(packer.Output())
