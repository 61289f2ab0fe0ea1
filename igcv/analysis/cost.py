"""Cost of networks: parameters and multiply-adds."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from igcv.models import build_model, default_input_size


class Cost(NamedTuple):
    """Parameters of a network, and multiply-adds per image of its convolutions and linear layers, as in the papers."""

    parameters: int
    multiply_adds: int


def model_cost(name: str, num_classes: int = 1000, input_size: int | None = None) -> Cost:
    """Return the cost of a network by name, without allocating its weights. Default: its published input size."""
    size = input_size or default_input_size(name)
    with torch.device("meta"):
        model = build_model(name, num_classes, input_size=size)
        return network_cost(model, torch.empty(1, 3, size, size))


def network_cost(model: nn.Module, images: torch.Tensor) -> Cost:
    """Return the cost of `model` on `images` (1, C, H, W); both may be on the meta device."""
    layers = weighted_layers(model)
    calls = output_shapes(model, images, layers)
    return Cost(
        sum(p.numel() for p in model.parameters()),
        sum(multiply_adds(layers[name], shape) for name, shape in calls),
    )


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers of `model` by name: the layers whose multiply-adds count."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def multiply_adds(layer: nn.Conv2d | nn.Linear, output_shape: torch.Size) -> int:
    """Return the multiply-adds of one call of `layer` on one image: each weight is used once per output position."""
    return layer.weight.numel() * output_shape[2:].numel()


def output_shapes(
    model: nn.Module, images: torch.Tensor, modules: Mapping[str, nn.Module]
) -> list[tuple[str, torch.Size]]:
    """Run `model` once in evaluation mode and return the calls of `modules` in order, as names and output shapes."""
    calls: list[tuple[str, torch.Size]] = []

    def note(name: str, output: torch.Tensor) -> None:
        calls.append((name, output.shape))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
        for name, module in modules.items()
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return calls
