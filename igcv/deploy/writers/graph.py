"""Operations of a folded network, for the writers that convert one operation at a time."""

from collections.abc import Container
from typing import Any

from torch import fx, nn


class _Tracer(fx.Tracer):
    """Tracer that records the layers of a table as single operations."""

    def __init__(self, layers: Container[type[nn.Module]]) -> None:
        super().__init__()
        self.layers = layers

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.layers or super().is_leaf_module(m, module_qualified_name)


def operations(network: nn.Module, layers: Container[type[nn.Module]]) -> list[Any]:
    """Return the operations of a network in execution order, as torch.fx nodes.

    torch.fx traces the network symbolically, which takes milliseconds.

    Args:
        network: a folded network, or a part of one that takes images.
        layers: layer types to record as single operations.
    """
    return list(_Tracer(layers).trace(network).nodes)
