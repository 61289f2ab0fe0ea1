"""Analysis of networks without training: cost and connectivity."""

from typing import TYPE_CHECKING

from igcv.analysis.cost import Cost, model_cost, network_cost
from igcv.analysis.patterns import (
    Balance,
    BlockPattern,
    Connectivity,
    ConvFactor,
    Factor,
    Permutation,
    balance,
    blocks,
    connectivity,
    describe,
    path_counts,
)
from igcv.analysis.summary import StageRow, summarize
from igcv.renamed import old_names

__all__ = [
    "Balance",
    "BlockPattern",
    "Connectivity",
    "ConvFactor",
    "Cost",
    "Factor",
    "Permutation",
    "StageRow",
    "balance",
    "blocks",
    "connectivity",
    "describe",
    "model_cost",
    "network_cost",
    "path_counts",
    "summarize",
]

if not TYPE_CHECKING:  # type checkers reject the old names
    __getattr__ = old_names(__name__)
