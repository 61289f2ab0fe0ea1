"""Stochastic depth (Huang et al., ECCV 2016, arXiv:1603.09382): training skips the layers of random blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from igcv.errors import InputError
from igcv.models.blocks import InterleavedResidual, InvertedResidual


class DropPath(nn.Module):
    """Set the output of the layers next to a shortcut to zero, for random images: (N, C, H, W) -> (N, C, H, W).

    The outputs of the other images are scaled, so the mean stays the same. In evaluation, the input passes unchanged.
    The random numbers are those of timm's class of this name; importing timm takes seconds.

    Args:
        drop_prob: probability per image.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        kept = 1 - self.drop_prob
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(kept).div_(kept)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3f}"


def drop_paths(stages: Sequence[Sequence[nn.Module]], rate: float) -> None:
    """Add stochastic depth to the blocks with a shortcut, in place.

    Args:
        stages: the blocks of each stage.
        rate: probability of the last block; it increases linearly over all blocks, from 0 in the first block.

    Raises:
        InputError: if no block has a shortcut.
    """
    blocks = [block for stage in stages for block in stage]
    if not any(map(_has_shortcut, blocks)):
        raise InputError(
            f"drop_path_rate: got {rate}, expected 0 for a network without shortcuts. Networks with shortcuts are "
            "IGCV3, MobileNetV2 and the IGCV1 with identity shortcuts."
        )
    for block, probability in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        if probability > 0 and _has_shortcut(block):
            block.drop_path = DropPath(probability)


def _has_shortcut(block: nn.Module) -> bool:
    return isinstance(block, InterleavedResidual) or (isinstance(block, InvertedResidual) and block.shortcut)
