"""Search for the first non-finite values in a network, for error messages."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


def first_nonfinite(network: nn.Module, images: Tensor) -> str:
    """Return the place of the first non-finite values when `network` computes the logits of `images`.

    Args:
        network: the network, in the mode in which the values became non-finite.
        images: the network's input, shape (N, 3, S, S).

    Returns:
        Words for a message: the images, a weight, the output of a layer, or the loss if all of these are finite.
    """
    found: list[str] = []
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.callback(module.register_forward_hook(_noting(name, found)).remove)
        # Run the network first: other processes may wait for this one in a batch norm.
        with torch.no_grad():
            network(images)
    if not _finite(images):
        return "images"
    for name, parameter in network.named_parameters():
        if not _finite(parameter):
            return f"weights {name}"
    return f"output of {found[0]}" if found else "loss"


def _noting(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not _finite(output):
            found.append(name or "the network")

    return note


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
