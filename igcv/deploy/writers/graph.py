"""The folded network as a graph of operations, which every writer converts with a table of its own.

Each operation has one of the kinds in `KINDS`. A new operation is a row there and a row in the table of each writer.
"""

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from igcv.deploy.folding.network import ChannelShuffle, Preprocess
from igcv.engines.session import INPUT, OUTPUT
from igcv.errors import InputError

KINDS: dict[Any, str] = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.ReLU6: "relu6",
    nn.ReLU: "relu",
    nn.MaxPool2d: "max_pool",
    nn.AdaptiveAvgPool2d: "global_mean",
    nn.AdaptiveMaxPool2d: "global_max",
    nn.Flatten: "flatten",
    nn.Identity: "identity",
    ChannelShuffle: "shuffle",
    Preprocess: "preprocess",
    operator.add: "add",
    torch.cat: "concat",
    torch.chunk: "split",
}
ACTIVATIONS = ("relu", "relu6")


class FormError(InputError):
    """A form of the blocks that a format cannot represent, or not well."""


@dataclass(frozen=True)
class Operation:
    """One step of a graph.

    Attributes:
        kind: a value of `KINDS`.
        name: unique name, the name of the layer in the folded network where it runs once.
        inputs: names of the values that the operation reads.
        outputs: names of the values that it writes: one, for "split" one per part.
        layer: the layer with its weights and settings; None for "add", "concat" and "split".
        activation: activation of the output, "relu" or "relu6" (see `fused`); empty for none.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: Any = None
    activation: str = ""


@dataclass(frozen=True)
class Graph:
    """Operations in execution order.

    Attributes:
        operations: the operations. The first reads `INPUT`, and the result is `OUTPUT`.
        shapes: shape of each value for the example input, as PyTorch has it: (N, C, H, W) or (N, C).
    """

    operations: list[Operation]
    shapes: dict[str, tuple[int, ...]]


class _Tracer(fx.Tracer):
    """Tracer that records the layers in `KINDS` as single operations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in KINDS or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Interpreter that records the shape of every value."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.shapes: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))]
        return result


def graph_of(network: nn.Module, example: Tensor) -> Graph:
    """Return the graph of a network. torch.fx traces the network, and one run on the example gives the shapes.

    Args:
        network: a folded network, or a part of one that takes images.
        example: an input, on the CPU.

    Raises:
        InputError: if the network has an operation that is not in `KINDS`.
    """
    traced = fx.GraphModule(network, _Tracer().trace(network))
    interpreter = _Shapes(traced)
    with torch.inference_mode():
        interpreter.run(example)
    layers = dict(network.named_modules())
    values: dict[fx.Node, Any] = {}  # the name of each value, or the names of its parts
    shapes: dict[str, tuple[int, ...]] = {}
    found: list[Operation] = []
    for node in traced.graph.nodes:
        if node.op == "output":
            return _with_output(Graph(found, shapes), values[node.args[0]])
        if node.op == "placeholder":
            names: tuple[str, ...] = (INPUT,)
        elif node.target is operator.getitem:
            names = (values[node.args[0]][node.args[1]],)
        else:
            operation = _operation(node, layers, values, len(interpreter.shapes[node]))
            names = operation.inputs if operation.kind == "identity" else operation.outputs
            found += [operation] if operation.kind != "identity" else []
        values[node] = names[0] if len(names) == 1 else names
        shapes.update(zip(names, interpreter.shapes[node], strict=True))
    raise AssertionError("torch.fx ends every graph with an output")


def _with_output(graph: Graph, name: str) -> Graph:
    """Return a graph in which the value `name` is called `OUTPUT`."""

    def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(OUTPUT if each == name else each for each in names)

    operations = [replace(o, inputs=renamed(o.inputs), outputs=renamed(o.outputs)) for o in graph.operations]
    return Graph(operations, {OUTPUT if each == name else each: s for each, s in graph.shapes.items()})


def _operation(
    node: fx.Node, layers: Mapping[str, nn.Module], values: Mapping[fx.Node, Any], parts: int
) -> Operation:
    """Return the operation of a traced node."""
    target = getattr(node.target, "__name__", str(node.target))
    layer = layers[target] if node.op == "call_module" else None
    kind = KINDS.get(type(layer) if layer is not None else node.target)
    if kind is None:
        raise InputError(
            f"cannot export the operation '{target}'. Use a network with global_pool='avg' or 'max'."
        )
    name = target if node.name == target.replace(".", "_") else node.name
    inputs: list[str] = []
    fx.map_arg(node.args, lambda read: inputs.append(values[read]))
    outputs = (name,) if kind != "split" else tuple(f"{name}.{i}" for i in range(parts))
    return Operation(kind, name, tuple(inputs), outputs, layer)


def fused(graph: Graph, kinds: Collection[str]) -> Graph:
    """Return a graph in which activations are part of the operations before them.

    Args:
        graph: the graph.
        kinds: kinds of operations that can have an activation.
    """
    readers: dict[str, int] = {OUTPUT: 1}
    for operation in graph.operations:
        for name in operation.inputs:
            readers[name] = readers.get(name, 0) + 1
    found: list[Operation] = []
    writers: dict[str, int] = {}
    for operation in graph.operations:
        at = writers.get(operation.inputs[0])
        if operation.kind in ACTIVATIONS and at is not None and readers[operation.inputs[0]] == 1:
            found[at] = replace(found[at], outputs=operation.outputs, activation=operation.kind)
            continue
        if operation.kind in kinds:
            writers[operation.outputs[0]] = len(found)
        found.append(operation)
    return replace(graph, operations=found)


Convert = Callable[[Any, Operation], None]
"""A row of a writer's table: it adds an operation to the file that the writer builds."""


def convert(builder: Any, graph: Graph, table: Mapping[str, Convert], format: str) -> None:
    """Convert every operation of a graph with the table of a writer.

    Raises:
        FormError: if the format has no equivalent of an operation.
    """
    for operation in graph.operations:
        if operation.kind not in table:
            raise FormError(
                f"the format '{format}' has no '{operation.kind}' ({operation.name}). Choose another form or format."
            )
        table[operation.kind](builder, operation)
