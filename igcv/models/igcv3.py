"""IGCV3: interleaved low-rank group convolutions (Sun, Li, Liu, Wang, BMVC 2018, arXiv:1806.00178)."""

import math
from functools import partial

from igcv.errors import InputError
from igcv.models.inverted import HEAD, Stage, check_multiplier, inverted_residual_network
from igcv.models.network import Network, Options

# The paper's two ways to spend what the group convolutions save, against MobileNetV2's table:
DEEP = (  # IGCV3-D: twice the blocks; the graph of the released model
    Stage(1, 16, 1, 1),
    Stage(6, 24, 4, 2),
    Stage(6, 32, 6, 2),
    Stage(6, 64, 8, 2),
    Stage(6, 96, 6, 1),
    Stage(6, 160, 6, 2),
    Stage(6, 320, 1, 1),
)
WIDE = (  # IGCV3-W: twice the channels
    Stage(1, 32, 1, 1),
    Stage(6, 48, 2, 2),
    Stage(6, 64, 3, 2),
    Stage(6, 128, 4, 2),
    Stage(6, 192, 3, 1),
    Stage(6, 320, 3, 2),
    Stage(6, 640, 1, 1),
)
# IGCV3-D with fewer blocks in its stages, at full width. "d_half" has MobileNetV2's depth. "d_p50" and "d_p70" are the
# paper's CIFAR rows 0.5x and 0.7x. The authors say that these rows have fewer blocks, but published no counts: the
# counts are igcv's choice. They meet the paper's parameters without the classifier (1.1 M, 1.5 M) and its repository's
# with 100 classes (1.2 M, 1.7 M), and leave nearly the same share of every stage.
FEWER_BLOCKS = {
    "d_half": (1, 2, 3, 4, 3, 3, 1),
    "d_p50": (1, 2, 3, 3, 2, 2, 1),
    "d_p70": (1, 3, 4, 5, 5, 3, 1),
}
TABLES = {
    "d": DEEP,
    "w": WIDE,
    **{
        name: tuple(row._replace(n=n) for row, n in zip(DEEP, counts, strict=True))
        for name, counts in FEWER_BLOCKS.items()
    },
}


def igcv3(
    table: str = "d",
    multiplier: float = 1.0,
    groups: tuple[int, int] = (2, 2),
    original_widths: bool = False,
    options: Options = Options(),
) -> Network:
    """An IGCV3 network.

    Args:
        table: a key of `TABLES`: "d" (deep, the one the paper reports as IGCV3-D), "d_half", "d_p50" or "d_p70" (fewer
            blocks of it), or "w" (wide).
        multiplier: width multiplier; every channel count is rounded, then raised to the next multiple of
            both group counts. The head grows above 1.0 only.
        groups: (G1, G2), groups of the expanding and of the projecting pointwise convolution.
        original_widths: True gives the widths of the authors' MXNet code, for its checkpoints: with a multiplier
            other than 1 the first block of a stage expands another width, and the head above 1.0 has one more.
        options: see `Options`.

    Raises:
        InputError: for a multiplier or group counts that make no network.
    """
    check_multiplier(multiplier)
    if min(groups) < 1 or max(groups) > 16:
        raise InputError(
            f"groups {groups[0]} and {groups[1]} make no IGCV3 block; give two numbers from 1 to 16"
        )
    multiple = math.lcm(*groups)

    def width(channels: int) -> int:
        return max(1, math.ceil(round(channels * multiplier) / multiple)) * multiple

    head = width(HEAD) if multiplier > 1 else HEAD
    if original_widths and multiplier > 1:
        head = int(HEAD * multiplier) + 1  # meant to add one to odd widths, but written as != 0

    return inverted_residual_network(
        TABLES[table],
        width,
        head,
        groups=groups,
        expand="linear",
        first_expand="linear",  # unlike MobileNetV2's, IGCV3's first block keeps its expanding convolution
        rescale=partial(scaled_twice, multiplier=multiplier, multiple=multiple) if original_widths else None,
        options=options,
    )


def scaled_twice(channels: int, multiplier: float, multiple: int) -> int:
    """The width that the authors' code takes for the input of a stage's first block, when it expands it.

    It multiplies `channels`, already scaled, once more, rounds as Python 2 does (half away from zero), and
    where the outcome is odd takes channels + 1. Its G2G4 form rounds up to a multiple of 4 instead; so do
    other group counts here.
    """
    again = math.floor(channels * multiplier + 0.5)
    if multiple == 2 and again % 2:
        return channels + 1
    if again == 0:
        raise InputError(
            f"multiplier {multiplier} leaves a layer without channels in the authors' widths ({channels} channels "
            f"scaled twice); use a larger one, or the network without original_widths"
        )
    return math.ceil(again / multiple) * multiple
