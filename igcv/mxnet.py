"""MXNet's checkpoints of IGCV1, IGCV3 and MobileNetV2 as classifiers, and the way back."""

import ast
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igcv.classifier import Classifier, fill, load
from igcv.data import MXNET
from igcv.errors import InputError, differences
from igcv.models import (
    InterleavedConv,
    InterleavedResidual,
    InvertedResidual,
    create_model,
    default_input_size,
    list_models,
)
from igcv.models.igcv3 import TABLES
from igcv.models.inverted import Stage
from igcv.models.mobilenetv2 import TABLE as MOBILENETV2
from igcv.weights import Card, mxnet_names
from igcv.weights.mxnet import Node, read_params, read_symbol, write_params

Shapes = dict[str, tuple[int, ...]]

LAYERS: dict[str, Any] = {"Convolution": nn.Conv2d, "BatchNorm": nn.BatchNorm2d, "FullyConnected": nn.Linear}
PERCENTS = sorted(range(5, 401), key=lambda percent: (abs(percent - 5 * round(percent / 5)), percent))


@dataclass(frozen=True)
class Recognised:
    """The network that a checkpoint belongs to.

    Attributes:
        model: its catalog name, width multiplier included.
        num_classes: outputs of the classifier.
        original_widths: whether it is a form of the IGCV3 authors' code ("_mxnet" at the end of the name).
    """

    model: str
    num_classes: int
    original_widths: bool


def recognise(shapes: Shapes) -> Recognised:
    """Find the network from the names and shapes of its tensors.

    The number of groups of a convolution follows from its weight, (out_channels, in_channels / groups, h, w).
    Of several width multipliers with the same widths the one nearest to a multiple of 0.05 is taken.

    Args:
        shapes: by MXNet's names, without "arg:" and "aux:". Names that no network has are passed over, and
            some may be missing: `from_mxnet` lists both.

    Raises:
        InputError: if they are of no network in the catalog; one that comes near is named.
    """
    form = mxnet_names.form_of(shapes)
    ours = {mxnet_names.to_igcv(n, form): shape for n, shape in shapes.items() if mxnet_names.knows(n, form)}
    num_classes = _shape(ours, form, "classifier.weight", 2)[0]
    nearest = ""
    for name in _seq_names(ours) if form == "seq" else [_igcv1_name(ours, form)]:
        conflict = _conflict(name, num_classes, ours, form)
        if not conflict:
            return Recognised(name, num_classes, name.endswith("_mxnet"))
        nearest = nearest or f"; not {name}: {conflict}"
    raise InputError(f"the tensors are of no network that igcv can build{nearest}")


def from_mxnet(
    params: str | Path,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
) -> Classifier:
    """Convert a checkpoint of MXNet.

    Args:
        params: the `-0000.params` file; float16 and float64 weights become float32.
        symbol: the `-symbol.json` file, to check its layers against the network's (see `check_graph`).
        input_size: side in pixels of the images that the network was trained on; None: 224, for CIFAR networks 32.
        strides: total stride of the stem, then the stride of each stage; None: those of the catalog for
            `input_size`. Weights do not tell their strides, and others' networks for small images may have others.

    Raises:
        InputError: if a file cannot be read, its tensors belong to no network in the catalog, or some are
            missing or left over (both are listed).
    """
    path = Path(params)
    arrays = _without_prefix(path, read_params(path))
    found = recognise({name: array.shape for name, array in arrays.items()})
    size = input_size or default_input_size(found.model)
    with torch.device("meta"):
        model = create_model(found.model, found.num_classes, input_size=size, strides=strides)
    form = mxnet_names.form_of(arrays)
    _compare(str(path), _names(model, form), arrays)
    if symbol is not None:
        check_graph(symbol, model, form)
    tensors = {name: torch.tensor(0) for name in model.state_dict() if name.endswith("num_batches_tracked")}
    for name, array in arrays.items():
        tensors[mxnet_names.to_igcv(name, form)] = torch.from_numpy(array.astype(np.float32))
    fill(model, tensors, str(path))
    return Classifier(model.eval(), _card(path, found, size, model.strides))


def to_mxnet(weights: str | Path, out: str | Path) -> None:
    """Write weights of igcv as a `.params` file, in the order in which MXNet saves a checkpoint.

    Args:
        weights: a run folder or a .safetensors file written by igcv.
        out: the file to write.

    Raises:
        InputError: if the weights cannot be read, or their network has no form in MXNet (IGCV2).
    """
    trained = load(weights)
    name = trained.card.model
    if name.startswith("igcv2"):
        raise InputError(f"{weights} holds {name}; only IGCV1, IGCV3 and MobileNetV2 have names in MXNet")
    tensors = trained.model.state_dict()
    form = mxnet_names.form_of(tensors)
    arrays = {
        mxnet_names.prefixed(mxnet_names.to_mxnet(name, form)): tensors[name].numpy()
        for name in mxnet_names.graph_order(tensors)
    }
    write_params(out, dict(sorted(arrays.items(), key=lambda entry: entry[0].startswith("aux:"))))


def check_graph(symbol: str | Path, model: nn.Module, form: str) -> None:
    """Check that a graph file belongs to a network.

    Compared are the names of the weights, the settings of every layer, and how many activations, additions
    and permutations there are; not how they are wired. `form` is that of the names (see mxnet_names).

    Raises:
        InputError: naming the first node that disagrees.
    """
    nodes = read_symbol(symbol)
    variables = {node.name for node in nodes if node.op == "null"} - {"data", "softmax_label"}
    _compare(f"the graph {symbol}", _names(model, form), variables)
    for node in nodes:
        for key, (expected, default) in _settings(node, nodes, model, form).items():
            found = node.attrs.get(key, default)
            if not _same(found, expected):
                hint = ", or the strides that it was trained with" if key == "stride" else ""
                where = f"{symbol}: {key} of the node {node.name} is {found or 'missing'}"
                raise InputError(f"{where}, in the network {expected}; give the graph of these weights{hint}")
    given = Counter(node.op for node in nodes)
    for operation, count in _operations(model).items():
        if given[operation] != count:
            raise InputError(f"{symbol} has {given[operation]} nodes of {operation}, but its network {count}")


def _settings(node: Node, nodes: list[Node], model: nn.Module, form: str) -> dict[str, tuple[Any, str]]:
    """What the settings of a node should be, each with MXNet's default."""
    if node.op == "clip":
        return {"a_min": (0, ""), "a_max": (6, "")}
    if node.op == "Activation":
        return {"act_type": ("relu", "")}
    if node.op not in LAYERS:
        return {}
    weight = nodes[node.inputs[1]].name if len(node.inputs) > 1 else "(no weight)"
    layer: Any = dict(model.named_modules()).get(mxnet_names.to_igcv(weight, form).rpartition(".")[0])
    if not isinstance(layer, LAYERS[node.op]):
        raise InputError(f"the network has no {node.op} with the weight {weight} as the graph's {node.name}")
    if node.op == "FullyConnected":
        return {"num_hidden": (layer.out_features, "")}
    if node.op == "BatchNorm":  # with fix_gamma MXNet takes all gammas for 1
        return {"eps": (layer.eps, "0.001"), "fix_gamma": (False, "True")}
    return {
        "num_filter": (layer.out_channels, ""),
        "num_group": (layer.groups, "1"),
        "kernel": (layer.kernel_size, ""),
        "stride": (layer.stride, "(1, 1)"),
        "pad": (layer.padding, "(0, 0)"),
    }


def _same(text: str, expected: Any) -> bool:
    """Whether the text of a setting stands for a value; a batch norm's eps may be a rounded float32."""
    if isinstance(expected, str):
        return text == expected
    try:
        value = ast.literal_eval(text)
        return value == expected or math.isclose(value, expected, rel_tol=1e-6)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _operations(model: nn.Module) -> Counter[str]:
    """How many nodes of the operations without weights a network has in MXNet."""
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


def _card(path: Path, found: Recognised, size: int, strides: tuple[int, ...]) -> Card:
    images = replace(MXNET, input_size=size, crop=1.0 if size <= 32 else MXNET.crop).to_dict()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"file": path.name, "sha256": digest, "format": "mxnet"}
    return Card(
        model=found.model,
        num_classes=found.num_classes,
        input_size=size,
        strides=strides,
        preprocessing=images,
        source=source,
    )


def _without_prefix(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for key, array in arrays.items():
        if key != mxnet_names.prefixed(key[4:]):
            expected = "expected arg:NAME for weights, aux:NAME for moving averages"
            raise InputError(f"{path} has an entry '{key}'; {expected}")
        if array.dtype.kind != "f":
            raise InputError(f"{path}: {key} holds {array.dtype}; expected float16, float32 or float64")
    return {key[4:]: array for key, array in arrays.items()}


def _names(model: nn.Module, form: str) -> list[str]:
    """MXNet's names of a network's tensors."""
    return [mxnet_names.to_mxnet(name, form) for name in mxnet_names.graph_order(model.state_dict())]


def _compare(where: str, expected: Iterable[str], given: Iterable[str]) -> None:
    """Raise InputError unless the names are the same; those on one side only are listed."""
    missing, surplus = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if difference := differences({"missing": missing, "left over": surplus}, 12):
        raise InputError(f"{where} has not the names of its network ({difference}); is it complete?")


def _shape(shapes: Shapes, form: str, name: str, ndim: int = 4) -> tuple[int, ...]:
    """The shape of a tensor by which a network is recognised."""
    shape = shapes.get(name, ())
    if len(shape) != ndim or min(shape) < 1:
        found = f"has the shape {shape}" if name in shapes else "is missing"
        name = mxnet_names.to_mxnet(name, form)
        raise InputError(f"{name}, by which networks are told apart, {found}; expected {ndim} dimensions")
    return shape


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """Blocks per stage."""
    blocks = {tuple(map(int, name.split(".")[1:3])) for name in shapes if name.startswith("stages.")}
    counts = Counter(stage for stage, _ in blocks)
    return tuple(counts[stage] for stage in sorted(counts))


def _igcv1_name(shapes: Shapes, form: str) -> str:
    """IGCV1: L and M from the first 3x3 convolution that keeps its width, the depth from the blocks."""
    first = {"plain": "0.0", "ident": "0.0.conv1", "imagenet18": "0.1.conv1"}[form]
    width, secondary, *_ = _shape(shapes, form, f"stages.{first}.convs.0.weight")
    name = f"igcv1_l{max(1, width // secondary)}m{secondary}"
    if form == "imagenet18":
        return f"{name}_imagenet18"
    repeats = _blocks(shapes)[0]
    return f"{name}_d{3 * repeats + 2}" if form == "plain" else f"{name}_d{6 * repeats + 2}_ident"


def _seq_names(shapes: Shapes) -> Iterator[str]:
    """IGCV3 and MobileNetV2: the names at every width multiplier that comes near, the usual widths first."""
    before, last = (_shape(shapes, "seq", f"stages.{i}.0.project.conv.weight")[0] for i in (0, 6))
    expand, project = (
        _shape(shapes, "seq", f"stages.1.0.{part}.conv.weight") for part in ("expand", "project")
    )
    groups = max(1, before // expand[1]), max(1, expand[0] // project[1])
    tables, blocks = _tables(groups), _blocks(shapes)
    counts = {family: tuple(row.n for row in table) for family, table in tables.items()}
    if blocks not in counts.values():
        what = f"{blocks} blocks in its stages and {groups} groups in its pointwise convolutions"
        known = " or ".join(map(str, dict.fromkeys(counts.values())))
        raise InputError(f"igcv has no network of {what}; expected {known} blocks")
    off_by = 8 if groups == (1, 1) else math.lcm(*groups)  # at most, by rounding to multiples
    for suffix in ("", "_mxnet"):
        for family in (family for family in tables if counts[family] == blocks):
            full = tables[family][-1].c  # channels of the last stage at multiplier 1.0
            near = [percent for percent in PERCENTS if abs(full * percent / 100 - last) <= off_by]
            yield from (_listed_name(f"{family}_{percent:03d}") + suffix for percent in near)


def _listed_name(name: str) -> str:
    """Return the name under which the catalog lists a network: igcv3_d_p50 for igcv3_d_p50_100."""
    short = name.removesuffix("_100")
    return short if short in list_models() else name


def _tables(groups: tuple[int, int]) -> dict[str, tuple[Stage, ...]]:
    """Return the tables of the families with such groups in their pointwise convolutions, by name."""
    if groups == (1, 1):
        return {"mobilenetv2": MOBILENETV2}
    if groups == (2, 2):
        return {f"igcv3_{name}": table for name, table in TABLES.items()}
    return {f"igcv3_g{groups[0]}g{groups[1]}": TABLES["d"]}


def _conflict(name: str, num_classes: int, shapes: Shapes, form: str) -> str:
    """Where a network differs from these shapes; empty if it does not."""
    try:
        with torch.device("meta"):
            tensors = create_model(name, num_classes).state_dict()
    except InputError as error:
        return str(error)
    for key, shape in shapes.items():
        expected = tuple(tensors[key].shape) if key in tensors else None
        if shape != expected:
            return f"its {mxnet_names.to_mxnet(key, form)} has the shape {expected}, but {shape} here"
    return ""
