"""Choosing the form of every block by measurement: a few training steps of each distinct block."""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from igcv.machine.precision import autocast
from igcv.machine.timing import now
from igcv.models import blocks_with_forms, set_form

REPEATS = 5  # timed steps of each form; the median counts


def measure_forms(network: nn.Module, images: Tensor, precision: str = "float32") -> dict[str, str]:
    """The fastest form of each block on this device, for batches like `images`.

    Each form of each distinct block (same layers, same input) runs forward and backward, in turns. The network
    is left as it was, running statistics included, except for its forms, which are literal.

    Args:
        network: in training mode, on the device of `images`.
        images: (N, 3, S, S), a batch of the size to train with.
        precision: "float32", "bf16" or "fp16".

    Returns:
        A form for each block by name, for `igcv.models.set_form`.
    """
    set_form(network, "literal")
    blocks = blocks_with_forms(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = _inputs(network, blocks, images, precision)
    fastest: dict[str, str] = {}
    chosen = {}
    for name, block in blocks.items():
        key = f"{block} {tuple(inputs[name].shape)}"
        if key not in fastest:
            fastest[key] = _fastest(block, inputs[name], precision)
        chosen[name] = fastest[key]
    network.load_state_dict(state)
    return chosen


def _inputs(
    network: nn.Module, blocks: dict[str, nn.Module], images: Tensor, precision: str
) -> dict[str, Tensor]:
    """What each block receives in a forward pass."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda block, arguments: inputs.update({name: arguments[0].detach()})

    hooks = [block.register_forward_pre_hook(keep(name)) for name, block in blocks.items()]
    with torch.no_grad(), autocast(images.device, precision):
        network(images)
    for hook in hooks:
        hook.remove()
    return inputs


def _fastest(block: Any, x: Tensor, precision: str) -> str:
    """The form with the smallest median time of a forward and backward pass."""
    x = x.requires_grad_()
    times: dict[str, list[float]] = {form: [] for form in block.forms}
    for _ in range(REPEATS + 1):
        for form, measured in times.items():
            block.form = form
            start = now(x.device)
            with autocast(x.device, precision):
                out = block(x)
            out.backward(torch.ones_like(out))
            measured.append(now(x.device) - start)
    block.form = "literal"
    block.zero_grad(set_to_none=True)
    return min(times, key=lambda form: median(times[form][1:]))  # the first one warms up
