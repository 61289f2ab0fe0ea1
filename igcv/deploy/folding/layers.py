"""Layers with their batch norms folded in, computed in float64.

Shapes: O channels out, C in, K x K the kernel.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from igcv.models import ConvNorm

NO_CHANNEL = -1  # in an index of channels: a channel of zeros


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm with its running statistics as y = scale * x + shift, each (O,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - scale * norm.running_mean.double()


def folded_weight(layer: ConvNorm) -> tuple[Tensor, Tensor]:
    """Weight (O, C / groups, K, K) and bias (O,) of a convolution with the batch norm behind it."""
    scale, shift = scale_and_shift(layer.norm)
    return layer.conv.weight.detach().double() * scale[:, None, None, None], shift


def take(tensor: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """The slices of `tensor` at `index`, zeros where it is NO_CHANNEL."""
    zero = torch.zeros_like(tensor.narrow(dim, 0, 1))
    return torch.cat([tensor, zero], dim).index_select(dim, index % (tensor.shape[dim] + 1))


def pointwise(matrix: Tensor, shift: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """The convolution of a matrix (O, C) that is zero outside `groups` equal blocks on its diagonal."""
    blocks = [rows.chunk(groups, 1)[g] for g, rows in enumerate(matrix.chunk(groups))]
    weight = torch.cat(blocks)
    assert weight.count_nonzero() == matrix.count_nonzero(), "a grouped layer would leave something out"
    return convolution(weight[..., None, None], shift, groups=groups)


def convolution(
    weight: Tensor, shift: Tensor | None, stride: int = 1, groups: int = 1, padding: int | None = None
) -> nn.Conv2d:
    """The layer of a weight (O, C / groups, K, K) and a bias (O,); without `padding` it keeps the size."""
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
    """A layer, or several in a row, around the blocks: convolutions with their batch norms folded in.

    Args:
        layer: a ConvNorm, a pooling layer, nn.Identity, or nn.Sequential of such.
        read: the channel of the trained network that lies at each place of the input, or NO_CHANNEL; None: as there.
        write: likewise for the output.
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
