"""ONNX writer for folded networks.

A table gives the conversion of each operation. Each node is named after its layer. Writing a graph takes milliseconds,
so the forms of a block can be measured in the inference engines themselves. Global pooling and activations become
single nodes, which the engines can fuse.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from igcv.deploy.writers.graph import Convert, Operation, convert, graph_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.session import INPUT, OUTPUT
from igcv.errors import InputError

OPSET = 21  # the default; engines of the last two years read it
OLDEST_OPSET = 13  # the first opset with per-channel scales in quantized graphs
ELEMENT_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.uint8: TensorProto.UINT8,
}


Rewrite = Callable[[onnx.ModelProto], onnx.ModelProto]  # a transformation of the graph, such as quantization


class Builder:
    """Nodes and constants of a graph under construction."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Add a constant, unless a constant with this name exists, and return its name."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype)
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(
        self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str] = (), **how: Any
    ) -> str:
        """Add a node and return the name of its first output: `outputs`, or `name` for one of the same name."""
        found = [*(outputs or (name,))]
        self.nodes.append(helper.make_node(kind, [*inputs], found, name=name, **how))
        return found[0]


def _conv(builder: Builder, op: Operation) -> None:
    layer, inputs = op.layer, [*op.inputs, builder.constant(f"{op.name}.weight", op.layer.weight)]
    if layer.bias is not None:
        inputs.append(builder.constant(f"{op.name}.bias", layer.bias))
    pads = 2 * [int(padding) for padding in layer.padding]
    shape, strides = [*layer.kernel_size], [*layer.stride]
    how = {"kernel_shape": shape, "strides": strides, "pads": pads, "group": layer.groups}
    builder.add("Conv", op.name, inputs, op.outputs, **how)


def _linear(builder: Builder, op: Operation) -> None:
    weight, bias = (builder.constant(f"{op.name}.{n}", getattr(op.layer, n)) for n in ("weight", "bias"))
    builder.add("Gemm", op.name, [*op.inputs, weight, bias], op.outputs, transB=1)


def _relu6(builder: Builder, op: Operation) -> None:
    bounds = [builder.constant(bound, value, np.float32) for bound, value in (("zero", 0), ("six", 6))]
    builder.add("Clip", op.name, [*op.inputs, *bounds], op.outputs)


def _max_pool(builder: Builder, op: Operation) -> None:
    layer = op.layer
    size, strides, pads = [layer.kernel_size] * 2, [layer.stride] * 2, [layer.padding] * 4
    builder.add("MaxPool", op.name, op.inputs, op.outputs, kernel_shape=size, strides=strides, pads=pads)


def _shuffle(builder: Builder, op: Operation) -> None:
    name, layer = op.name, op.layer
    parts = builder.constant(f"{name}.parts", [0, layer.groups, layer.channels // layer.groups, -1], np.int64)
    parted = builder.add("Reshape", f"{name}.part", [*op.inputs, parts])
    swapped = builder.add("Transpose", f"{name}.swap", [parted], perm=[0, 2, 1, 3])
    shape = builder.add("Shape", f"{name}.shape", op.inputs)
    builder.add("Reshape", name, [swapped, shape], op.outputs)


def _preprocess(builder: Builder, op: Operation) -> None:
    name = op.name
    mean, std = (builder.constant(f"{name}.{n}", getattr(op.layer, n)) for n in ("mean", "std"))
    turned = builder.add("Transpose", f"{name}.turn", op.inputs, perm=[0, 3, 1, 2])
    x = builder.add("Cast", f"{name}.float", [turned], to=TensorProto.FLOAT)
    x = builder.add("Sub", f"{name}.center", [x, mean])
    builder.add("Div", name, [x, std], op.outputs)


def _split(builder: Builder, op: Operation) -> None:
    count: dict[str, Any] = {"num_outputs": len(op.outputs)} if builder.opset >= 18 else {}
    builder.add("Split", op.name, op.inputs, op.outputs, axis=1, **count)


def _node(kind: str, **how: Any) -> Convert:
    """Return the row of an operation that is one node without constants."""
    return lambda builder, op: builder.add(kind, op.name, op.inputs, op.outputs, **how)


OPERATIONS: dict[str, Convert] = {
    "conv": _conv,
    "linear": _linear,
    "relu6": _relu6,
    "relu": _node("Relu"),
    "max_pool": _max_pool,
    "global_mean": _node("GlobalAveragePool"),
    "global_max": _node("GlobalMaxPool"),
    "flatten": _node("Flatten"),
    "shuffle": _shuffle,
    "preprocess": _preprocess,
    "add": _node("Add"),
    "concat": _node("Concat", axis=1),
    "split": _split,
}


def write_onnx(
    network: nn.Module,
    example: Tensor,
    path: Path,
    settings: ExportSettings,
    metadata: Mapping[str, str],
    rewrite: Rewrite | None = None,
) -> None:
    """Write a folded network as an ONNX file.

    Args:
        network: a network of operations in `OPERATIONS`.
        example: an input of one image.
        path: the file to write.
        settings: settings of the export.
        metadata: texts by name to store in the file.
        rewrite: transformation of the graph before writing, such as quantization; None: no transformation.
    """
    path.write_bytes(settled_graph(network, example, settings, metadata, rewrite).SerializeToString())


def settled_graph(
    network: nn.Module,
    example: Tensor,
    settings: ExportSettings,
    metadata: Mapping[str, str],
    rewrite: Rewrite | None,
) -> onnx.ModelProto:
    """Return the graph for these export settings. `write_onnx` describes the arguments."""
    opset = OPSET if settings.opset is None else settings.opset
    model = onnx_graph(network, example, opset=opset, dynamic_size=settings.dynamic_size, metadata=metadata)
    return model if rewrite is None else rewrite(model)


def onnx_graph(
    network: nn.Module,
    images: Tensor,
    *,
    opset: int = OPSET,
    dynamic_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return a folded network, or a part of one that takes images, as an ONNX model.

    Args:
        network: a network of operations in `OPERATIONS`.
        images: an example input. The batch size of the model is dynamic.
        opset: version of the ONNX operators.
        dynamic_size: make the height and width of the images dynamic, too.
        metadata: texts by name to store in the model.

    Raises:
        InputError: if `opset` is too old or unknown to the installed onnx, or a layer has no ONNX equivalent.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise InputError(f"opset: got {opset}, expected an integer from {OLDEST_OPSET} to {newest}")
    builder = Builder(opset)
    convert(builder, graph_of(network, images), OPERATIONS, "onnx")
    dims = dynamic_dims(images.shape, dynamic_size)
    model = helper.make_model(
        helper.make_graph(
            builder.nodes,
            "igcv",
            [helper.make_tensor_value_info(INPUT, ELEMENT_TYPES[images.dtype], dims)],
            [
                helper.make_tensor_value_info(
                    OUTPUT, ELEMENT_TYPES[next(network.parameters()).dtype], ["batch", None]
                )
            ],
            [*builder.constants.values()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=min(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]), onnx.IR_VERSION),
        producer_name="igcv",
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def dynamic_dims(shape: Sequence[int], dynamic_size: bool) -> list[int | str]:
    """Return the dimensions of the input: a size, or a name if dynamic."""
    dims: list[int | str] = ["batch", *shape[1:]]
    if dynamic_size:
        for i, name in zip((1, 2) if shape[-1] == 3 else (2, 3), ("height", "width"), strict=True):
            dims[i] = name
    return dims
