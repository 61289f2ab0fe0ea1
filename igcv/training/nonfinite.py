"""Where numbers stop being finite, to say it when a run has to stop."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


def first_nonfinite(network: nn.Module, images: Tensor) -> str:
    """What first holds a number that is not finite when `network` computes its logits for `images`.

    Args:
        network: in the mode in which the numbers went bad.
        images: its input, (N, 3, S, S).

    Returns:
        For a sentence: the weights or the layer by name, or the images, or the loss where all of these are good.
    """
    found: list[str] = []
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.callback(module.register_forward_hook(_noting(name, found)).remove)
        # Before anything is decided: other processes may wait for this one in a batch norm.
        with torch.no_grad():
            network(images)
    if not _finite(images):
        return "the images"
    for name, parameter in network.named_parameters():
        if not _finite(parameter):
            return f"the weights {name}"
    return f"the output of {found[0]}" if found else "the loss"


def _noting(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not _finite(output):
            found.append(name or "the network")

    return note


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
