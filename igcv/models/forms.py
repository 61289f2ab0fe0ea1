"""Exact ways to compute an IGCV3 block from the same parameters, without moving a channel.

A block is expand (group 1x1, linear) -> permute -> channel-wise 3x3 -> project (group 1x1). Between the two
pointwise convolutions every expanded channel is on its own, so that the expanded channels may be kept in any
order: the permutation becomes the order of rows and columns of small matrices, and nothing is permuted at run
time. Sorted by the group that reads them, then by the group that makes them, both matrices consist of dense
blocks. The forms differ in whether they multiply block by block or write out the zeros between the blocks:

    form          expansion (E x C)    projection (O x E)    multiply-adds of the two, as multiples of the literal
    dense         written out          written out           G1, G2
    branches      written out          block by block        G1, 1
    sources       block by block       written out           1, G2
    partial_sums  block by block       block by block        1, 1

"branches" is the drawing of the IGCV3 paper, "sources" its mirror image. Which one is fastest depends on how well a
machine multiplies small matrices.

All forms save passes over the expanded activations where the literal layers cannot. The first batch norm follows
a linear map W of few channels, so its statistics follow from theirs: with the covariance S of the block's input,
the variances are diag(W S W^T), and the means drop out when the input is centered. It is folded into W and never
runs; its backward pass is arithmetic on small matrices.

Shapes: N images, C channels in, E expanded, O out, H x W pixels, P = N * H * W; G1 and G2 groups.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.errors import unknown


class Form(NamedTuple):
    """Which of the two matrices is multiplied block by block, without its zeros."""

    tiled_expansion: bool
    tiled_projection: bool


FORMS = {
    "dense": Form(False, False),
    "branches": Form(False, True),
    "sources": Form(True, False),
    "partial_sums": Form(True, True),
}


def set_form(network: nn.Module, form: str | Mapping[str, str] = "auto") -> dict[str, str]:
    """Choose how the blocks of a network are computed; parameters, checkpoints and results stay the same.

    Args:
        network: any network of the catalog.
        form: "literal", layer by layer; a name in `FORMS`; "auto", each block's default on the device that the
            network is on; or a form for each block by its name. A block that does not have it is computed literally.

    Returns:
        The form of each block that has more than one, by name.

    Raises:
        InputError: for an unknown form.
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
    """The blocks of a network that can be computed in more than one way, by name."""
    return {name: module for name, module in network.named_modules() if len(getattr(module, "forms", ())) > 1}


class Tile(NamedTuple):
    """Where a dense block lies in a matrix whose other entries are zero."""

    rows: slice
    columns: slice


WHOLE = (Tile(slice(None), slice(None)),)  # a matrix without zeros


class ChannelOrder(NamedTuple):
    """The expanded channels in the order in which a form keeps them.

    Attributes:
        made: (E,) the rows of the expanding convolution in this order.
        place: (E,) their positions after the permutation, which are channels of the channel-wise convolution.
        unmade, unplace: (E,) the inverses of both.
        expansion: the blocks of the (E, C) matrix to multiply.
        projection: the blocks of the (O, E) matrix to multiply.
    """

    made: Tensor
    place: Tensor
    unmade: Tensor
    unplace: Tensor
    expansion: tuple[Tile, ...]
    projection: tuple[Tile, ...]


@cache
@torch.inference_mode(False)  # an order that an evaluation needs first serves training as well
def channel_order(
    form: str, channels: tuple[int, int, int], groups: tuple[int, int], device: torch.device | str = "cpu"
) -> ChannelOrder:
    """ChannelOrder and blocks of a form.

    Args:
        form: a name in `FORMS`.
        channels: C, E, O.
        groups: G1 of the expansion, G2 of the projection; E need not be a multiple of G1 * G2.
        device: of the index tensors.

    With two groups that make 0..3 and 4..7, the permutation gives 0 4 1 5 to the first reader:

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
    reader = place // (e // g2)  # the group that reads it
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
    """The channels of a group."""
    size = channels // groups
    return slice(group * size, (group + 1) * size)


def _runs(keys: Sequence[Any]) -> list[tuple[Any, slice]]:
    """Where each key stands; equal ones stand together."""
    runs, start = [], 0
    for key, equal in groupby(keys):
        stop = start + len(list(equal))
        runs.append((key, slice(start, stop)))
        start = stop
    return runs


def written_out(conv: nn.Conv2d) -> Tensor:
    """The (O, C) matrix of a group pointwise convolution, zeros included."""
    blocks = conv.weight.flatten(1).chunk(conv.groups)
    return torch.block_diag(*blocks) if conv.groups > 1 else blocks[0]
