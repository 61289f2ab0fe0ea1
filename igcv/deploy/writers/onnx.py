"""ONNX writer for folded networks.

A table gives the conversion of each operation. Each node is named after its layer. Writing a graph takes milliseconds,
so the forms of a block can be measured in the inference engines themselves. Global pooling and activations become
single nodes, which the engines can fuse.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from igcv.deploy.folding.network import ChannelShuffle, Preprocess
from igcv.deploy.writers.graph import operations
from igcv.deploy.writers.settings import ExportSettings
from igcv.errors import InputError

OPSET = 21  # the default; engines of the last two years read it
OLDEST_OPSET = 13  # the first opset with per-channel scales in quantized graphs
INPUT, OUTPUT = "images", "logits"
ELEMENT_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.uint8: TensorProto.UINT8,
}


Rewrite = Callable[[onnx.ModelProto], onnx.ModelProto]  # a transformation of the graph, such as quantization


class Graph:
    """Nodes and constants of a graph under construction. Every method returns the name of the new item."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Add a constant, unless a constant with this name exists."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype)
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _conv(graph: Graph, name: str, layer: nn.Conv2d, x: str) -> str:
    inputs = [x, graph.constant(f"{name}.weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.constant(f"{name}.bias", layer.bias))
    pads = 2 * [int(padding) for padding in layer.padding]
    shape, strides = [*layer.kernel_size], [*layer.stride]
    return graph.add("Conv", inputs, name, kernel_shape=shape, strides=strides, pads=pads, group=layer.groups)


def _linear(graph: Graph, name: str, layer: nn.Linear, x: str) -> str:
    inputs = [x, graph.constant(f"{name}.weight", layer.weight), graph.constant(f"{name}.bias", layer.bias)]
    return graph.add("Gemm", inputs, name, transB=1)


def _relu6(graph: Graph, name: str, layer: nn.ReLU6, x: str) -> str:
    bounds = [graph.constant(bound, value, np.float32) for bound, value in (("zero", 0), ("six", 6))]
    return graph.add("Clip", [x, *bounds], name)


def _max_pool(graph: Graph, name: str, layer: Any, x: str) -> str:
    size, strides, pads = [layer.kernel_size] * 2, [layer.stride] * 2, [layer.padding] * 4
    return graph.add("MaxPool", [x], name, kernel_shape=size, strides=strides, pads=pads)


def _shuffle(graph: Graph, name: str, layer: ChannelShuffle, x: str) -> str:
    parts = [0, layer.groups, layer.channels // layer.groups, -1]
    parted = graph.add("Reshape", [x, graph.constant(f"{name}.parts", parts, np.int64)], f"{name}.part")
    swapped = graph.add("Transpose", [parted], f"{name}.swap", perm=[0, 2, 1, 3])
    return graph.add("Reshape", [swapped, graph.add("Shape", [x], f"{name}.shape")], name)


def _preprocess(graph: Graph, name: str, layer: Any, x: str) -> str:
    turned = graph.add("Transpose", [x], f"{name}.turn", perm=[0, 3, 1, 2])
    x = graph.add("Cast", [turned], f"{name}.float", to=TensorProto.FLOAT)
    x = graph.add("Sub", [x, graph.constant(f"{name}.mean", layer.mean)], f"{name}.center")
    return graph.add("Div", [x, graph.constant(f"{name}.std", layer.std)], name)


def _concat(graph: Graph, name: str, parts: tuple[str, ...], dim: int) -> str:
    return graph.add("Concat", [*parts], name, axis=dim)


def _chunk(graph: Graph, name: str, x: str, chunks: int, dim: int) -> list[str]:
    parts = [f"{name}.{i}" for i in range(chunks)]
    count: dict[str, Any] = {"num_outputs": chunks} if graph.opset >= 18 else {}
    graph.nodes.append(helper.make_node("Split", [x], parts, name=name, axis=dim, **count))
    return parts


MODULES: dict[type[nn.Module], Callable[[Graph, str, Any, str], str]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.ReLU6: _relu6,
    nn.ReLU: lambda graph, name, layer, x: graph.add("Relu", [x], name),
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: lambda graph, name, layer, x: graph.add("GlobalAveragePool", [x], name),
    nn.AdaptiveMaxPool2d: lambda graph, name, layer, x: graph.add("GlobalMaxPool", [x], name),
    nn.Flatten: lambda graph, name, layer, x: graph.add("Flatten", [x], name),
    nn.Identity: lambda graph, name, layer, x: x,
    ChannelShuffle: _shuffle,
    Preprocess: _preprocess,
}
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    operator.add: lambda graph, name, a, b: graph.add("Add", [a, b], name),
    operator.getitem: lambda graph, name, parts, i: parts[i],
    torch.cat: _concat,
    torch.chunk: _chunk,
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
        network: a network of layers in `MODULES`.
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
        network: a network of layers in `MODULES`.
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
    graph = Graph(opset)
    values: dict[fx.Node, Any] = {}
    layers = dict(network.named_modules())
    for node in operations(network, MODULES):
        if node.op == "placeholder":
            values[node] = INPUT
        elif node.op == "output":
            graph.add("Identity", [values[node.args[0]]], OUTPUT)
        else:
            values[node] = _convert(graph, node, layers, fx.map_arg(node.args, values.__getitem__))
    dims = dynamic_dims(images.shape, dynamic_size)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "igcv",
            [helper.make_tensor_value_info(INPUT, ELEMENT_TYPES[images.dtype], dims)],
            [
                helper.make_tensor_value_info(
                    OUTPUT, ELEMENT_TYPES[next(network.parameters()).dtype], ["batch", None]
                )
            ],
            [*graph.constants.values()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=min(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]), onnx.IR_VERSION),
        producer_name="igcv",
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def _convert(graph: Graph, node: fx.Node, layers: Mapping[str, nn.Module], inputs: Any) -> Any:
    """Add the nodes of one traced operation, and return its output."""
    if node.op == "call_module":
        layer = layers[str(node.target)]
        if type(layer) in MODULES:
            name = str(node.target) if node.name == str(node.target).replace(".", "_") else node.name
            return MODULES[type(layer)](graph, name, layer, *inputs)
    elif node.op == "call_function" and node.target in FUNCTIONS:
        return FUNCTIONS[node.target](graph, node.name, *inputs)
    raise InputError(
        f"igcv cannot convert '{node.target}' ({node.op}) to ONNX. Use global_pool='avg' or 'max'."
    )


def dynamic_dims(shape: Sequence[int], dynamic_size: bool) -> list[int | str]:
    """Return the dimensions of the input: a size, or a name if dynamic."""
    dims: list[int | str] = ["batch", *shape[1:]]
    if dynamic_size:
        for i, name in zip((1, 2) if shape[-1] == 3 else (2, 3), ("height", "width"), strict=True):
            dims[i] = name
    return dims
