"""Global pooling before the classifier."""

import torch
from torch import Tensor, nn

from igcv.errors import unknown

POOLS: dict[str, tuple[type[nn.Module], ...]] = {
    "avg": (nn.AdaptiveAvgPool2d,),
    "max": (nn.AdaptiveMaxPool2d,),
    "avgmax": (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    "catavgmax": (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    "": (),
}


class GlobalPool(nn.Module):
    """Global pooling with timm's names: (N, C, H, W) -> (N, C), or (N, 2 C) for "catavgmax".

    igcv does not use timm's class because importing timm takes seconds.

    Args:
        pool_type: "avg", "max", "avgmax" (mean of both), "catavgmax" (concatenation of both), or "" for no pooling.

    Raises:
        InputError: if the name is unknown.
    """

    def __init__(self, pool_type: str) -> None:
        super().__init__()
        if pool_type not in POOLS:
            raise unknown("global_pool", pool_type, POOLS)
        self.pool_type = pool_type
        self.pools = nn.ModuleList(pool(1) for pool in POOLS[pool_type])
        self.flatten = nn.Flatten(1) if pool_type else nn.Identity()

    def feat_mult(self) -> int:
        """Return the number of output channels per input channel."""
        return 2 if self.pool_type.startswith("cat") else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.pool_type == "":
            return x
        pooled = [pool(x) for pool in self.pools]
        if self.pool_type == "avgmax":
            pooled = [0.5 * (pooled[0] + pooled[1])]
        return self.flatten(torch.cat(pooled, 1) if len(pooled) > 1 else pooled[0])
