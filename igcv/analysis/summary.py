"""Summary of a network by stage: cost and connectivity."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from igcv.analysis.cost import multiply_adds, output_shapes, weighted_layers
from igcv.analysis.patterns import Balance, BlockPattern, Connectivity, balance, blocks, connectivity
from igcv.models import Network

BYTES = 4  # per float32 value


class StageRow(NamedTuple):
    """Part of a network, for one image: the stem, a stage, the head or the classifier.

    Attributes:
        name: name of the module, such as "stages.2".
        blocks: number of blocks; 0 outside the stages.
        out_channels: number of output channels.
        output_size: side of the output in pixels; 1 for the classifier.
        parameters, multiply_adds: as in `Cost`. The sums over all rows are the totals of the network.
        activation_bytes: total size of the float32 outputs of all convolutions and linear layers. Batch norms and
            activations do not count because they can work in place.
        condition: "complementary" or "loose" (see `BlockPattern`); None outside the stages.
        connectivity: minimum and maximum number of paths over all blocks, and whether every block meets its condition.
        balance: the balance of the IGCV2 block with the largest excess; None in other families.
    """

    name: str
    blocks: int
    out_channels: int
    output_size: int
    parameters: int
    multiply_adds: int
    activation_bytes: int
    condition: str | None = None
    connectivity: Connectivity | None = None
    balance: Balance | None = None


def summarize(network: Network, input_size: int) -> list[StageRow]:
    """Return the summary of a network, one row per part.

    Args:
        network: the network, on any device, including "meta".
        input_size: side of the square images, in pixels.
    """
    layers = weighted_layers(network)
    first = next(iter(layers.values()))
    assert isinstance(first, nn.Conv2d)
    images = torch.zeros(1, first.in_channels, input_size, input_size).to(first.weight)
    calls = output_shapes(network, images, {**layers, **_parts(network)})
    shapes = dict(calls)
    described = blocks(network)
    rows = []
    for name, part in _parts(network).items():
        shape = shapes[name]
        used = [(layers[n], s) for n, s in calls if n in layers and f"{n}.".startswith(f"{name}.")]
        inside = [b for b in described if b.name.startswith(f"{name}.")]
        row = StageRow(
            name=name,
            blocks=len(list(part.children())) if inside else 0,
            out_channels=shape[1],
            output_size=shape[-1] if len(shape) == 4 else 1,
            parameters=sum(p.numel() for p in part.parameters()),
            multiply_adds=sum(multiply_adds(layer, s) for layer, s in used),
            activation_bytes=BYTES * sum(s.numel() for _, s in used),
        )
        rows.append(_connected(row, inside))
    return rows


def _parts(network: Network) -> dict[str, nn.Module]:
    """Return the parts of a network with parameters, in order, by module name."""
    stages = {f"stages.{name}": stage for name, stage in network.stages.named_children()}
    parts = {"stem": network.stem, **stages, "head": network.head, "classifier": network.classifier}
    return {name: part for name, part in parts.items() if any(True for _ in part.parameters())}


def _connected(row: StageRow, stage_blocks: Sequence[BlockPattern]) -> StageRow:
    """Return `row` with the condition, connectivity and balance of its blocks."""
    if not stage_blocks:
        return row
    found = [connectivity(block) for block in stage_blocks]
    merged = Connectivity(
        min(c.paths_min for c in found),
        max(c.paths_max for c in found),
        all(c.holds for c in found),
        next((c.cut_off for c in found if c.cut_off), ()),
    )
    balances = [b for b in map(balance, stage_blocks) if b is not None]
    return row._replace(
        condition=stage_blocks[0].condition,
        connectivity=merged,
        balance=max(balances, key=lambda b: b.excess, default=None),
    )
