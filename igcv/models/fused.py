"""Forward and backward pass of an IGCV3 block in a form (see `igcv.models.forms`).

Shapes: N images, C input channels, E expanded channels, O output channels, H x W pixels, P = N * H * W; G1, G2 groups.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from igcv.models.forms import WHOLE, ChannelOrder, Tile, channel_order, written_out
from igcv.models.gradients import autocast_dtype, convolution_gradients
from igcv.models.norms import norm_relu6, norm_relu6_gradients

aten = torch.ops.aten


def _kept_order(
    form: str, channels: tuple[int, int, int], groups: tuple[int, int], device: torch.device
) -> ChannelOrder:
    """Return the order of C, E and O channels in two groupings, a constant for the compiler."""
    return channel_order(form, channels, groups, device)


# torch.compiler.assume_constant_result sets this attribute, but loads the compiler, which takes seconds.
_kept_order._dynamo_marked_constant = True  # type: ignore[attr-defined]


def applies(block: Any, x: Tensor) -> bool:
    """Return whether `compute` can replace the layers of an inverted residual, for activations `x` in its form.

    `compute` needs a linear expansion, plain batch norms in the same mode and a convolution without dilation. In
    evaluation mode it has no gradients.
    """
    if block.form == "literal" or torch.jit.is_tracing() or not isinstance(x, Tensor):  # traces are literal
        return False
    if not block.expand.linear or block.depthwise.conv.dilation != (1, 1):
        return False
    norms = [block.expand.norm, block.depthwise.norm]
    if not all(type(n) is nn.BatchNorm2d and n.track_running_stats for n in norms):
        return False
    training = [norm.training for norm in norms]
    return all(training) or not (any(training) or torch.is_grad_enabled())


def compute(block: Any, x: Tensor) -> Tensor:
    """Compute a block in its form except the last batch norm, and update the running statistics.

    Args:
        block: an inverted residual; `applies` must return True for it. The caller applies the last batch norm.
        x: activations (N, C, H, W).

    Returns:
        (N, O, H', W') in channels-last memory, in the precision of the surrounding autocast.
    """
    conv, norm1 = block.expand.conv, block.expand.norm
    spatial, norm2, projection = block.depthwise.conv, block.depthwise.norm, block.project.conv
    channels = conv.in_channels, conv.out_channels, projection.out_channels
    order = _kept_order(block.form, channels, (conv.groups, projection.groups), x.device)
    dtype = autocast_dtype(x)
    made, place = order.made, order.place
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(dtype, memory_format=torch.channels_last)
        weights = written_out(conv), spatial.weight, written_out(projection)
        affine = norm1.weight, norm1.bias, norm2.weight, norm2.bias
        if not norm1.training:
            statistics = _running(norm1, made), _running(norm2, place)
            return _evaluate(x, _in_order(order, (*weights, *affine)), statistics, order, spatial.stride)
        rest = order, spatial.stride, norm1.eps, norm2.eps
        out, mean1, var1, mean2, var2 = _FusedBlock.apply(x, *weights, *affine, *rest)
        _track(norm1, made, mean1, var1, _count(x))
        _track(norm2, place, mean2, var2, _count(out))
        return out


def _in_order(order: ChannelOrder, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the parameters of a block, with the expanded channels in the order of a form."""
    w1, w3, w2, gamma1, beta1, gamma2, beta2 = parameters
    made, place = order.made, order.place
    return (
        *(w1[made], w3[place], w2[:, place]),
        *(gamma1[made], beta1[made], gamma2[place], beta2[place]),
    )


def multiply(x: Tensor, weight: Tensor, blocks: Sequence[Tile], offset: Tensor | None = None) -> Tensor:
    """Return the products (N, M, H, W) of weight (M, K) and the pixels of x (N, K, H, W), plus offset (M,).

    `x` and the result are in channels-last memory.
    """
    if len(blocks) == 1 and _convolves(x):
        return F.conv2d(x, weight[:, :, None, None], offset)
    pixels = _pixels(x)
    if len(blocks) == 1:
        out = pixels @ weight.t()
    else:
        out = pixels.new_empty(len(pixels), len(weight))
        begun: set[int] = set()
        for block in blocks:
            rows, columns = block.rows, block.columns
            out[:, rows].addmm_(pixels[:, columns], weight[rows, columns].t(), beta=int(rows.start in begun))
            begun.add(rows.start)
    return _image(out if offset is None else out.add_(offset), x)


def products(left: Tensor, right: Tensor, blocks: Sequence[Tile]) -> Tensor:
    """Return the gradient of the weight (M, K) of `multiply`, zero outside the blocks.

    Args:
        left: gradient of the result of `multiply`, (N, M, H, W).
        right: input of `multiply`, (N, K, H, W).
        blocks: blocks of the weight.
    """
    if len(blocks) == 1 and _convolves(left):
        return _convolution_products(left, right, with_sums=False)[0]
    left, right = _pixels(left), _pixels(right)
    if len(blocks) == 1:
        return (right.t() @ left).t()  # on a CPU, the long sum is faster in this order
    out = left.new_zeros(left.shape[1], right.shape[1])
    for block in blocks:
        rows, columns = block.rows, block.columns
        out[rows, columns] = (right[:, columns].t() @ left[:, rows]).t()
    return out


def products_and_sums(left: Tensor, right: Tensor, blocks: Sequence[Tile]) -> tuple[Tensor, Tensor]:
    """Return the result of `products`, and the gradient of the offset (M,): the sums of `left` over all pixels."""
    if len(blocks) == 1 and _convolves(left):
        return _convolution_products(left, right, with_sums=True)
    pixels = _pixels(left)
    return products(left, right, blocks), (pixels.new_ones(1, len(pixels)) @ pixels)[0]


def _add_product(out: Tensor, x: Tensor, weight: Tensor, offset: Tensor) -> None:
    """Add the result of `multiply` to `out`."""
    if _convolves(x):
        out += multiply(x, weight, WHOLE, offset)
    else:
        _pixels(out).addmm_(_pixels(x), weight.t()).add_(offset)


def _convolution_products(left: Tensor, right: Tensor, with_sums: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight (M, K) and, `with_sums`, of the offset (M,) of a pointwise convolution."""
    m, k = left.shape[1], right.shape[1]
    geometry = (1, 1), (0, 0), (1, 1), False, (0, 0), 1
    weight = left.new_empty(m, k, 1, 1)
    gradients = aten.convolution_backward(left, right, weight, (m,), *geometry, (False, True, with_sums))
    return gradients[1].flatten(1), gradients[2]


def _convolves(x: Tensor) -> bool:
    """Return whether a pointwise convolution is faster than a matrix product: on a CPU, except in fp16.

    Measured on an AMD EPYC: 1.1 to 2 times as fast in bf16, about twice as fast in float32. The offset costs no time.
    """
    return x.device.type == "cpu" and x.dtype != torch.float16


def _transposed(blocks: Sequence[Tile]) -> list[Tile]:
    return [Tile(block.columns, block.rows) for block in blocks]


def _pixels(x: Tensor) -> Tensor:
    """Return (N, C, H, W) in channels-last memory as a matrix (P, C), without a copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(pixels: Tensor, like: Tensor) -> Tensor:
    """Return the inverse of `_pixels`, with N, H and W of `like`."""
    n, _, h, w = like.shape
    return pixels.view(n, h, w, -1).permute(0, 3, 1, 2)


def _count(x: Tensor) -> int:
    """Return the number of pixels."""
    return x.numel() // x.shape[1]


def _running(norm: nn.BatchNorm2d, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the running mean and inverse standard deviation in the order `index`."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean[index], (norm.running_var[index] + norm.eps).rsqrt()


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, index: Tensor, mean: Tensor, var: Tensor, pixels: int) -> None:
    """Update the running statistics with the statistics of a batch, given in the order `index`."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    for running, value in (
        (norm.running_mean, mean),
        (norm.running_var, var * (pixels / max(pixels - 1, 1))),
    ):
        running.index_add_(0, index, (value - running[index]) * momentum)


def _evaluate(
    x: Tensor,
    parameters: Sequence[Tensor],
    statistics: Sequence[tuple[Tensor, Tensor]],
    order: ChannelOrder,
    stride: tuple[int, ...],
) -> Tensor:
    """Compute the block with running statistics, with both batch norms folded into their convolutions."""
    w1, w3, w2, gamma1, beta1, gamma2, beta2 = parameters
    (mean1, inverse1), (mean2, inverse2) = statistics
    scale1, scale2 = gamma1 * inverse1, gamma2 * inverse2
    weights = (
        w1 * scale1[:, None],
        beta1 - scale1 * mean1,
        w3 * scale2[:, None, None, None],
        beta2 - scale2 * mean2,
        w2,
    )
    w1, b1, w3, b3, w2 = (weight.to(x.dtype) for weight in weights)
    hidden = multiply(x, w1, order.expansion, b1)
    active = F.hardtanh_(F.conv2d(hidden, w3, b3, stride, 1, groups=len(w3)), 0.0, 6.0)
    return multiply(active, w2, order.projection)


class _FusedBlock(torch.autograd.Function):
    """Expand, batch norm, channel-wise 3x3, batch norm, ReLU6, project, with batch statistics.

    Inputs: x (N, C, H, W), w1 (E, C), w3 (E, 1, 3, 3), w2 (O, E), and gamma and beta (E,) of both batch norms.
    Outputs: (N, O, H', W'), and mean and variance (E,) of the input of each batch norm, in the order of the form.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        w3: Tensor,
        w2: Tensor,
        gamma1: Tensor,
        beta1: Tensor,
        gamma2: Tensor,
        beta2: Tensor,
        order: ChannelOrder,
        stride: tuple[int, ...],
        eps1: float,
        eps2: float,
    ) -> tuple[Tensor, ...]:
        ordered = _in_order(order, (w1, w3, w2, gamma1, beta1, gamma2, beta2))
        w1, w3, w2, gamma1, beta1, gamma2, beta2 = ordered
        exact = x.to(w1.dtype)
        mean = _pixels(exact).mean(0)
        centered = exact - mean[:, None, None]
        covariance = products(centered, centered, WHOLE) / _count(x)
        var1 = ((w1 @ covariance) * w1).sum(1)
        inverse1 = (var1 + eps1).rsqrt()
        folded = (w1 * (gamma1 * inverse1)[:, None]).to(x.dtype)
        centered, w3_cast, w2_cast = centered.to(x.dtype), w3.to(x.dtype), w2.to(x.dtype)
        hidden = multiply(centered, folded, order.expansion, beta1.to(x.dtype))
        filtered = F.conv2d(hidden, w3_cast, None, stride, 1, 1, len(w3))
        active, mean2, inverse2 = norm_relu6(filtered, gamma2, beta2, eps2)
        out = multiply(active, w2_cast, order.projection)
        ctx.save_for_backward(
            *(centered, covariance, w1, gamma1, inverse1, folded, hidden, w3_cast),
            *(filtered, gamma2, beta2, mean2, inverse2, active, w2_cast),
        )
        ctx.order, ctx.stride, ctx.eps2 = order, stride, eps2
        statistics = w1 @ mean, var1, mean2, inverse2**-2 - eps2
        ctx.mark_non_differentiable(*statistics)
        return out, *statistics

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centered, covariance, w1, gamma1, inverse1, folded, hidden, w3, *rest = ctx.saved_tensors
        filtered, gamma2, beta2, mean2, inverse2, active, w2 = rest
        expansion, projection = ctx.order.expansion, ctx.order.projection
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_w2 = products(grad, active, projection).to(w1.dtype)
        spread = multiply(grad, w2.t(), _transposed(projection))
        spread, grad_gamma2, grad_beta2 = norm_relu6_gradients(
            spread, active, filtered, gamma2, beta2, mean2, inverse2, ctx.eps2
        )
        spread, grad_w3 = convolution_gradients(spread, hidden, w3, ctx.stride, (1, 1), len(w3))
        sums = products_and_sums(spread, centered, expansion)
        grad_folded, grad_beta1 = (gradient.to(w1.dtype) for gradient in sums)
        # folded = w1 * scale, scale = gamma1 * (var + eps) ** -1/2, var = diag(w1 @ covariance @ w1.T)
        grad_scale = (grad_folded * w1).sum(1)
        grad_var = -0.5 * grad_scale * gamma1 * inverse1**3
        grad_w1 = grad_folded * (gamma1 * inverse1)[:, None] + 2 * grad_var[:, None] * (w1 @ covariance)
        grad_covariance = (w1 * grad_var[:, None]).t() @ w1
        # centered = x - mean: its gradient loses its own mean, which has a contribution from the expansion only
        grad_x = multiply(spread, folded.t(), _transposed(expansion))
        of_covariance, of_mean = grad_covariance * (2 / _count(grad_x)), grad_beta1 @ folded.to(w1.dtype)
        of_mean = of_mean / -_count(grad_x)
        _add_product(grad_x, centered, of_covariance.to(grad_x.dtype), of_mean.to(grad_x.dtype))
        unmade, unplace = ctx.order.unmade, ctx.order.unplace
        return (
            *(grad_x, grad_w1[unmade], grad_w3.to(w1.dtype)[unplace], grad_w2[:, unplace]),
            *((grad_scale * inverse1)[unmade], grad_beta1[unmade], grad_gamma2[unplace], grad_beta2[unplace]),
            *(None, None, None, None),
        )
