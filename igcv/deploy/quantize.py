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

import logging
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igcv.deploy.engines import Images, required
from igcv.deploy.folded import FoldedNetwork

STEPS = 63  # a weight of 7 bits lies between -64 and 63 steps
BATCH = 32  # calibration images at a time
SMALLEST = 1e-6  # of a range that counts


def prepared(network: FoldedNetwork, images: Images) -> FoldedNetwork:
    """A copy that computes the same up to rounding, equalized, with biases that make up for the rounding of weights.

    Args:
        network: a folded network.
        images: float32 (N, 3, S, S), calibration images.
    """
    network = deepcopy(network)
    equalize(network, images)
    correct_biases(network, images)
    return network


def equalize(network: FoldedNetwork, images: Images) -> None:
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


def correct_biases(network: FoldedNetwork, images: Images) -> None:
    """Add to every bias what the rounding of its layer's weights takes from the mean output."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None]
    inputs = _observe(network, layers, images, lambda x: x.mean((0, 2, 3)), torch.add, inputs=True)
    batches = -(-len(images) // BATCH)
    for layer, total in zip(layers, inputs, strict=True):
        assert layer.bias is not None
        lost = (layer.weight - rounded(layer.weight)).sum((2, 3))  # (O, C / groups)
        mean = (total / batches).view(layer.groups, -1)
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
    images: Images,
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


class _Reader:
    """Calibration images as ONNX Runtime wants them: one batch at a time, then None."""

    def __init__(self, name: str, images: Images) -> None:
        self.name = name
        self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def quantize(model: Any, given: Images) -> Any:
    """An ONNX model with its convolutions and linear layers in int8.

    Args:
        model: onnx.ModelProto of a prepared network.
        given: calibration images as the model takes them.
    """
    required("onnxruntime", "int8")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises to preprocess, which folding has done
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _Reader(model.graph.input[0].name, given),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # Engines round biases themselves when they open the file; stored in int8 form they take twice the bytes.
            extra_options={"QuantizeBias": False},
        )
        quantized = onnx.load(target)
    logging.root.setLevel(before)
    compact(quantized)
    onnx.helper.set_model_props(quantized, metadata)
    return quantized


def compact(model: Any) -> None:
    """Keep constants of the same content once, and give all values inside the graph short names."""
    first: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    constants = []
    for constant in model.graph.initializer:
        content = (constant.data_type, *constant.dims, constant.raw_data or constant.SerializeToString())
        if content not in first:
            first[content] = constant.name
            constants.append(constant)
        names[constant.name] = first[content]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(constants)
    outside = (*model.graph.input, *model.graph.output)
    short = {"": ""} | {value.name: value.name for value in outside}  # "" is an input left out
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("name")
        for values in (node.input, node.output):
            for i, value in enumerate(values):
                kept = names.get(value, value)
                values[i] = short.setdefault(kept, f"{len(short):x}")
    for constant in model.graph.initializer:
        constant.name = short[constant.name]
