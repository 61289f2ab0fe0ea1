"""Batch norm with batch statistics and ReLU6 in one: by Triton kernels on a GPU, otherwise by PyTorch."""

import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def has_kernels(x: Tensor) -> bool:
    """Return whether the Triton kernels (igcv.models.norm_kernels) can compute a batch norm of activations `x`."""
    return (
        x.is_cuda
        and x.dtype in PRECISIONS
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()  # the compiler joins batch norm and activation itself
        and kernels_work(x.device)
    )


@cache
def kernels_work(device: torch.device) -> bool:
    """Return whether Triton can compile and run the kernels on a device; warn if it is installed and cannot."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from igcv.models.norm_kernels import normalize

        x = torch.ones(1, 8, 2, 2, device=device).to(memory_format=torch.channels_last)
        scale, shift = torch.ones(8, device=device), torch.zeros(8, device=device)
        return not normalize(x, scale, shift, 1e-5, relu6=True)[0].any().item()
    except Exception as error:  # noqa: BLE001 - Triton needs a compiler, a writable cache and a GPU that it knows
        warnings.warn(f"PyTorch computes batch norm, because Triton failed: {error}", stacklevel=2)
        return False


def applies(norm: nn.Module, x: Any) -> bool:
    """Return whether `norm_act` can replace a layer and its activation, in a network that gets `x`.

    It needs a GPU and a plain batch norm with batch statistics and a momentum. The result has no second derivatives.
    """
    return (
        isinstance(x, Tensor)
        and x.is_cuda
        and type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == torch.float32
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None  # no transforms of torch.func
    )


def norm_act(norm: nn.BatchNorm2d, x: Tensor, relu6: bool) -> Tensor:
    """Return the batch norm of activations (N, C, H, W), with ReLU6 if `relu6`; update the running statistics."""
    if has_kernels(x) and x.numel() > x.shape[1]:  # PyTorch refuses a single value per channel
        return _NormAct.apply(x, norm.weight, norm.bias, norm, relu6)
    normed = norm(x)
    return F.hardtanh_(normed, 0.0, 6.0) if relu6 else normed


class _NormAct(torch.autograd.Function):
    """Batch norm with batch statistics, with or without ReLU6, by Triton kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm2d, relu6: bool
    ) -> Tensor:
        from igcv.models.norm_kernels import normalize

        out, mean, _, inverse = normalize(x, gamma, beta, norm.eps, relu6, norm)
        ctx.save_for_backward(x, gamma, beta, mean, inverse)
        ctx.relu6 = relu6
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from igcv.models.norm_kernels import gradients

        x, gamma, beta, mean, inverse = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        return *gradients(grad, x, gamma, beta, mean, inverse, ctx.relu6), None, None


def norm_relu6(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return ReLU6 of the batch norm of x (N, C, H, W), and mean and 1 / deviation (C,) of x; without autograd."""
    if has_kernels(x):
        from igcv.models.norm_kernels import normalize

        out, mean, _, inverse = normalize(x, gamma, beta, eps, relu6=True)
        return out, mean, inverse
    normed, mean, inverse = aten.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
    return F.hardtanh_(normed, 0.0, 6.0), mean, inverse


def norm_relu6_gradients(
    grad: Tensor,
    active: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    inverse: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the arguments x, gamma and beta of `norm_relu6`; may overwrite `grad`.

    Args:
        grad: gradient of the result, in the memory format of x.
        active: the result.
        x, gamma, beta, eps: as for `norm_relu6`.
        mean, inverse: results of `norm_relu6`.
    """
    if has_kernels(x):
        from igcv.models.norm_kernels import gradients

        return gradients(grad, x, gamma, beta, mean, inverse, relu6=True)
    grad = aten.hardtanh_backward.grad_input(grad, active, 0.0, 6.0, grad_input=grad)
    statistics = gamma, None, None, mean, inverse, True, eps
    of_x, of_gamma, of_beta = aten.native_batch_norm_backward(grad, x, *statistics, (True, True, True))
    return of_x, of_gamma, of_beta
