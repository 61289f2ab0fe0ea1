"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381), the baseline of the IGCV papers."""

from igcv.models.inverted import HEAD, Stage, check_multiplier, inverted_residual_network
from igcv.models.network import Network, Options

TABLE = (  # table 2 of the paper
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


def mobilenetv2(
    multiplier: float = 1.0, first_expansion: bool = False, options: Options = Options()
) -> Network:
    """Build a MobileNetV2.

    Args:
        multiplier: width multiplier.
        first_expansion: False gives the common network: no expanding convolution in the first block (t = 1), widths
            rounded to multiples of 8, and a shortcut in each block whose shapes match. True gives the network of the
            IGCV3 authors' code, on which their results are based: the first block has an expanding convolution, widths
            are rounded to integers, and the first block of a stage has no shortcut.
        options: see `Options`.
    """
    check_multiplier(multiplier)

    def width(channels: int) -> int:
        scaled = channels * multiplier
        return max(1, round(scaled)) if first_expansion else multiple_of_8(scaled)

    head = int(HEAD * multiplier) if first_expansion else width(HEAD)
    return inverted_residual_network(
        TABLE,
        width,
        head if multiplier > 1 else HEAD,
        groups=(1, 1),
        expand="relu6",
        first_expand="relu6" if first_expansion else "none",
        first_shortcut=not first_expansion,  # only at 0.25x and 0.35x, where two adjacent stages have equal widths
        options=options,
    )


def multiple_of_8(channels: float) -> int:
    """Round to a multiple of 8 that is at least 8 and 90 % of `channels`, as the MobileNetV2 authors do."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
