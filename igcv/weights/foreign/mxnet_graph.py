"""Check of an MXNet graph file against the network of its weights."""

import ast
import math
from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from igcv.errors import InputError
from igcv.models import (
    InterleavedConv,
    InterleavedResidual,
    InvertedResidual,
)
from igcv.weights.foreign import names as mxnet_names
from igcv.weights.foreign.mxnet_files import Node, read_symbol
from igcv.weights.foreign.names import check_same_names, names_of

LAYERS: dict[str, Any] = {"Convolution": nn.Conv2d, "BatchNorm": nn.BatchNorm2d, "FullyConnected": nn.Linear}


def check_graph(symbol: str | Path, model: nn.Module, naming: str) -> None:
    """Check that a graph file matches a network.

    The check compares the names of the weights, the settings of every layer, and the numbers of activations, additions
    and permutations. It ignores the connections between the nodes.

    Args:
        symbol: the graph file.
        model: the network.
        naming: a key of `igcv.weights.foreign.names.NAMINGS`.

    Raises:
        InputError: at the first difference.
    """
    nodes = read_symbol(symbol)
    variables = {node.name for node in nodes if node.op == "null"} - {"data", "softmax_label"}
    check_same_names(f"the graph {symbol}", names_of(model, naming), variables)
    for node in nodes:
        for key, (expected, default) in _settings(node, nodes, model, naming).items():
            found = node.attrs.get(key, default)
            if not _same(found, expected):
                hint = ", or the strides of the training" if key == "stride" else ""
                where = f"{symbol}: {key} of the node {node.name}: got {found or 'nothing'}"
                raise InputError(f"{where}, expected {expected}. Give the graph of these weights{hint}.")
    given = Counter(node.op for node in nodes)
    for operation, count in _operations(model).items():
        if given[operation] != count:
            raise InputError(
                f"{symbol}: number of {operation} nodes: got {given[operation]}, expected {count}"
            )


def _settings(node: Node, nodes: list[Node], model: nn.Module, naming: str) -> dict[str, tuple[Any, str]]:
    """Return the expected settings of a node, each with the default of MXNet."""
    if node.op == "clip":
        return {"a_min": (0, ""), "a_max": (6, "")}
    if node.op == "Activation":
        return {"act_type": ("relu", "")}
    if node.op not in LAYERS:
        return {}
    weight = nodes[node.inputs[1]].name if len(node.inputs) > 1 else "(no weight)"
    layer: Any = dict(model.named_modules()).get(mxnet_names.to_igcv(weight, naming).rpartition(".")[0])
    if not isinstance(layer, LAYERS[node.op]):
        raise InputError(
            f"node {node.name} of the graph: the network has no {node.op} with the weight {weight}"
        )
    if node.op == "FullyConnected":
        return {"num_hidden": (layer.out_features, "")}
    if node.op == "BatchNorm":  # with fix_gamma, MXNet sets all gammas to 1
        return {"eps": (layer.eps, "0.001"), "fix_gamma": (False, "True")}
    return {
        "num_filter": (layer.out_channels, ""),
        "num_group": (layer.groups, "1"),
        "kernel": (layer.kernel_size, ""),
        "stride": (layer.stride, "(1, 1)"),
        "pad": (layer.padding, "(0, 0)"),
    }


def _same(text: str, expected: Any) -> bool:
    """Return whether the text of a setting equals a value; the eps of a batch norm may be a rounded float32."""
    if isinstance(expected, str):
        return text == expected
    try:
        value = ast.literal_eval(text)
        return value == expected or math.isclose(value, expected, rel_tol=1e-6)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _operations(model: nn.Module) -> Counter[str]:
    """Return the number of MXNet nodes of a network for each operation without weights."""
    counts = Counter({"SwapAxis": 0, "elemwise_add": 0, "clip": 0, "Activation": 0})
    for module in model.modules():
        counts["clip"] += isinstance(module, nn.ReLU6)
        counts["Activation"] += isinstance(module, nn.ReLU)
        if isinstance(module, InvertedResidual):
            counts["SwapAxis"] += module.groups > 1
            counts["elemwise_add"] += module.shortcut
        elif isinstance(module, InterleavedConv):
            counts["SwapAxis"] += len(module.convs)
        elif isinstance(module, InterleavedResidual):
            counts.update(("elemwise_add", "Activation"))
    return counts
