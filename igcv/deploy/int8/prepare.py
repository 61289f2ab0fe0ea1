"""Preparation of networks for static int8 quantization, to reduce the loss of accuracy.

Weights are signed, with one scale per output channel. Activations are unsigned, with one scale per tensor, from their
range on the calibration images. Two exact or nearly exact steps prepare the network:

- Equalization scales each expanded channel of an IGCV3 block to the same range, and scales the weights of the next
  convolution back. Otherwise the channel with the widest range would leave the other channels few of the 256 steps.
  This works because only the channel-wise (depthwise) convolution follows the linear expansion. In MobileNetV2, a ReLU6
  in between prevents it.
- Bias correction: rounding the weights of a layer shifts its mean output. The bias compensates for this shift, which
  follows from the mean input on the calibration images (arXiv:1906.04721, section 4.2).

Weights use 7 of their 8 bits. The integer instructions of x86 processors without VNNI add pairs of products in 16 bits,
which overflows with 8-bit weights.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igcv.deploy.folding.network import FoldedNetwork

STEPS = 63  # largest 7-bit weight, in quantization steps
BATCH = 32  # calibration images per batch
SMALLEST = 1e-6  # ranges below this count as zero


def prepared(network: FoldedNetwork, images: np.ndarray) -> FoldedNetwork:
    """Return a copy of a folded network, equalized and with corrected biases.

    Args:
        network: a folded network.
        images: calibration images, float32 (N, 3, S, S).
    """
    network = deepcopy(network)
    equalize(network, images)
    correct_biases(network, images)
    return network


def equalize(network: FoldedNetwork, images: np.ndarray) -> None:
    """Scale expanded channels to the range 1 if only a channel-wise convolution follows."""
    pairs = [*_linear_pairs(network)]
    ranges = _observe(
        network, [first for first, _ in pairs], images, lambda x: x.abs().amax((0, 2, 3)), torch.maximum
    )
    for (first, second), largest in zip(pairs, ranges, strict=True):
        scale = torch.where(largest > SMALLEST, 1 / largest.clamp(min=SMALLEST), 1.0)
        first.weight *= scale[:, None, None, None]
        first.bias *= scale
        second.weight /= scale[:, None, None, None]


def _linear_pairs(network: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Yield each convolution that a channel-wise convolution follows directly, with that convolution."""
    for layers in network.modules():
        if isinstance(layers, nn.Sequential):
            for first, second in pairwise(layers):
                if (
                    isinstance(first, nn.Conv2d)
                    and isinstance(second, nn.Conv2d)
                    and second.groups == second.in_channels
                ):
                    yield first, second


def correct_biases(network: FoldedNetwork, images: np.ndarray) -> None:
    """Correct the bias of each convolution for the shift of its mean output, caused by rounding its weights."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None]
    inputs = _observe(network, layers, images, lambda x: x.mean((2, 3)).sum(0), torch.add, inputs=True)
    for layer, total in zip(layers, inputs, strict=True):
        assert layer.bias is not None
        lost = (layer.weight - rounded(layer.weight)).sum((2, 3))  # (O, C / groups)
        mean = (total / len(images)).view(layer.groups, -1)
        parts = torch.einsum("goc,gc->go", lost.view(layer.groups, -1, mean.shape[1]), mean)
        layer.bias += parts.flatten()


def rounded(weight: Tensor) -> Tensor:
    """Return a weight (O, C, K, K), rounded to the steps of int8."""
    step = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=SMALLEST) / STEPS
    return (weight / step).round() * step


@torch.inference_mode()
def _observe(
    network: nn.Module,
    layers: list[Any],
    images: np.ndarray,
    measure: Callable[[Tensor], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    inputs: bool = False,
) -> list[Tensor]:
    """Apply `measure` to the outputs (or inputs) of layers, batch by batch, and combine the values per layer."""
    found: dict[int, Tensor] = {}

    def note(index: int) -> Callable[..., None]:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            value = measure(given[0] if inputs else out)
            found[index] = combine(found[index], value) if index in found else value

        return hook

    hooks = [layer.register_forward_hook(note(i)) for i, layer in enumerate(layers)]
    for start in range(0, len(images), BATCH):
        network(torch.from_numpy(images[start : start + BATCH]))
    for hook in hooks:
        hook.remove()
    return [found[i].clone() for i in range(len(layers))]
