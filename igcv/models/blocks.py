"""The layers that all four families share: each block is a product of structured sparse matrices.

A group convolution is a block-diagonal matrix over the channels, a channel permutation a permutation
matrix. IGCV1 and IGCV2 multiply several of them into one dense matrix (`InterleavedConv`); IGCV3 and
MobileNetV2 expand, filter and project (`InvertedResidual`), MobileNetV2 with a single group.

Shapes: N images, C channels, G groups, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igcv.errors import InputError
from igcv.models.forms import FORMS
from igcv.models.fused import applies, compute
from igcv.models.gradients import StridedConv2d, match_gradient_format, memory_format

RELU6_EPS = 1e-5  # batch-norm epsilon of IGCV3 and MobileNetV2, as in the original MXNet code
RELU_EPS = 2e-5  # batch-norm epsilon of IGCV1, likewise
CPU_BOUND_BY_ARITHMETIC = (
    288  # expanded channels; fewer are bound by memory (measured: igcv.training.choose_forms)
)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups: one from each group in turn.

    With 6 channels in 2 groups, (a0 a1 a2 | b0 b1 b2) becomes (a0 b0 | a1 b1 | a2 b2), so that any later
    group holds channels from all the earlier ones (IGCV1, section 3.1; IGCV3, section 3.2).

    Args:
        x: (N, C, H, W); C must be divisible by `groups`.
        groups: number of groups G of the convolution that produced `x`; 1 and C leave `x` as it is.

    Returns:
        (N, C, H, W) with channel g * C/G + i moved to i * G + g, in the memory format of `x`.
    """
    n, c, h, w = x.shape
    if groups in (1, c):
        return x
    if memory_format(x) == torch.channels_last:
        # (N, C, H, W) -> (N, H, W, G, C/G) -> (N, H, W, C/G, G) -> (N, C, H, W), in channels-last memory as before
        pixels = x.permute(0, 2, 3, 1).unflatten(3, (groups, c // groups))
        return pixels.transpose(3, 4).flatten(3).permute(0, 3, 1, 2)
    # (N, C, H, W) -> (N, G, C/G, H, W) -> (N, C/G, G, H, W) -> (N, C, H, W)
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def conv2d(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A bias-free convolution padded to keep the size; an error names the channels that `groups` cannot divide."""
    for what, channels in (("input", in_channels), ("output", out_channels)):
        if channels % groups:
            raise InputError(
                f"{groups} groups do not divide the {channels} {what} channels of a convolution "
                f"({in_channels} to {out_channels}); use a number of groups that divides both"
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
        if act is not None:
            self.act = act(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return match_gradient_format(super().forward(x))


class GroupConv(NamedTuple):
    """One factor of an interleaved convolution: a block-diagonal matrix, `groups` blocks on its diagonal."""

    out_channels: int
    kernel_size: int
    groups: int
    stride: int = 1


class InterleavedConv(nn.Module):
    """Group convolutions with permutations between them, composing one dense convolution (IGCV1, IGCV2).

    After each group convolution the permutation of its groups brings channels together that were apart;
    the last permutation restores the order. With two factors, a spatial one of L groups and a pointwise
    one of M, this is the IGCV1 block (section 3.1 of its paper); a channel-wise spatial factor followed
    by several pointwise ones is the IGCV2 block (section 3.2 of its paper).

    Args:
        in_channels: C.
        factors: the group convolutions in the order of their application.
        act: activation after the batch norm, or None.

    Attributes:
        forms: how it can be computed: "literal", factor by factor, or "dense": the pointwise factors and all
            permutations are multiplied into one matrix first.
        form: the one in use.
    """

    form = "literal"

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
        self.norm = nn.BatchNorm2d(widths[-1], eps=RELU_EPS)
        self.act = act(inplace=True) if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "literal":
            for conv, groups in zip(self.convs, self.groups, strict=True):
                x = channel_shuffle(conv(x), groups)
        else:
            x = nn.functional.conv2d(self.convs[0](x), self.pointwise_weight())
        return match_gradient_format(self.act(self.norm(x)))

    def auto_form(self, device: str) -> str:
        """The form that `set_form` takes by default: dense where that at most doubles the arithmetic."""
        return "dense" if sum(1 / groups for groups in self.groups[1:]) >= 1 / 2 else "literal"

    def pointwise_weight(self) -> Tensor:
        """All after the first convolution as the weight (O, C, 1, 1) of one: what it makes of the unit vectors."""
        first, *others = list[Any](self.convs)
        with torch.autocast(first.weight.device.type, enabled=False):
            units = torch.eye(first.out_channels, dtype=first.weight.dtype, device=first.weight.device)
            x = channel_shuffle(
                units[None, :, :, None], self.groups[0]
            )  # an image of one pixel for each vector
            for conv, groups in zip(others, self.groups[1:], strict=True):
                x = channel_shuffle(conv(x), groups)
        return x.permute(1, 2, 0, 3)


class InterleavedResidual(nn.Module):
    """Two interleaved convolutions around which the input is added back: ReLU(shortcut(x) + f2(f1(x))).

    The shortcut is the identity where the shape stays, else a strided group pointwise convolution.
    """

    def __init__(
        self, in_channels: int, first: Sequence[GroupConv], second: Sequence[GroupConv], shortcut_groups: int
    ) -> None:
        super().__init__()
        middle, out_channels = first[-1].out_channels, second[-1].out_channels
        stride = first[0].stride
        self.conv1 = InterleavedConv(in_channels, first)
        self.conv2 = InterleavedConv(middle, second, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = ConvNorm(
                in_channels, out_channels, stride=stride, groups=shortcut_groups, eps=RELU_EPS
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.conv2(self.conv1(x)))


class InvertedResidual(nn.Module):
    """Expand, permute, filter each channel, project: the block of IGCV3 and, with one group, of MobileNetV2.

    IGCV3 (section 3.2 of its paper) makes both pointwise convolutions group convolutions and drops the
    activation between the first one and the channel-wise convolution.

    Args:
        in_channels: width before the block.
        expanded_channels: width inside it.
        out_channels: width after it.
        stride: of the channel-wise 3x3 convolution, 1 or 2.
        groups: (G1, G2) of the expanding and the projecting convolution; each divides its channels.
        shortcut: add the input to the output; needs stride 1 and equal widths.
        expand: "linear" (IGCV3), "relu6" (MobileNetV2) or "none" (MobileNetV2's first block: the
            expanding convolution is left out and the width stays).

    Attributes:
        forms: how it can be computed: "literal", layer by layer, and with a linear expansion all of `FORMS`.
        form: the one in use; see `set_form`.
    """

    form = "literal"

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
        self.depthwise = ConvNorm(
            expanded_channels, expanded_channels, 3, stride=stride, groups=expanded_channels, act=nn.ReLU6
        )
        self.project = ConvNorm(expanded_channels, out_channels, groups=groups[1])
        self.shortcut = shortcut

    def auto_form(self, device: str) -> str:
        """The form that `set_form` takes by default: few large products, but on a CPU no needless arithmetic."""
        arithmetic_bound = device == "cpu" and self.project.conv.in_channels >= CPU_BOUND_BY_ARITHMETIC
        return "partial_sums" if arithmetic_bound else "dense"

    def forward(self, x: Tensor) -> Tensor:
        if self.form != "literal" and applies(self.expand, self.depthwise):
            out = compute(self.expand, self.depthwise, self.project.conv, x, self.form)
            out = self.project.norm(out)
            return match_gradient_format(out.add_(x) if self.shortcut else out)
        out = channel_shuffle(self.expand(x), self.groups)
        out = self.project(self.depthwise(out))
        return x + out if self.shortcut else out


def block_kind(block: nn.Module) -> tuple[Any, ...]:
    """Return what two blocks have in common that compute the same but for their weights; it can be a key."""
    layers = list(block.modules())
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    shapes = tuple((c.in_channels, c.out_channels, c.kernel_size, c.stride, c.groups) for c in convs)
    shortcut = isinstance(block, InvertedResidual) and block.shortcut
    return tuple(map(type, layers)), shapes, shortcut
