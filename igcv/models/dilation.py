"""Dilated convolutions instead of strides, for feature maps of higher resolution (segmentation)."""

from collections.abc import Sequence

from torch import nn

from igcv.models.blocks import InvertedResidual


def dilate(stages: Sequence[Sequence[nn.Module]], strides: Sequence[int], output_stride: int) -> None:
    """Replace the strides beyond a total stride by dilations, in place. The parameters stay the same.

    A convolution whose stride is removed keeps its dilation; the convolutions after it skip as many pixels as the
    stride did. Every `stride`-th row and column of a feature map is then the feature map of the strided network.

    Args:
        stages: the blocks of each stage.
        strides: total stride of the stem, then the stride of each stage.
        output_stride: largest total stride of the dilated network.
    """
    total, dilation = strides[0], 1
    for blocks, stride in zip(stages, strides[1:], strict=True):
        before = dilation
        if total * stride <= output_stride:
            total *= stride
        else:
            dilation *= stride
        if dilation > 1:
            for block in blocks:
                _dilate_block(block, before, dilation)


def is_dilated(module: nn.Module) -> bool:
    """Return whether a module has dilated convolutions."""
    return any(isinstance(conv, nn.Conv2d) and max(conv.dilation) > 1 for conv in module.modules())


def _dilate_block(block: nn.Module, before: int, after: int) -> None:
    """Dilate the convolutions of a block: the strided ones, which lose their stride, and the others."""
    for conv in block.modules():
        if isinstance(conv, nn.Conv2d):
            dilation = before if max(conv.stride) > 1 else after
            conv.stride = (1, 1)
            if max(conv.kernel_size) > 1:
                conv.dilation = (dilation, dilation)
                conv.padding = tuple(dilation * (side - 1) // 2 for side in conv.kernel_size)
    if isinstance(block, InvertedResidual) and is_dilated(block):
        block.forms = ("literal",)  # the others have no dilation
