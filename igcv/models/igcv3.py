"""IGCV3: interleaved low-rank group convolutions (Sun, Li, Liu, Wang, BMVC 2018, arXiv:1806.00178)."""

import math

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
TABLES = {"d": DEEP, "w": WIDE}


def igcv3(
    table: str = "d",
    multiplier: float = 1.0,
    groups: tuple[int, int] = (2, 2),
    options: Options = Options(),
) -> Network:
    """An IGCV3 network.

    Args:
        table: "d" (deep, the one the paper reports as IGCV3-D) or "w" (wide).
        multiplier: width multiplier; every channel count is rounded, then raised to the next multiple of
            both group counts. The head grows above 1.0 only.
        groups: (G1, G2), groups of the expanding and of the projecting pointwise convolution.
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

    return inverted_residual_network(
        TABLES[table],
        width,
        width(HEAD) if multiplier > 1 else HEAD,
        groups=groups,
        expand="linear",
        first_expand="linear",  # unlike MobileNetV2's, IGCV3's first block keeps its expanding convolution
        options=options,
    )
