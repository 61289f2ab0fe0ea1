"""Plans, which give the form of each block, and the folded network of a plan."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from math import lcm
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from igcv.deploy.folding.forms import FORMS, LITERAL
from igcv.deploy.folding.interleaved import Interleaved, Residual
from igcv.deploy.folding.inverted import Inverted, stream_layout
from igcv.deploy.folding.layers import folded_layers
from igcv.deploy.folding.network import FoldedNetwork
from igcv.errors import InputError, unknown
from igcv.models import InterleavedConv, InterleavedResidual, InvertedResidual, Network
from igcv.models.dilation import is_dilated

AUTO = "auto"


class Plan(NamedTuple):
    """Forms of the blocks of a folded network.

    Attributes:
        forms: the form of each block, by the name of the block in the trained network.
        vector_width: each group of the channels between blocks, and of the expanded channels, is padded with zeros to
            a multiple of this width. Engines that store channels in blocks of 8 or 16 are fast only on such groups.
    """

    forms: dict[str, str]
    vector_width: int = 1


class Foldable(Protocol):
    """Block with folded batch norms, which builds any of its forms."""

    @property
    def forms(self) -> tuple[str, ...]:
        """Names of the forms; the first form replaces any form that the block does not have."""
        ...

    @property
    def widths(self) -> tuple[int, int]:
        """Number of input and output channels."""
        ...

    @property
    def groups(self) -> tuple[int, int]:
        """Numbers of groups in which the block can read and write the stream."""
        ...

    def build(self, name: str, layouts: tuple[Tensor, Tensor], vector_width: int) -> nn.Module:
        """Return the block in a form, with float64 weights; `layouts` of the stream before and after the block."""
        ...


FOLDABLE: dict[type[nn.Module], Callable[[Any], Foldable]] = {
    InterleavedConv: Interleaved.of,
    InterleavedResidual: Residual.of,
    InvertedResidual: Inverted.of,
}


def foldable_blocks(model: nn.Module) -> dict[str, Foldable]:
    """Return the foldable blocks of a network, by name.

    Raises:
        InputError: if `model` is not a network of igcv, is already folded, or has dilated convolutions.
    """
    if isinstance(model, FoldedNetwork):
        raise InputError("the network is already folded. Give the trained network (igcv.load(...).model).")
    if not isinstance(model, Network):
        raise InputError(
            f"model: got {type(model).__name__}, expected a network of igcv (igcv.create_model, igcv.load(...).model)"
        )
    if is_dilated(model):
        raise InputError(
            "model: got a network with dilated convolutions, expected one built without output_stride"
        )
    stages: Any = model.stages
    return {
        f"stages.{i}.{j}": FOLDABLE[type(block)](block)
        for i, stage in enumerate(stages)
        for j, block in enumerate(stage)
    }


def fixed_plan(blocks: Mapping[str, Foldable], form: str | Mapping[str, str], vector_width: int) -> Plan:
    """Return the plan of one form for all blocks, or of forms by block name."""
    known = (AUTO, LITERAL, *FORMS)
    wanted = dict.fromkeys(blocks, form) if isinstance(form, str) else dict(form)
    for name, value in wanted.items():
        if name not in blocks:
            raise unknown("block", name, blocks)
        if value not in known or (value == AUTO and not isinstance(form, str)):
            raise unknown("form", str(value), known)
    chosen = {name: wanted.get(name, "dense") for name in blocks}
    chosen = {n: f if f in blocks[n].forms else blocks[n].forms[0] for n, f in chosen.items()}
    grouped = stream_groups(blocks) > 1
    if vector_width < 1 or (vector_width > 1 and grouped and LITERAL in chosen.values()):
        raise InputError(
            f"vector_width: got {vector_width}, expected an integer >= 1, and 1 for the form 'literal'"
        )
    return Plan(chosen, vector_width if grouped else 1)  # nothing to pad without groups


def folded_network(model: Network, blocks: Mapping[str, Foldable], plan: Plan) -> FoldedNetwork:
    """Return the folded network of a plan, with the device and precision of `model`."""
    layout = partial(stream_layout, groups=stream_groups(blocks), vector_width=plan.vector_width)
    layouts = {name: (layout(block.widths[0]), layout(block.widths[1])) for name, block in blocks.items()}
    built = [
        block.build(plan.forms[name], layouts[name], plan.vector_width) for name, block in blocks.items()
    ]
    first, *_, last = layouts.values()
    parameter = next(model.parameters())
    return FoldedNetwork(
        folded_layers(model.stem, write=first[0]),
        built,
        folded_layers(model.head, read=last[1]),
        deepcopy(model.global_pool),
        deepcopy(model.classifier),
        forms=plan.forms,
        vector_width=plan.vector_width,
    ).to(parameter.device, parameter.dtype)


def stream_groups(blocks: Mapping[str, Foldable]) -> int:
    """Return the number of groups of the stream: a multiple of the groups of every block."""
    counts = [count for block in blocks.values() for count in block.groups]
    return lcm(*counts)
