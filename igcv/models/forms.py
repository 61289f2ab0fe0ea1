"""Exact forms of an IGCV3 block: the same parameters, without a permutation at run time.

A block is expand (group 1x1, linear) -> permute -> channel-wise (depthwise) 3x3 -> project (group 1x1). The expanded
channels do not interact between the two pointwise convolutions, so they may be in any order. The permutation only
changes the order of the rows and columns of small matrices. The forms sort the expanded channels by the group of the
projection that reads them, then by the group of the expansion that makes them. Both matrices then consist of dense
blocks. The forms multiply block by block or include the zeros between the blocks:

    form          expansion (E x C)    projection (O x E)    multiply-adds of the two, as multiples of the literal
    dense         written out          written out           G1, G2
    branches      written out          block by block        G1, 1
    sources       block by block       written out           1, G2
    partial_sums  block by block       block by block        1, 1

The IGCV3 paper draws "branches"; "sources" is its mirror image. The fastest form depends on the machine's speed at
multiplying small matrices.

All forms need fewer passes over the expanded activations than the literal layers. The first batch norm follows a
linear map W of few channels. Its variances are diag(W S W^T), where S is the covariance of the block's input, and its
means vanish for centered input. The forms fold this batch norm into W; its backward pass only uses small matrices.

Shapes: N images, C input channels, E expanded channels, O output channels, H x W pixels, P = N * H * W; G1, G2 groups.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.errors import unknown


class Form(NamedTuple):
    """Flags for the two matrices: whether each is multiplied block by block, without its zeros."""

    tiled_expansion: bool
    tiled_projection: bool


FORMS = {
    "dense": Form(False, False),
    "branches": Form(False, True),
    "sources": Form(True, False),
    "partial_sums": Form(True, True),
}


def set_form(network: nn.Module, form: str | Mapping[str, str] = "auto") -> dict[str, str]:
    """Set the form of the blocks of a network. Parameters, checkpoints and results stay the same.

    Args:
        network: any network of the catalog.
        form: "literal", layer by layer; a name in `FORMS`; "auto", the default form of each block on the device of the
            network; or a dictionary of forms by block name. Blocks without the given form use "literal".

    Returns:
        The chosen form of each block with several forms, by block name.

    Raises:
        InputError: if a form is unknown.
    """
    known = ("auto", "literal", *FORMS)
    for wanted in [form] if isinstance(form, str) else form.values():
        if wanted not in known:
            raise unknown("form", str(wanted), known)
    device = next(network.parameters()).device.type
    chosen = {}
    for name, block in blocks_with_forms(network).items():
        wanted = form if isinstance(form, str) else form.get(name, "auto")
        wanted = block.auto_form(device) if wanted == "auto" else wanted
        block.form = chosen[name] = wanted if wanted in block.forms else "literal"
    return chosen


def blocks_with_forms(network: nn.Module) -> dict[str, Any]:
    """Return the blocks of a network with several forms, by name."""
    return {name: module for name, module in network.named_modules() if len(getattr(module, "forms", ())) > 1}


class Tile(NamedTuple):
    """Position of a dense block in a matrix that is zero outside its blocks."""

    rows: slice
    columns: slice


WHOLE = (Tile(slice(None), slice(None)),)  # the whole matrix as one block


class ChannelOrder(NamedTuple):
    """Order of the expanded channels in a form.

    Attributes:
        made: (E,), the rows of the expanding convolution in this order.
        place: (E,), the channels of the channel-wise convolution in this order.
        unmade, unplace: (E,), the inverse permutations of `made` and `place`.
        expansion: blocks of the (E, C) matrix.
        projection: blocks of the (O, E) matrix.
    """

    made: Tensor
    place: Tensor
    unmade: Tensor
    unplace: Tensor
    expansion: tuple[Tile, ...]
    projection: tuple[Tile, ...]


@cache
@torch.inference_mode(False)  # training may use an order that an evaluation has cached
def channel_order(
    form: str, channels: tuple[int, int, int], groups: tuple[int, int], device: torch.device | str = "cpu"
) -> ChannelOrder:
    """Return the order of the channels in a form, and its blocks.

    Args:
        form: a name in `FORMS`.
        channels: C, E, O.
        groups: G1 of the expansion, G2 of the projection; E need not be a multiple of G1 * G2.
        device: device of the index tensors.

    Two groups make the channels 0..3 and 4..7. The permutation gives the channels 0 4 1 5 to the first reader:

    >>> order = channel_order("branches", (4, 8, 4), (2, 2))
    >>> order.made, order.place
    (tensor([0, 1, 4, 5, 2, 3, 6, 7]), tensor([0, 2, 1, 3, 4, 6, 5, 7]))
    >>> order.projection[1]
    Tile(rows=slice(2, 4, None), columns=slice(4, 8, None))
    """
    c, e, o = channels
    g1, g2 = groups
    made = torch.arange(e)
    source = made // (e // g1)  # the group that makes a channel
    place = made % (e // g1) * g1 + source
    reader = place // (e // g2)  # the group that reads a channel
    made = torch.argsort(reader * g1 + source, stable=True)
    pairs = list(zip(reader[made].tolist(), source[made].tolist(), strict=True))
    expansion, projection = [Tile(slice(0, e), slice(0, c))], [Tile(slice(0, o), slice(0, e))]
    if FORMS[form].tiled_expansion:
        expansion = [Tile(rows, _share(c, g1, pair[1])) for pair, rows in _runs(pairs)]
    if FORMS[form].tiled_projection:
        projection = [Tile(_share(o, g2, b), columns) for b, columns in _runs([pair[0] for pair in pairs])]
    place = place[made]
    made, place, unmade, unplace = (t.to(device) for t in (made, place, made.argsort(), place.argsort()))
    return ChannelOrder(made, place, unmade, unplace, tuple(expansion), tuple(projection))


def _share(channels: int, groups: int, group: int) -> slice:
    """Return the channels of a group."""
    size = channels // groups
    return slice(group * size, (group + 1) * size)


def _runs(keys: Sequence[Any]) -> list[tuple[Any, slice]]:
    """Return each run of equal adjacent keys, with its position."""
    runs, start = [], 0
    for key, equal in groupby(keys):
        stop = start + len(list(equal))
        runs.append((key, slice(start, stop)))
        start = stop
    return runs


def written_out(conv: nn.Conv2d) -> Tensor:
    """Return the (O, C) matrix of a pointwise group convolution, with zeros outside its blocks."""
    blocks = conv.weight.flatten(1).chunk(conv.groups)
    return torch.block_diag(*blocks) if conv.groups > 1 else blocks[0]
