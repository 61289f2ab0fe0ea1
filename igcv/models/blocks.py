"""Blocks of the four families, as products of structured sparse matrices.

A group convolution is a block-diagonal matrix over the channels. A channel permutation is a permutation matrix. The
product of these matrices is dense in IGCV1 and IGCV2 (`InterleavedConv`). IGCV3 and MobileNetV2 expand, filter and
project (`InvertedResidual`); MobileNetV2 uses one group.

Shapes: N images, C channels, G groups, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.errors import InputError
from igcv.models import norms
from igcv.models.forms import FORMS
from igcv.models.fused import applies, compute
from igcv.models.gradients import StridedConv2d, is_channels_last, match_gradient_format

RELU6_EPS = 1e-5  # batch-norm epsilon of IGCV3 and MobileNetV2, as in the original MXNet code
RELU_EPS = 2e-5  # batch-norm epsilon of IGCV1, as in the original MXNet code
# expanded channels; narrower blocks are bound by memory (measured: igcv.training.choose_forms)
CPU_BOUND_BY_ARITHMETIC = 288


@torch.fx.wrap  # symbolic tracing keeps the call: the memory format is known at run time
def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups.

    With 6 channels in 2 groups, (a0 a1 a2 | b0 b1 b2) becomes (a0 b0 | a1 b1 | a2 b2). Each group of the next
    convolution then has channels from all groups of `x` (IGCV1, section 3.1; IGCV3, section 3.2).

    Args:
        x: activations (N, C, H, W); C must be divisible by `groups`.
        groups: number of groups G of the convolution that produced `x`; 1 and C have no effect.

    Returns:
        (N, C, H, W) with channel g * C/G + i moved to i * G + g, in the memory format of `x`.
    """
    n, c, h, w = x.shape
    if groups == 1 or (not torch.jit.is_tracing() and groups == c):
        return x
    if is_channels_last(x):
        # (N, C, H, W) -> (N, H, W, G, C/G) -> (N, H, W, C/G, G) -> (N, C, H, W), in channels-last memory as before
        pixels = x.permute(0, 2, 3, 1).unflatten(3, (groups, c // groups))
        return pixels.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
    # (N, C, H, W) -> (N, G, C/G, H, W) -> (N, C/G, G, H, W) -> (N, C, H, W)
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias, padded to keep the size.

    Raises:
        InputError: if `groups` does not divide the numbers of channels.
    """
    for what, channels in (("input", in_channels), ("output", out_channels)):
        if channels % groups:
            raise InputError(
                f"groups: got {groups}, expected a divisor of the {channels} {what} channels of a convolution "
                f"({in_channels} to {out_channels})"
            )
    padding = (kernel_size - 1) // 2
    kind = StridedConv2d if stride > 1 else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, unless `act` is None, an activation: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = None,
        eps: float = RELU6_EPS,
    ) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, out_channels, kernel_size, stride, groups)
        self.norm = nn.BatchNorm2d(out_channels, eps=eps)
        self.linear = act is None
        self.in_one = act in (None, nn.ReLU6)  # norm and activation may be computed in one
        if act is not None:
            self.act = act(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript compiles both sides of "and"
            if self.in_one and norms.applies(self.norm, x):
                return norms.norm_act(self.norm, self.conv(x), relu6=not self.linear)
        for layer in self:
            x = layer(x)
        return match_gradient_format(x)


class GroupConv(NamedTuple):
    """Factor of an interleaved convolution: a block-diagonal matrix with `groups` blocks."""

    out_channels: int
    kernel_size: int
    groups: int
    stride: int = 1


class InterleavedConv(nn.Module):
    """Group convolutions and permutations that together form one dense convolution (IGCV1, IGCV2).

    A permutation follows each group convolution and interleaves its groups; the last permutation restores the order.
    The IGCV1 block has two factors: a spatial one with L groups and a pointwise one with M groups (section 3.1 of the
    paper). The IGCV2 block has a channel-wise (depthwise) spatial factor and several pointwise factors (section 3.2 of
    the paper).

    Args:
        in_channels: number of input channels C.
        factors: the group convolutions, first to last.
        act: activation after the batch norm, or None.

    Attributes:
        forms: names of the forms. "literal" computes factor by factor. "dense" first multiplies the pointwise factors
            and all permutations into one matrix.
        form: the form in use.
    """

    def __init__(
        self, in_channels: int, factors: Sequence[GroupConv], act: type[nn.Module] | None = nn.ReLU
    ) -> None:
        super().__init__()
        widths = [in_channels, *(f.out_channels for f in factors)]
        self.convs = nn.ModuleList(
            conv2d(width, f.out_channels, f.kernel_size, f.stride, f.groups)
            for width, f in zip(widths, factors, strict=False)
        )
        self.groups = [f.groups for f in factors]
        pointwise = len(factors) > 1 and all(f.kernel_size == f.stride == 1 for f in factors[1:])
        self.forms = ("literal", "dense") if pointwise else ("literal",)
        self.form = "literal"
        self.norm = nn.BatchNorm2d(widths[-1], eps=RELU_EPS)
        self.act = act(inplace=True) if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting() or self.form == "literal" or not isinstance(x, Tensor):
            for i, conv in enumerate(self.convs):
                x = channel_shuffle(conv(x), self.groups[i])
        else:
            x = nn.functional.conv2d(self.convs[0](x), self.pointwise_weight())
        return match_gradient_format(self.act(self.norm(x)))

    def auto_form(self, device: str) -> str:
        """Return the default form: "dense" if this form at most doubles the arithmetic."""
        return "dense" if sum(1 / groups for groups in self.groups[1:]) >= 1 / 2 else "literal"

    @torch.jit.unused
    def pointwise_weight(self) -> Tensor:
        """Return the product of all factors after the first, as a weight (O, C, 1, 1): the outputs for unit vectors."""
        first, *others = list[Any](self.convs)
        with torch.autocast(first.weight.device.type, enabled=False):
            units = torch.eye(first.out_channels, dtype=first.weight.dtype, device=first.weight.device)
            x = channel_shuffle(units[None, :, :, None], self.groups[0])  # each pixel is a unit vector
            for conv, groups in zip(others, self.groups[1:], strict=True):
                x = channel_shuffle(conv(x), groups)
        return x.permute(1, 2, 0, 3)


class InterleavedResidual(nn.Module):
    """Two interleaved convolutions with a shortcut: ReLU(shortcut(x) + f2(f1(x))).

    The shortcut is the identity if the shape does not change, otherwise a strided pointwise group convolution.
    """

    def __init__(
        self, in_channels: int, first: Sequence[GroupConv], second: Sequence[GroupConv], shortcut_groups: int
    ) -> None:
        super().__init__()
        middle, out_channels, stride = first[-1].out_channels, second[-1].out_channels, first[0].stride
        self.conv1 = InterleavedConv(in_channels, first)
        self.conv2 = InterleavedConv(middle, second, act=None)
        self.drop_path: nn.Module = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = ConvNorm(
                in_channels, out_channels, stride=stride, groups=shortcut_groups, eps=RELU_EPS
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.drop_path(self.conv2(self.conv1(x))))


class InvertedResidual(nn.Module):
    """Block of IGCV3 and, with one group, of MobileNetV2: expand, permute, channel-wise convolution, project.

    In IGCV3, both pointwise convolutions are group convolutions, and no activation precedes the channel-wise
    (depthwise) convolution (section 3.2 of the paper).

    Args:
        in_channels: number of input channels.
        expanded_channels: number of channels inside the block.
        out_channels: number of output channels.
        stride: stride of the channel-wise 3x3 convolution, 1 or 2.
        groups: (G1, G2), groups of the expanding and of the projecting convolution; each divides its channels.
        shortcut: add the input to the output; needs stride 1 and equal widths.
        expand: "linear" (IGCV3), "relu6" (MobileNetV2) or "none" (the first block of MobileNetV2, which has no
            expanding convolution).

    Attributes:
        forms: names of the forms: "literal", layer by layer, and all of `FORMS` if the expansion is linear.
        form: the form in use; see `set_form`.
    """

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        groups: tuple[int, int] = (1, 1),
        shortcut: bool = False,
        expand: str = "relu6",
    ) -> None:
        super().__init__()
        assert not shortcut or (stride == 1 and in_channels == out_channels)
        expand_act = {"linear": None, "relu6": nn.ReLU6, "none": None}[expand]
        self.expand: nn.Module = nn.Identity()
        if expand != "none":
            self.expand = ConvNorm(in_channels, expanded_channels, groups=groups[0], act=expand_act)
        self.groups = groups[0]
        self.forms = ("literal", *FORMS) if expand == "linear" else ("literal",)
        self.form = "literal"
        self.depthwise = ConvNorm(
            expanded_channels, expanded_channels, 3, stride=stride, groups=expanded_channels, act=nn.ReLU6
        )
        self.project = ConvNorm(expanded_channels, out_channels, groups=groups[1])
        self.drop_path: nn.Module = nn.Identity()
        self.shortcut = shortcut

    def auto_form(self, device: str) -> str:
        """Return the default form: "partial_sums" for wide blocks on a CPU, otherwise "dense"."""
        arithmetic_bound = device == "cpu" and self.project.conv.in_channels >= CPU_BOUND_BY_ARITHMETIC
        return "partial_sums" if arithmetic_bound else "dense"

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript compiles both sides of "and"
            if applies(self, x):
                out = self.drop_path(self.project.norm(compute(self, x)))
                return match_gradient_format(out.add_(x) if self.shortcut else out)
        out = channel_shuffle(self.expand(x), self.groups)
        out = self.project(self.depthwise(out))
        return x + self.drop_path(out) if self.shortcut else out


def block_kind(block: nn.Module) -> tuple[Any, ...]:
    """Return a hashable key, equal for blocks that differ only in their weights."""
    layers = list(block.modules())
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    shapes = tuple((c.in_channels, c.out_channels, c.kernel_size, c.stride, c.groups) for c in convs)
    shortcut = isinstance(block, InvertedResidual) and block.shortcut
    return tuple(map(type, layers)), shapes, shortcut
