"""Backward passes that keep to a library's fast paths; the gradients stay the same.

Two calls of a training step on a CPU are 10 to 30 times slower than they need to be (PyTorch 2.15, oneDNN 3.13):

- Batch norm and ReLU6 take a scalar path where the gradient has another memory format than the layer's input. The mean
  over pixels gives such a gradient: an expanded view.
- oneDNN has no fast path in bf16 for the input gradient of a strided convolution with 1 or 2 channels a group.

Shapes: N images, C channels in, O channels out, H x W pixels.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten

FEW_CHANNELS = 2  # input channels a group; with more, oneDNN's own path is the faster one (measured up to 12)
FAST_BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the memory format of (N, C, H, W) activations; contiguous where both formats fit."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def match_gradient_format(x: Tensor) -> Tensor:
    """Let the gradient of `x` arrive in the memory format of `x`.

    A batch norm followed by this, with or without an activation between them, never gets a gradient in another memory
    format than its input, whatever reads `x`. GPU kernels need no help, and compiled code chooses its own formats.

    Args:
        x: (N, C, H, W).

    Returns:
        `x` itself.
    """
    if x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling():
        x.register_hook(partial(_in_format, memory_format(x)))
    return x


def _in_format(wanted: torch.memory_format, grad: Tensor | None) -> Tensor | None:
    """Return a gradient in a memory format; autograd also hands on None, for a gradient of zero."""
    return None if grad is None else grad.contiguous(memory_format=wanted)


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of input and weight of a convolution without bias.

    Args:
        grad: (N, O, H', W'), the gradient of the output.
        x: (N, C, H, W).
        weight: (O, C / groups, k, k) with odd k.
        stride, padding: of rows and columns; the padding is (k - 1) / 2.
        groups: as in `torch.nn.Conv2d`.
    """

    def backward(grad: Tensor, stride: tuple[int, ...], wanted: tuple[bool, bool, bool]) -> Any:
        return aten.convolution_backward(
            grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), groups, wanted
        )

    if not slow_input_gradient(x.device, x.dtype, weight.shape[1], stride):
        return backward(grad, stride, (True, True, False))[:2]
    apart = set_apart(grad, (len(x), len(weight), *x.shape[2:]), stride)
    return backward(apart, (1, 1), (True, False, False))[0], backward(grad, stride, (False, True, False))[1]


def slow_input_gradient(
    device: torch.device, dtype: torch.dtype, group_channels: int, stride: tuple[int, ...]
) -> bool:
    """Return whether the library is slow at the input gradient of such a convolution."""
    strided = max(stride) > 1 and group_channels <= FEW_CHANNELS
    return strided and device.type == "cpu" and dtype == torch.bfloat16 and FAST_BF16


def set_apart(grad: Tensor, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return `grad` with zeros between its pixels: the output gradient of the same convolution at stride 1.

    The outputs of a strided convolution are every other output of the convolution at stride 1, from the first one on.
    The outputs that it leaves out have gradients of zero.

    Args:
        grad: (N, O, H', W').
        shape: (N, O, H, W), the output's shape at stride 1.
        stride: of rows and columns.
    """
    apart = torch.empty(
        shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format(grad)
    ).zero_()
    apart[:, :, :: stride[0], :: stride[1]] = grad
    return apart


class _StridedConvolution(torch.autograd.Function):
    """A convolution without bias whose gradients are those of `convolution_gradients`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        return nn.functional.conv2d(x, weight, None, stride, padding, groups=groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, *ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = convolution_gradients(grad, *ctx.saved_tensors, *ctx.geometry)
        return grad_x, grad_weight, None, None, None


class StridedConv2d(nn.Conv2d):
    """A strided convolution without bias; in bf16 on a CPU its gradients are those of `convolution_gradients`.

    Everywhere else, and without gradients, it is `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.requires_grad or torch.jit.is_tracing():
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if not slow_input_gradient(x.device, dtype, self.weight.shape[1], self.stride):
            return super().forward(x)
        x, weight = x.to(dtype), self.weight.to(dtype)
        return _StridedConvolution.apply(x, weight, self.stride, self.padding, self.groups)
