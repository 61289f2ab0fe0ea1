"""IGCV1: interleaved group convolutions (Zhang, Qi, Xiao, Wang, ICCV 2017, arXiv:1707.02725).

L and M are the papers': L primary partitions (groups of the 3x3 convolution) of M channels each, M
secondary partitions (groups of the 1x1 convolution) of L channels each.
"""

from dataclasses import replace

from torch import nn

from igcv.errors import InputError
from igcv.models.blocks import RELU_EPS, ConvNorm, GroupConv, InterleavedConv, InterleavedResidual
from igcv.models.network import EARLY, Network, Options, checked_strides, plan_strides

CIFAR_SIZE, IMAGENET_SIZE = 32, 224  # pixels
CIFAR_STRIDES = (1, 1, 2, 2)  # stem, then the stages
IMAGENET_STRIDES = (2, 2, 1, 2, 2, 2)  # stem, its pooling, then the stages
STEM_STRIDES = {1: (1, 1), 2: (1, 2), 4: (2, 2)}  # convolution and pooling by their product


def igc(out_channels: int, primary: int, stride: int = 1, secondary: int | None = None) -> list[GroupConv]:
    """The two factors of an IGC block: 3x3 in L groups, then 1x1 in groups of L channels."""
    if out_channels % primary:
        raise InputError(f"L = {primary} primary partitions do not divide {out_channels} channels")
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
    """The CIFAR networks: three stages of L*M, 2*L*M and 4*L*M channels; M doubles, L stays.

    Args:
        primary: L of the first stage.
        secondary: M of the first stage.
        depth: layers in the paper's count, an IGC block being one: 3n + 2 plain, 6n + 2 with shortcuts.
        identity: False for the plain network (IGC-L..M..), True for identity shortcuts (IGC-L..M..+Ident.).
        options: see `Options`.
    """
    check_partitions(primary, secondary)
    per_block, kind = (6, "with shortcuts") if identity else (3, "plain")
    repeats, rest = divmod(depth - 2, per_block)
    if repeats < 1 or rest:
        near = per_block * max(1, round((depth - 2) / per_block)) + 2
        raise InputError(f"depth {depth} makes no {kind} IGCV1: give {per_block}n + 2, for example {near}")
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
                # The released networks give the first block of a stage the secondary groups of the stage before.
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
    """The ImageNet networks of 18 layers with shortcuts (table 4 of the paper): four stages of two blocks.

    From stage to stage M doubles and L stays (IGC-L4M32+Ident., IGC-L16M16+Ident.); with M = 2 it is L that
    doubles (IGC-L100M2+Ident.), and the stem has half the channels of the first stage.

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
    """Raise InputError unless L and M are usable."""
    if min(primary, secondary) < 1 or primary * secondary > 4096:
        raise InputError(
            f"L = {primary} and M = {secondary} make no IGCV1: both start at 1, their product ends at 4096"
        )
