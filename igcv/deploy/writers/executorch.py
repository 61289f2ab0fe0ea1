"""ExecuTorch writer (.pte): torch.export, then the XNNPACK delegate of the package executorch.

XNNPACK leaves some operations to slower kernels, which also split the delegate. A table of operations therefore builds
the network again from the operations that XNNPACK takes, and the writer refuses a network that is not one delegate.
"""

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from igcv.deploy.folding.network import FoldedNetwork
from igcv.deploy.writers.graph import Convert, FormError, Graph, Operation, convert, graph_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.executorch import imported
from igcv.engines.session import INPUT, OUTPUT
from igcv.silence import silent

MOST_JOINED = 5  # tensors that XNNPACK concatenates at once

Values = dict[str, Tensor]  # by their names in the graph


def _layer(values: Values, op: Operation) -> None:
    values[op.outputs[0]] = op.layer(values[op.inputs[0]])


def _add(values: Values, op: Operation) -> None:
    first, second = (values[name] for name in op.inputs)
    values[op.outputs[0]] = first + second


def _concat(values: Values, op: Operation) -> None:
    values[op.outputs[0]] = _joined([values[name] for name in op.inputs])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors concatenated along the channels, at most `MOST_JOINED` at once."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) <= MOST_JOINED:
        return torch.cat([*parts], 1)
    rows = [parts[i : i + MOST_JOINED] for i in range(0, len(parts), MOST_JOINED)]
    return _joined([_joined(row) for row in rows])


def _split(values: Values, op: Operation) -> None:
    whole = values[op.inputs[0]]
    size = whole.shape[1] // len(op.outputs)
    for i, name in enumerate(op.outputs):  # XNNPACK takes slices, but not torch.chunk
        values[name] = whole[:, i * size : (i + 1) * size]


LAYERS = ("conv", "linear", "relu6", "relu", "max_pool", "global_mean", "global_max", "flatten", "shuffle")
OPERATIONS: dict[str, Convert] = {
    **dict.fromkeys(LAYERS, _layer),
    "add": _add,
    "concat": _concat,
    "split": _split,
}


class Built(nn.Module):
    """A graph as a module of the operations in `OPERATIONS`: images (N, 3, S, S) -> logits (N, num_classes)."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList(op.layer for op in graph.operations if op.layer is not None)

    def forward(self, images: Tensor) -> Tensor:
        values = {INPUT: images}
        convert(values, self.graph, OPERATIONS, "executorch")
        return values[OUTPUT]


def write_executorch(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as an ExecuTorch file.

    Args:
        network: a network of operations in `OPERATIONS`; it is not changed.
        example: an input of as many images as the file takes at once.
        path: the file to write.
        settings: the export settings.
        metadata: texts by name; each becomes a constant method that returns its text.

    Raises:
        FormError: if XNNPACK does not take the whole network as one delegate.
    """
    # XNNPACK only takes weights and images in the contiguous memory format.
    plain = deepcopy(network).to(memory_format=torch.contiguous_format)
    images = example.clone(memory_format=torch.contiguous_format)
    built = Built(graph_of(plain, images)).eval()
    exir, partition = imported("exir"), imported("backends.xnnpack.partition.xnnpack_partitioner")
    with silent():
        lowered = exir.to_edge_transform_and_lower(
            torch.export.export(built, (images,)),
            partitioner=[partition.XnnpackPartitioner()],
            constant_methods=dict(metadata),
        )
        _check_one_delegate(lowered.exported_program().graph_module.graph, network)
        path.write_bytes(lowered.to_executorch().buffer)


def _check_one_delegate(graph: torch.fx.Graph, network: nn.Module) -> None:
    """Raise FormError unless a lowered graph is one delegate, without operations outside it."""
    calls = [node.target for node in graph.nodes if node.op == "call_function"]
    counts = Counter(getattr(target, "__name__", str(target)) for target in calls)
    delegates, outputs = counts.pop("executorch_call_delegate", 0), operator.getitem.__name__
    outside = counts.total() - counts[outputs]
    if delegates == 1 and not outside:
        return
    forms = sorted(set(network.forms.values())) if isinstance(network, FoldedNetwork) else []
    what = f"the form '{', '.join(forms)}'" if forms else "this network"
    raise FormError(
        f"{what} is slow in ExecuTorch: {delegates} XNNPACK delegates and {outside} operations outside them, "
        "expected one delegate. Choose another form."
    )
