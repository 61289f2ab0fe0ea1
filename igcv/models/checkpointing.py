"""Activation checkpointing: a block stores its input only, and its backward pass computes the block again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(layers: nn.Module, x: Tensor) -> Tensor:
    """Return layers(x), block by block. The second forward pass leaves the batch norms as they are.

    Args:
        layers: a block, or a sequence of blocks or of sequences.
        x: activations (N, C, H, W).
    """
    if not isinstance(layers, nn.Sequential):
        return checkpoint(layers, x, use_reentrant=False, context_fn=partial(_contexts, layers))
    for layer in layers:
        x = checkpointed(layer, x)
    return x


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and of the second forward pass."""
    return nullcontext(), _kept_statistics(block)


@contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """Keep the running statistics of the batch norms of a block, which count every batch once."""
    norms: list[Any] = [norm for norm in block.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    momentums = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    before = [None if count is None else count.clone() for count in counts]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count, kept in zip(norms, momentums, counts, before, strict=True):
            norm.momentum = momentum
            if count is not None:
                count.copy_(kept)
