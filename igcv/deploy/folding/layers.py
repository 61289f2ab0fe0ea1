"""Folding of batch norms into layers, in float64.

Shapes: O output channels, C input channels, K x K kernel.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from igcv.models import ConvNorm

NO_CHANNEL = -1  # index of a channel of zeros


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale (O,) and shift (O,) of a batch norm with its running statistics: y = scale * x + shift."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - scale * norm.running_mean.double()


def folded_weight(layer: ConvNorm) -> tuple[Tensor, Tensor]:
    """Return weight (O, C / groups, K, K) and bias (O,) of a convolution, with the batch norm after it folded in."""
    scale, shift = scale_and_shift(layer.norm)
    return layer.conv.weight.detach().double() * scale[:, None, None, None], shift


def take(tensor: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """Return the slices of `tensor` at `index`, with zeros at NO_CHANNEL."""
    zero = torch.zeros_like(tensor.narrow(dim, 0, 1))
    return torch.cat([tensor, zero], dim).index_select(dim, index % (tensor.shape[dim] + 1))


def pointwise(matrix: Tensor, shift: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """Return the grouped convolution of a matrix (O, C) that is block-diagonal with `groups` equal blocks."""
    blocks = [rows.chunk(groups, 1)[g] for g, rows in enumerate(matrix.chunk(groups))]
    weight = torch.cat(blocks)
    assert weight.count_nonzero() == matrix.count_nonzero(), "the matrix is not block-diagonal"
    return convolution(weight[..., None, None], shift, groups=groups)


def convolution(
    weight: Tensor, shift: Tensor | None, stride: int = 1, groups: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """Return the convolution of a weight (O, C / groups, K, K) and a bias (O,).

    The default padding keeps the image size at stride 1 for odd kernels.
    """
    out_channels, in_channels, kernel_size, _ = weight.shape
    padding = (kernel_size - 1) // 2 if padding is None else padding
    with torch.device("meta"):
        conv = nn.Conv2d(
            *(in_channels * groups, out_channels, kernel_size, stride, padding),
            groups=groups,
            bias=shift is not None,
        )
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    conv.bias = None if shift is None else nn.Parameter(shift.contiguous(), requires_grad=False)
    return conv


def folded_layers(layer: nn.Module, read: Tensor | None = None, write: Tensor | None = None) -> nn.Module:
    """Return a copy of layers outside the blocks, with the batch norms folded into the convolutions.

    Args:
        layer: a ConvNorm, a pooling layer, nn.Identity, or an nn.Sequential of such layers.
        read: channel of the trained network at each input position, or NO_CHANNEL; None: the same order.
        write: channel of the trained network at each output position, or NO_CHANNEL; None: the same order.
    """
    if isinstance(layer, ConvNorm):
        weight, shift = folded_weight(layer)
        if read is not None:
            weight = take(weight, read, 1)
        if write is not None:
            weight, shift = take(weight, write), take(shift, write)
        conv = convolution(weight, shift, layer.conv.stride[0], layer.conv.groups)
        return nn.Sequential(conv, deepcopy(layer.act)) if not layer.linear else conv
    if isinstance(layer, nn.Sequential):
        first, *others = layer
        return nn.Sequential(folded_layers(first, read, write), *map(deepcopy, others))
    return deepcopy(layer)
