"""A folded network as a list of operations: what every writer with a table of operations starts from."""

from collections.abc import Container
from typing import Any

from torch import fx, nn


class _Tracer(fx.Tracer):
    """Stops at the layers in a table."""

    def __init__(self, layers: Container[type[nn.Module]]) -> None:
        super().__init__()
        self.layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.layers or super().is_leaf_module(m, module_qualified_name)


def operations(network: nn.Module, layers: Container[type[nn.Module]]) -> list[Any]:
    """Return the operations of a network in the order in which they run, as nodes of torch.fx.

    The network is traced, not run, which takes milliseconds.

    Args:
        network: a folded network, or a part of one that takes images.
        layers: the types of layers that are one operation each.
    """
    return list(_Tracer(layers).trace(network).nodes)
