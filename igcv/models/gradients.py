"""Backward passes on the fast paths of PyTorch and oneDNN, with the same gradients.

Without them, two calls of a training step on a CPU are 10 to 30 times slower (PyTorch 2.15, oneDNN 3.13):

- Batch norm and ReLU6 use a slow scalar path if the gradient and the input of the layer differ in memory format. The
  mean over pixels returns such a gradient, an expanded view.
- oneDNN has no fast bf16 path for the input gradient of a strided convolution with 1 or 2 channels per group.

Shapes: N images, C input channels, O output channels, H x W pixels.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

aten = torch.ops.aten

FEW_CHANNELS = 2  # input channels per group; with more, oneDNN's own path is faster (measured up to 12)
FAST_BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def is_channels_last(x: Tensor) -> bool:
    """Return whether activations (N, C, H, W) are in channels-last memory; False if both formats fit."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the memory format of activations (N, C, H, W); contiguous if both formats fit."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the precision in which a convolution of `x` is computed under the surrounding autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def match_gradient_format(x: Tensor) -> Tensor:
    """Convert the gradient of `x` to the memory format of `x` in the backward pass.

    After a batch norm, with or without an activation, this gives the batch norm a gradient in the memory format of its
    input. It has no effect on GPUs, whose kernels do not need it, in compiled code, which chooses its own formats, or
    in a symbolic trace, whose tensors are proxies.

    Args:
        x: activations (N, C, H, W).

    Returns:
        `x` itself.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript compiles both sides of "and"
        if _has_cpu_gradient(x):
            x.register_hook(partial(_in_format, memory_format(x)))
    return x


def _has_cpu_gradient(x: Tensor) -> bool:
    return (
        isinstance(x, Tensor)
        and x.requires_grad
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def _in_format(wanted: torch.memory_format, grad: Tensor | None) -> Tensor | None:
    """Return a gradient in a memory format; autograd also passes None, for a zero gradient."""
    return None if grad is None else grad.contiguous(memory_format=wanted)


def convolution_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...], groups: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the input and the weight of a convolution without bias.

    Args:
        grad: gradient of the output, (N, O, H', W').
        x: input (N, C, H, W).
        weight: weight (O, C / groups, k, k) with odd k.
        stride, padding: stride and padding of rows and columns; the padding is (k - 1) / 2.
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
    """Return whether oneDNN has no fast path for the input gradient of a convolution."""
    strided = max(stride) > 1 and group_channels <= FEW_CHANNELS
    return strided and device.type == "cpu" and dtype == torch.bfloat16 and FAST_BF16


def set_apart(grad: Tensor, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return `grad` with zeros between its pixels: the output gradient of the same convolution at stride 1.

    A strided convolution computes every `stride`-th output of the convolution at stride 1, starting with the first.
    The gradients of the skipped outputs are zero.

    Args:
        grad: output gradient (N, O, H', W').
        shape: (N, O, H, W), the output shape at stride 1.
        stride: stride of rows and columns.
    """
    apart = torch.empty(
        shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format(grad)
    ).zero_()
    apart[:, :, :: stride[0], :: stride[1]] = grad
    return apart


class _StridedConvolution(torch.autograd.Function):
    """Convolution without bias that uses `convolution_gradients`."""

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
    """Strided convolution without bias, which uses `convolution_gradients` in bf16 on a CPU.

    In all other cases it behaves like `torch.nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript compiles both sides of "and"
            if self._needs_fast_gradient(x):
                dtype = autocast_dtype(x)
                x, weight = x.to(dtype), self.weight.to(dtype)
                return _StridedConvolution.apply(x, weight, self.stride, self.padding, self.groups)
        return self._conv_forward(x, self.weight, self.bias)

    def _needs_fast_gradient(self, x: Tensor) -> bool:
        """Return whether the gradient of `x` is needed and has no fast path in oneDNN."""
        if not _has_cpu_gradient(x) or torch.jit.is_tracing():
            return False
        return slow_input_gradient(x.device, autocast_dtype(x), self.weight.shape[1], self.stride)
