"""What a network costs: parameters and multiply-adds."""

from typing import NamedTuple

import torch
from torch import nn

from igcv.models import create_model


class Cost(NamedTuple):
    """Of one image: multiply-adds of convolutions and linear layers, as the papers count them."""

    parameters: int
    multiply_adds: int


def model_cost(name: str, num_classes: int = 1000, input_size: int | None = None) -> Cost:
    """The cost of a network by name, at its own or another input size, without allocating its weights."""
    with torch.device("meta"):
        model = create_model(name, num_classes, input_size=input_size)
        return network_cost(model, torch.empty(1, 3, *(input_size or 224,) * 2))


def network_cost(model: nn.Module, images: torch.Tensor) -> Cost:
    """The cost of `model` on `images` (1, C, H, W); both may be on the meta device."""
    counted = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        positions = output[0, 0].numel() if output.ndim == 4 else 1
        counted += weight.numel() * positions  # every weight is used once per output position

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    was_training = model.training
    with torch.no_grad():
        model.eval()(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return Cost(sum(p.numel() for p in model.parameters()), counted)
