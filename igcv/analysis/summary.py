"""A network stage by stage: what each costs and how its blocks connect their channels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from igcv.analysis.cost import multiply_adds, output_shapes, weighted_layers
from igcv.analysis.patterns import Balance, BlockPattern, Connectivity, balance, blocks, connectivity
from igcv.models import Network

BYTES = 4  # of a float32


class StageRow(NamedTuple):
    """One part of a network, for one image: the stem, a stage, the head or the classifier.

    Attributes:
        name: of the module, such as "stages.2".
        blocks: number of blocks; 0 for the parts that are no stage.
        out_channels, output_size: of its result; the size in pixels a side, 1 for the classifier.
        parameters, multiply_adds: as in `Cost`; over all rows they add up to the network's.
        activation_bytes: the outputs of all convolutions and linear layers in float32, each counted once: the norm
            and the activation after a convolution are taken to work in place.
        condition: "complementary" or "loose" (see `BlockPattern`); None for the parts that are no stage.
        connectivity: fewest and most paths over all its blocks, and whether every block meets the condition.
        balance: of the IGCV2 block that exceeds the optimum most; None in other families.
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
    """Describe a network part by part.

    Args:
        network: on any device; on the meta device nothing is computed but shapes.
        input_size: side in pixels of the square images.
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
    """The parts of a network that hold parameters, in order, by the names of their modules."""
    stages = {f"stages.{name}": stage for name, stage in network.stages.named_children()}
    parts = {"stem": network.stem, **stages, "head": network.head, "classifier": network.classifier}
    return {name: part for name, part in parts.items() if any(True for _ in part.parameters())}


def _connected(row: StageRow, stage_blocks: Sequence[BlockPattern]) -> StageRow:
    """`row` with what its blocks have in common."""
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
