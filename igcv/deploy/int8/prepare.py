"""int8 networks: static quantization with scales per channel, prepared so that little accuracy is lost.

Weights are signed, one scale for each output channel; activations unsigned, one scale for each tensor, from the range
that calibration images produce. Two exact or nearly exact steps come first:

- equalization: nothing but the channel-wise convolution follows the linear expansion of an IGCV3 block, so that every
  expanded channel can be scaled up or down and scaled back in that convolution's weights. All channels then fill the
  same range, where the widest of them would have left the others a few of the 256 steps. (MobileNetV2 has a ReLU6 in
  between, which does not allow it.)
- bias correction: rounding a weight moves the mean of what its layer gives; the mean input, on calibration images,
  tells by how much, and the bias takes it back (arXiv:1906.04721, section 4.2).

Weights keep 7 of their 8 bits: the integer instructions of x86 processors without VNNI add pairs of products in 16
bits, which full 8 bits would overflow.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igcv.deploy.folding.network import FoldedNetwork

STEPS = 63  # a weight of 7 bits lies between -64 and 63 steps
BATCH = 32  # calibration images at a time
SMALLEST = 1e-6  # of a range that counts


def prepared(network: FoldedNetwork, images: np.ndarray) -> FoldedNetwork:
    """A copy that computes the same up to rounding, equalized, with biases that make up for the rounding of weights.

    Args:
        network: a folded network.
        images: float32 (N, 3, S, S), calibration images.
    """
    network = deepcopy(network)
    equalize(network, images)
    correct_biases(network, images)
    return network


def equalize(network: FoldedNetwork, images: np.ndarray) -> None:
    """Scale expanded channels that nothing but a channel-wise convolution reads, so that all have the range of 1."""
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
    """Convolutions directly followed by a channel-wise one."""
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
    """Add to every bias what the rounding of its layer's weights takes from the mean output."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None]
    inputs = _observe(network, layers, images, lambda x: x.mean((2, 3)).sum(0), torch.add, inputs=True)
    for layer, total in zip(layers, inputs, strict=True):
        assert layer.bias is not None
        lost = (layer.weight - rounded(layer.weight)).sum((2, 3))  # (O, C / groups)
        mean = (total / len(images)).view(layer.groups, -1)
        parts = torch.einsum("goc,gc->go", lost.view(layer.groups, -1, mean.shape[1]), mean)
        layer.bias += parts.flatten()


def rounded(weight: Tensor) -> Tensor:
    """A weight (O, C, K, K) with the steps of its int8 form."""
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
    """What `measure` says of each layer's output (or input) on batches of images, combined."""
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
