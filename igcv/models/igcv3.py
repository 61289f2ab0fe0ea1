"""IGCV3: interleaved low-rank group convolutions (Sun, Li, Liu, Wang, BMVC 2018, arXiv:1806.00178)."""

import math
from functools import partial

from igcv.errors import InputError
from igcv.models.inverted import HEAD, Stage, check_multiplier, inverted_residual_network
from igcv.models.network import Network, Options

# The paper's two tables: the group convolutions save parameters, compared with MobileNetV2, for depth or width.
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
# paper's CIFAR rows 0.5x and 0.7x. The authors say that these rows have fewer blocks, but published no counts. The
# counts are igcv's choice. They match the parameters in the paper (1.1 M, 1.5 M, without the classifier) and in its
# repository (1.2 M, 1.7 M, with 100 classes), and keep nearly the same fraction of every stage.
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
    """Build an IGCV3 network.

    Args:
        table: a key of `TABLES`: "d" (deep, IGCV3-D in the paper), "d_half", "d_p50" or "d_p70" (IGCV3-D with fewer
            blocks), or "w" (wide, IGCV3-W).
        multiplier: width multiplier. Each channel count is rounded, then raised to the next multiple of both group
            counts. The head grows only above 1.0.
        groups: (G1, G2), groups of the expanding and of the projecting pointwise convolution.
        original_widths: True gives the widths of the authors' MXNet code, for its checkpoints. With a multiplier other
            than 1, the first block of a stage then expands to another width. Above 1.0, the head has one more channel.
        options: see `Options`.

    Raises:
        InputError: if the multiplier or the group counts are out of range.
    """
    check_multiplier(multiplier)
    if min(groups) < 1 or max(groups) > 16:
        raise InputError(f"groups: got {groups[0]} and {groups[1]}, expected two integers from 1 to 16")
    multiple = math.lcm(*groups)

    def width(channels: int) -> int:
        return max(1, math.ceil(round(channels * multiplier) / multiple)) * multiple

    head = width(HEAD) if multiplier > 1 else HEAD
    if original_widths and multiplier > 1:
        head = int(HEAD * multiplier) + 1  # the authors' code tests "!= 0" instead of "% 2 != 0"

    return inverted_residual_network(
        TABLES[table],
        width,
        head,
        groups=groups,
        expand="linear",
        first_expand="linear",  # the first block has an expanding convolution, unlike in MobileNetV2
        rescale=partial(scaled_twice, multiplier=multiplier, multiple=multiple) if original_widths else None,
        options=options,
    )


def scaled_twice(channels: int, multiplier: float, multiple: int) -> int:
    """Return the input width that the authors' code assumes when it expands the first block of a stage.

    Their code multiplies the scaled `channels` by the multiplier again, and rounds half away from zero, as in Python 2.
    If the result is odd, it uses channels + 1. Their G2G4 code rounds up to a multiple of 4 instead. This function
    does the same for all other group counts, with their multiple.
    """
    again = math.floor(channels * multiplier + 0.5)
    if multiple == 2 and again % 2:
        return channels + 1
    if again == 0:
        raise InputError(
            f"multiplier: got {multiplier}, which leaves a layer without channels in the authors' widths ({channels} "
            f"channels scaled twice). Use a larger multiplier, or omit original_widths."
        )
    return math.ceil(again / multiple) * multiple
