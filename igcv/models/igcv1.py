"""IGCV1: interleaved group convolutions (Zhang, Qi, Xiao, Wang, ICCV 2017, arXiv:1707.02725).

As in the papers, L primary partitions (groups of the 3x3 convolution) have M channels each, and M secondary partitions
(groups of the 1x1 convolution) have L channels each.
"""

from dataclasses import replace

from torch import nn

from igcv.errors import InputError
from igcv.models.blocks import RELU_EPS, ConvNorm, GroupConv, InterleavedConv, InterleavedResidual
from igcv.models.network import EARLY, Network, Options, checked_strides, plan_strides

CIFAR_SIZE, IMAGENET_SIZE = 32, 224  # pixels
CIFAR_STRIDES = (1, 1, 2, 2)  # stem, then the stages
IMAGENET_STRIDES = (2, 2, 1, 2, 2, 2)  # stem, its pooling, then the stages
STEM_STRIDES = {
    1: (1, 1),
    2: (1, 2),
    4: (2, 2),
}  # strides of the convolution and the pooling, by their product


def igc(out_channels: int, primary: int, stride: int = 1, secondary: int | None = None) -> list[GroupConv]:
    """Return the two factors of an IGC block: 3x3 in L groups, then 1x1 in groups of L channels."""
    if out_channels % primary:
        raise InputError(
            f"L: got {primary} primary partitions, expected a divisor of the {out_channels} channels"
        )
    return [
        GroupConv(out_channels, 3, primary, stride),
        GroupConv(out_channels, 1, secondary or out_channels // primary),
    ]


def igcv1_cifar(
    primary: int = 24,
    secondary: int = 2,
    depth: int = 20,
    identity: bool = False,
    options: Options = Options(),
) -> Network:
    """Build a network for CIFAR, with stages of L*M, 2*L*M and 4*L*M channels. L is constant and M doubles.

    Args:
        primary: L of the first stage.
        secondary: M of the first stage.
        depth: number of layers, with an IGC block as one layer: 3n + 2 without, 6n + 2 with shortcuts.
        identity: False for the plain network (IGC-L..M..), True for identity shortcuts (IGC-L..M..+Ident.).
        options: see `Options`.
    """
    check_partitions(primary, secondary)
    per_block, kind = (6, "with shortcuts") if identity else (3, "without shortcuts")
    repeats, rest = divmod(depth - 2, per_block)
    if repeats < 1 or rest:
        near = per_block * max(1, round((depth - 2) / per_block)) + 2
        raise InputError(
            f"depth: got {depth}, expected {per_block}n + 2 for an IGCV1 {kind}, for example {near}"
        )
    strides = checked_strides(options.strides, CIFAR_STRIDES)
    stem = in_channels = primary * secondary
    widths = [stem, 2 * stem, 4 * stem]
    stages: list[list[nn.Module]] = []
    for out_channels, stage_stride in zip(widths, strides[1:], strict=True):
        blocks: list[nn.Module] = []
        for block in range(repeats):
            stride = stage_stride if block == 0 else 1
            first = igc(out_channels, primary, stride)
            if identity:
                # In the released networks, the first block of a stage has the secondary groups of the previous stage.
                first = igc(out_channels, primary, stride, in_channels // primary)
                blocks.append(InterleavedResidual(in_channels, first, igc(out_channels, primary), primary))
            else:
                blocks.append(InterleavedConv(in_channels, first))
            in_channels = out_channels
        stages.append(blocks)
    return Network(
        ConvNorm(options.in_chans, stem, 3, stride=strides[0], act=nn.ReLU, eps=RELU_EPS),
        stages,
        nn.Identity(),
        widths=widths,
        strides=strides,
        num_features=4 * stem,
        options=replace(options, input_size=options.input_size or CIFAR_SIZE),
    )


def igcv1_imagenet(primary: int = 100, secondary: int = 2, options: Options = Options()) -> Network:
    """Build a network for ImageNet, with 18 layers, shortcuts and four stages of two blocks (table 4 of the paper).

    M doubles from stage to stage, and L is constant (IGC-L4M32+Ident., IGC-L16M16+Ident.). With M = 2, L doubles
    instead, and the stem has half the channels of the first stage (IGC-L100M2+Ident.).

    Args:
        primary: L of the first stage.
        secondary: M of the first stage.
        options: see `Options`.
    """
    check_partitions(primary, secondary)
    input_size = options.input_size or IMAGENET_SIZE
    conv, pool, *planned = plan_strides(IMAGENET_STRIDES, input_size, EARLY)
    strides = checked_strides(options.strides, (conv * pool, *planned), tuple(STEM_STRIDES))
    conv_stride, pool_stride = STEM_STRIDES[strides[0]]
    grow_primary = secondary == 2
    stem = in_channels = primary if grow_primary else primary * secondary
    widths = [primary * secondary * 2**i for i in range(4)]
    stages: list[list[nn.Module]] = []
    for i, (out_channels, stride) in enumerate(zip(widths, strides[1:], strict=True)):
        partitions = primary * 2**i if grow_primary else primary
        blocks: list[nn.Module] = []
        for block in range(2):
            first = igc(out_channels, partitions, stride if block == 0 else 1)
            blocks.append(InterleavedResidual(in_channels, first, igc(out_channels, partitions), partitions))
            in_channels = out_channels
        stages.append(blocks)
    stem_layers = nn.Sequential(
        ConvNorm(options.in_chans, stem, 7, stride=conv_stride, act=nn.ReLU, eps=RELU_EPS),
        nn.MaxPool2d(3, pool_stride, padding=1),
    )
    return Network(
        stem_layers,
        stages,
        nn.Identity(),
        widths=widths,
        strides=strides,
        num_features=widths[-1],
        options=replace(options, input_size=input_size),
    )


def check_partitions(primary: int, secondary: int) -> None:
    """Raise InputError unless L and M are valid."""
    if min(primary, secondary) < 1 or primary * secondary > 4096:
        raise InputError(
            f"L, M: got {primary} and {secondary}, expected integers >= 1 with a product of at most 4096"
        )
